#!/bin/bash
# Installs the programs that swarmdisk is compared with: tests/setup/peers.sh
# Runs as root on Debian 12; does nothing when all of them are there. `rqbit` is not in Debian: it says how to get it.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

# QEMU's tools come from the suite that packages.sh takes all of QEMU from.
"$(dirname "$0")/packages.sh"
PACKAGES=(
  nbdkit libnbd-bin                    # NBD; the torrent plugin is in nbdkit  
  tgt                                  # iSCSI
  iperf3                               # what a link can carry
  aria2 btfs python3-libtorrent        # BitTorrent
  mktorrent opentracker curl           # what makes torrents, and introduces those who have one
)

mapfile -t absent < <(missing "${PACKAGES[@]}")
if [ ${#absent[@]} -gt 0 ]; then
  echo "installing ${absent[*]}" >&2
  [ "$(id -u)" = 0 ] || { echo "not root: run it with sudo" >&2; exit 1; }
  quietly apt-get -q update
  had_tracker=$(missing opentracker) had_target=$(missing tgt)
  install_packages "${absent[@]}"
  # The comparison starts a tracker of its own; Debian's would run from now on.
  if [ -n "$had_tracker" ] && [ -d /run/systemd/system ]; then
    quietly systemctl disable --now opentracker.service
  fi
  if [ -n "$had_target" ] && [ -d /run/systemd/system ]; then
    quietly systemctl disable --now tgt.service
  fi
fi
command -v rqbit >/dev/null || echo "rqbit is not installed, and is left out: cargo install rqbit --locked" >&2
