#!/bin/bash
# Builds rublk, a ublk server that ours is compared with, and prints where it is: tests/setup/rublk.sh
# As root on Debian 12 with Rust: its build needs libclang. It is kept in the cache directory between runs.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

VERSION=0.2.15
root=${SWARMDISK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmdisk}/rublk-$VERSION
[ ! -x "$root/bin/rublk" ] || { echo "$root/bin/rublk"; exit 0; }
# Whoever has libclang elsewhere says so.
if [ -z "${LIBCLANG_PATH:-}" ]; then
  mapfile -t absent < <(missing libclang-dev)
  if [ ${#absent[@]} -gt 0 ]; then
    echo "installing ${absent[*]}" >&2
    [ "$(id -u)" = 0 ] || { echo "not root: run it with sudo" >&2; exit 1; }
    quietly apt-get -q update
    install_packages "${absent[@]}"
  fi
fi
# Without the parts that need more libraries: memory of graphics cards, compressed images.
cargo install rublk --version "=$VERSION" --locked --no-default-features --quiet --root "$root" >&2
echo "$root/bin/rublk"
