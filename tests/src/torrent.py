"""Seeds or downloads one torrent with libtorrent: torrent.py seed|download TORRENT FOLDER [OWN-ADDRESS SEED-ADDRESS]

Without addresses it is reached at all of this machine's, at port 6881, and finds others by the torrent's tracker and its
defaults; with them it keeps to its own, and asks nobody but the seed.

Prints "listening" when it can be reached and "complete" when it has all, on disk; runs until it is killed.
"""

import sys
import time

import libtorrent

job, path, folder, *addresses = sys.argv[1:]
settings = {
    "listen_interfaces": "0.0.0.0:6881",
    # Tells when the cache has been flushed.
    "alert_mask": int(libtorrent.alert.category_t.storage_notification),
}
if addresses:
    settings |= {
        "listen_interfaces": addresses[0],
        "outgoing_interfaces": addresses[0].split(":")[0],
        "enable_dht": False,
        "enable_lsd": False,
        # TCP carries more here.
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
    }
session = libtorrent.session(settings)
torrent = libtorrent.add_torrent_params()
torrent.ti = libtorrent.torrent_info(path)
torrent.save_path = folder
torrent.flags &= ~libtorrent.torrent_flags.paused
torrent.flags &= ~libtorrent.torrent_flags.auto_managed
if job == "seed":
    # As after a restart: what is there is taken for whole.
    torrent.flags |= libtorrent.torrent_flags.seed_mode
handle = session.add_torrent(torrent)

while not session.is_listening():
    time.sleep(0.002)
print("listening", flush=True)
if job == "download" and addresses:
    host, port = addresses[1].split(":")
    handle.connect_peer((host, int(port)))
while not handle.status().is_seeding:
    time.sleep(0.005)
if job == "download":
    # What is still on its way to the disk is not yet a file.
    handle.flush_cache()
    flushed = False
    while not flushed:
        session.wait_for_alert(1000)
        alerts = session.pop_alerts()
        flushed = any(isinstance(alert, libtorrent.cache_flushed_alert) for alert in alerts)
print("complete", flush=True)
while True:
    time.sleep(3600)
