#!/bin/bash
# Unpacks Debian 13's cloud kernel, whose drivers of ublk and virtio disks are modules, for a guest: tests/ublk/kernel.sh
#
# Prints the folder, in the cache directory, with vmlinuz and modules/*.ko; they are kept between runs. APT checks the
# package's signature with a state of its own: nothing is installed, nothing on the machine is changed.
set -euo pipefail
. "$(dirname "$0")/../setup/debian.sh"

SUITE=trixie
META=linux-image-cloud-amd64
# Those that are no modules are in the kernel.
MODULES=(ublk_drv virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk)
dest=${SWARMDISK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmdisk}/guest-kernel
mkdir -p "$dest"
[ ! -f "$dest/vmlinuz" ] || { echo "$dest"; exit 0; }

work=$(mktemp -d "$dest/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/kernel" "$work/modules"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_uri "$SUITE") $SUITE main" > "$work/list"
private=(
  -o Dir::Etc::SourceList="$work/list" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=
  -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o APT::Architecture=amd64
)
apt-get "${private[@]}" -qq update
package=$(apt-cache "${private[@]}" depends "$META" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
[ -n "$package" ] || { echo "$SUITE has no $META: Debian has changed its names" >&2; exit 1; }
(cd "$work" && apt-get "${private[@]}" -qq download "$package")
dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work/kernel"

for module in "${MODULES[@]}"; do
  file=$(find "$work/kernel" -name "$module.ko*" | head -1)
  case $file in
    '') grep -q "/$module.ko$" "$work"/kernel/{usr/,}lib/modules/*/modules.builtin 2>/dev/null ||
      { echo "$package has no module $module" >&2; exit 1; } ;;
    *.xz) xz -dc "$file" > "$work/modules/$module.ko" ;;
    *) cp "$file" "$work/modules/$module.ko" ;;
  esac
done
rm -rf "$dest/modules"
mv "$work/modules" "$dest/modules"
# Last: it says that all is there.
cp "$work"/kernel/boot/vmlinuz-* "$dest/vmlinuz"
echo "$dest"
