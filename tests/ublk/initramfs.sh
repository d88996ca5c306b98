#!/bin/bash
# Packs a guest that runs one script and ends: tests/ublk/initramfs.sh KERNEL_DIRECTORY OUT SCRIPT FILE...
#
# KERNEL_DIRECTORY is what kernel.sh made. A FILE that is a program goes to /bin, stripped and with its libraries; any
# other goes to /data. SCRIPT runs as /init does, under busybox, with all modules in /modules.
set -euo pipefail

[ $# -ge 3 ] || { echo "usage: $0 KERNEL_DIRECTORY OUT SCRIPT FILE..." >&2; exit 2; }
kernel=$1 out=$2 script=$3
shift 3
tree=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,proc,sys,dev,tmp,etc,mnt,data,modules}
busybox=$(command -v busybox)
! ldd "$busybox" >/dev/null 2>&1 || { echo "$busybox is not a static one: install busybox-static" >&2; exit 1; }
cp "$busybox" "$tree/bin/busybox"
cp "$kernel"/modules/*.ko "$tree/modules/"
cp "$script" "$tree/init"
chmod +x "$tree/init"
for file in "$@"; do
  [ -x "$file" ] || { cp --sparse=always "$file" "$tree/data/"; continue; }
  strip -o "$tree/bin/$(basename "$file")" "$file"
  for library in $(ldd "$file" | grep -oE '/[^ ]+'); do
    mkdir -p "$tree$(dirname "$library")"
    cp -L "$library" "$tree$library"
  done
done
(cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) > "$out"
