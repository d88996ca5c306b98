#!/bin/bash
# Installs the Debian packages that the full tests use: tests/setup/packages.sh
# Runs as root on Debian 12; does nothing when all of them are there.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

# QEMU comes from one suite: parts of two of them conflict.
SUITE=bookworm-backports
QEMU=(qemu-system-x86 qemu-utils qemu-block-extra)
PACKAGES=(
  ovmf libnbd-bin python3-libnbd nbdkit fio             # what boots, and other people's clients
  mmdebstrap eatmydata mtools dosfstools e2fsprogs fdisk zstd   # what builds the appliance
  iproute2 python3 xz-utils
  g++ libsimgrid-dev                                    # the other simulator, 200 MB with Boost and ns-3
)

missing() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

mapfile -t qemu < <(missing "${QEMU[@]}")
mapfile -t others < <(missing "${PACKAGES[@]}")
[ $((${#qemu[@]} + ${#others[@]})) -gt 0 ] || exit 0

echo "installing ${qemu[*]} ${others[*]}" >&2
[ "$(id -u)" = 0 ] || { echo "not root: run it with sudo" >&2; exit 1; }

if [ ${#qemu[@]} -gt 0 ] && ! debian_suites | grep -q " $SUITE\$"; then
  uri=$(debian_uri "$SUITE")
  cat > /etc/apt/sources.list.d/swarmdisk-backports.sources <<S
Types: deb
URIs: $uri
Suites: $SUITE
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
S
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { "$@" >"$log" 2>&1 </dev/null || { cat "$log" >&2; exit 1; }; }
export DEBIAN_FRONTEND=noninteractive
quietly apt-get -q update
install=(apt-get -q -y install --no-remove --no-install-recommends)
[ ${#qemu[@]} = 0 ] || quietly "${install[@]}" -t "$SUITE" "${qemu[@]}"
[ ${#others[@]} = 0 ] || quietly "${install[@]}" "${others[@]}"
