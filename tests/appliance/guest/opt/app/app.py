"""A small web service: it reads as much of Python as a real one does, and counts its visits in PostgreSQL."""

import http.server
import json
import logging
import sqlite3  # noqa: F401  (loaded, not used: a service imports more than it needs)
import ssl  # noqa: F401
import subprocess
import urllib.request  # noqa: F401


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        database = subprocess.run(["psql", "-tAc", "select version()"], capture_output=True, text=True)
        body = json.dumps({"path": self.path, "database": database.stdout.strip()}).encode()
        self.send_response(200 if database.returncode == 0 else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


logging.basicConfig(level=logging.INFO)
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
