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
  libiscsi-bin ipxe-qemu                                # the same for iSCSI
  mmdebstrap eatmydata mtools dosfstools e2fsprogs fdisk zstd   # what builds the appliance
  iproute2 python3 xz-utils
  ntfs-3g                                               # what makes and fills NTFS volumes
  busybox-static cpio binutils                          # what the guest for ublk is packed with
  g++ libsimgrid-dev                                    # the other simulator, 200 MB with Boost and ns-3
)

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

quietly apt-get -q update
[ ${#qemu[@]} = 0 ] || install_packages -t "$SUITE" "${qemu[@]}"
[ ${#others[@]} = 0 ] || install_packages "${others[@]}"
