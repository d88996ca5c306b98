#!/bin/bash
# Builds the server that the boot tests start: tests/appliance/build.sh [DIRECTORY]
#
# DIRECTORY gets disk.raw (Debian 12 with nginx, PostgreSQL and a Python service; GPT; starts by BIOS, by UEFI, or with
# the vmlinuz and initrd.img beside it) and is printed on stdout. Whoever boots it sees "BOOT-DONE" on the serial console.
# The result is kept until this folder changes. Needs root: a chroot is filled from Debian's packages.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin

HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:-${SWARMDISK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmdisk}/appliance}
MIB=1048576
DISK_MIB=3072 BIOS_MIB=1 ESP_MIB=2 ROOT_MIB=66           # the disk's size, and where each partition starts
PACKAGES=(
  systemd-sysv udev dbus linux-image-cloud-amd64 initramfs-tools zstd grub-efi-amd64-bin grub-pc-bin grub2-common
  iproute2 openssh-server ca-certificates curl rsyslog nginx postgresql python3
)

main() {
  local stamp
  stamp=$(cd "$HERE" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
  if ! fresh "$stamp"; then
    check_machine
    mkdir -p "$OUT"
    exec 9> "$OUT/lock"
    flock -n 9 || { say "waiting for another build in $OUT"; flock 9; }
    fresh "$stamp" || build "$stamp"
  fi
  (cd "$OUT" && pwd)
}

fresh() { [ "$(cat "$OUT/stamp" 2>/dev/null)" = "$1" ]; }
say() { echo "appliance: $*" >&2; }
fail() { say "$*"; exit 1; }

check_machine() {
  local pair missing=()
  for pair in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk mkfs.vfat:dosfstools mcopy:mtools flock:util-linux pkill:procps; do
    command -v "${pair%:*}" > /dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} = 0 ] || fail "tools are missing: apt-get install ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail "not root: run $0 with sudo"
}

build() {
  rm -rf --one-file-system "$OUT"/build.*                 # left by a build that was killed
  WORK=$(mktemp -d "$OUT/build.XXXXXX")
  CHILD=
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  step "packages" install_packages
  step "settings" configure
  step "disk" make_disk
  # The stamp comes last, so that files which do not belong together are never taken for a result.
  rm -f "$OUT/stamp"
  mv "$WORK/disk.raw" "$WORK/vmlinuz" "$WORK/initrd.img" "$OUT/"
  echo "$1" > "$WORK/stamp"
  mv "$WORK/stamp" "$OUT/stamp"
  say "$OUT/disk.raw has $(du -BM "$OUT/disk.raw" | cut -f1) allocated, built in $SECONDS s"
}

step() {
  local began=$SECONDS
  say "$1 …"
  # In the background, so that a signal is served at once and not after minutes.
  "$2" > "$WORK/log" 2>&1 < /dev/null &
  CHILD=$!
  wait "$CHILD" || { tail -n 30 "$WORK/log" >&2; fail "$1 failed"; }
  CHILD=
  say "$1: $((SECONDS - began)) s"
}

cleanup() {
  while [ -n "$CHILD" ] && kill -0 "$CHILD" 2> /dev/null; do
    pkill -KILL -P "$CHILD" || true
    sleep 0.1
  done
  rm -rf --one-file-system "$WORK"
}

