# What a web server does after its boot: static and dynamic pages, then with TLS, a batch job in Python, compressed logs.
# Read by the guest's shell from a disk of its own; says on the console how it ended.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0' EXIT
cd /tmp

until curl -sf http://127.0.0.1:8000/; do sleep 1; done
for page in 1 2 3 4 5 6 7 8 9 10; do
  curl -s http://127.0.0.1/ "http://127.0.0.1/$page"
  curl -sf "http://127.0.0.1:8000/$page"
done

openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=appliance -keyout key.pem -out cert.pem 2> /dev/null
cat > /etc/nginx/conf.d/tls.conf <<'C'
server {
  listen 127.0.0.1:443 ssl http2;
  ssl_certificate /tmp/cert.pem;
  ssl_certificate_key /tmp/key.pem;
  gzip on;
  location / { proxy_pass http://127.0.0.1:8000; }
}
C
nginx -t -q
systemctl reload nginx
for page in 1 2 3; do curl -sk --retry 5 --retry-all-errors "https://127.0.0.1/$page"; done

python3 - <<'P'
import argparse, asyncio, concurrent.futures, csv, ctypes, decimal, difflib, email.mime.multipart, fractions, gzip
import html.parser, http.cookies, imaplib, lzma, multiprocessing, optparse, pickle, smtplib, sqlite3, statistics
import tarfile, tempfile, unittest.mock, uuid, xml.dom.minidom, xml.etree.ElementTree, xmlrpc.client, zipfile, zoneinfo
store = sqlite3.connect(":memory:")
store.execute("create table visits (page, hits)")
store.executemany("insert into visits values (?, ?)", [(page, page % 7) for page in range(1000)])
store.execute("select hits, count(*) from visits group by hits order by 2").fetchall()
print(len(lzma.compress(bytes(1 << 16))), statistics.stdev([1, 2, 4]), decimal.Decimal(2).sqrt())
async def wait(): await asyncio.sleep(0)
asyncio.run(wait())
P
gzip -c /var/log/nginx/access.log
