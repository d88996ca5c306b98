#!/bin/bash
# Installs what builds for Windows and runs it under Wine: tests/windows/toolchain.sh
# Runs as root on Debian 12; does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/setup/debian.sh

PACKAGES=(gcc-mingw-w64-x86-64 wine64)

mapfile -t absent < <(missing "${PACKAGES[@]}")
if [ ${#absent[@]} -gt 0 ]; then
  echo "installing ${absent[*]}" >&2
  [ "$(id -u)" = 0 ] || { echo "not root: run it with sudo" >&2; exit 1; }
  quietly apt-get -q update
  install_packages "${absent[@]}"
fi
installed=$(rustup target list --installed 2>/dev/null || true)
for target in x86_64-pc-windows-gnu x86_64-pc-windows-msvc; do
  grep -qx "$target" <<< "$installed" || tests/setup/rust-src.sh target/rust-src
done
# The first run makes Wine's prefix.
tests/windows/wine.sh cmd /c exit