install_packages() {
  set -e
  . "$HERE/../setup/debian.sh"
  local suite sources=()
  for suite in bookworm bookworm-updates bookworm-security; do
    ! debian_suites | grep -q " $suite\$" || sources+=("deb $(debian_uri "$suite") $suite main")
  done
  [ ${#sources[@]} -gt 0 ] || { debian_uri bookworm; return 1; }
  # In namespaces of its own, so that however it ends no mount and no process is left.
  unshare --mount --pid --fork --mount-proc --kill-child mmdebstrap --mode=root --format=directory --variant=important --components=main \
    --include="$(IFS=,; echo "${PACKAGES[*]}")" \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="cp -R '$HERE/guest/etc/initramfs-tools' \"\$1/etc/\"" \
    bookworm "$WORK/root" "${sources[@]}"
}

configure() {
  set -e
  cp -R "$HERE/guest/." "$WORK/root/"
  # A machine of its own from the start: without this the first boot would set all units up anew.
  echo 5eed00000000400080000000a991a9ce > "$WORK/root/etc/machine-id"
  chroot "$WORK/root" passwd -d root
  chroot "$WORK/root" systemctl enable app boot-done systemd-networkd
  chroot "$WORK/root" systemctl disable systemd-networkd-wait-online
  # GRUB finds its configuration by the root filesystem's label, whichever way it was started.
  printf 'search --no-floppy --label root --set=root\nset prefix=($root)/boot/grub\nconfigfile /boot/grub/grub.cfg\n' \
    > "$WORK/root/tmp/embed.cfg"
  grub_image x86_64-efi BOOTX64.EFI
  grub_image i386-pc core.img biosdisk
  cp "$WORK/root/usr/lib/grub/i386-pc/boot.img" "$WORK/"
  rm "$WORK/root/tmp/embed.cfg"
  cp -L "$WORK/root/vmlinuz" "$WORK/root/initrd.img" "$WORK/"
}

grub_image() {
  local format=$1 name=$2
  shift 2
  chroot "$WORK/root" grub-mkimage -O "$format" -c /tmp/embed.cfg -p /boot/grub -o "/tmp/$name" \
    part_gpt ext2 normal linux serial terminal search search_label configfile "$@"
  mv "$WORK/root/tmp/$name" "$WORK/"
}

make_disk() {
  set -e
  local disk=$WORK/disk.raw esp=$WORK/esp.fat
  truncate -s $((DISK_MIB * MIB)) "$disk"
  sfdisk -q "$disk" <<P
label: gpt
start=${BIOS_MIB}MiB, size=$((ESP_MIB - BIOS_MIB))MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
start=${ESP_MIB}MiB, size=$((ROOT_MIB - ESP_MIB))MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
start=${ROOT_MIB}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root
P
  # No lazy tables: a guest would fill them in later, with writes that no real server does. The last MiB is the second GPT's.
  mke2fs -q -t ext4 -L root -E "offset=$((ROOT_MIB * MIB)),lazy_itable_init=0,lazy_journal_init=0" -d "$WORK/root" \
    "$disk" "$((DISK_MIB - ROOT_MIB - 1))M"

  truncate -s $(((ROOT_MIB - ESP_MIB) * MIB)) "$esp"
  mkfs.vfat -F 32 -n ESP "$esp"
  mmd -i "$esp" ::/EFI ::/EFI/BOOT
  mcopy -i "$esp" "$WORK/BOOTX64.EFI" ::/EFI/BOOT/BOOTX64.EFI
  dd if="$esp" of="$disk" bs=1M seek=$ESP_MIB conv=notrunc,sparse status=none

  install_bios_grub "$disk"
  fallocate --dig-holes "$disk"
}

# What grub-install does, on a file: boot.img is the boot sector's code, core.img fills the first partition.
# The offsets are those of GRUB's boot/i386/pc/boot.h and diskboot.h.
install_bios_grub() {
  local disk=$1 sector=$((BIOS_MIB * MIB / 512))
  poke "$WORK/boot.img" $((0x5c)) "$(little_endian "$sector")"        # where core.img begins
  poke "$WORK/boot.img" $((0x66)) '\x90\x90'                            # trust the BIOS's drive number
  poke "$WORK/core.img" $((0x1f4)) "$(little_endian $((sector + 1)))"   # where the rest of core.img is
  head -c 440 "$WORK/boot.img" | dd of="$disk" conv=notrunc status=none
  dd if="$WORK/core.img" of="$disk" bs=512 seek="$sector" conv=notrunc status=none
}

poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

little_endian() {
  local value=$1 i
  for i in 1 2 3 4 5 6 7 8; do
    printf '\\x%02x' $((value & 255))
    value=$((value >> 8))
  done
}

main
