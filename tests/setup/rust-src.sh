#!/bin/bash
# Unpacks the standard library's source that matches this machine's rustc: tests/setup/rust-src.sh DIRECTORY
#
# For a target without a built library: export __CARGO_TESTS_ONLY_SRC_ROOT=DIRECTORY/library RUSTC_BOOTSTRAP=1,
# then cargo build -Zbuild-std=core. The source is Debian's, since rustup's may not be to be had. APT checks its
# signature with a state of its own: nothing on the machine is changed.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

SUITE=trixie-backports
[ $# = 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
release=$(rustc --version | cut -d' ' -f2)
mkdir -p "$1"
dest=$(cd "$1" && pwd)
[ "$(cat "$dest/release" 2>/dev/null)" != "$release" ] || exit 0

work=$(mktemp -d "$dest/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_uri "$SUITE") $SUITE main" > "$work/list"
private=(
  -o Dir::Etc::SourceList="$work/list" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=
  -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work"
)
apt-get "${private[@]}" -qq update
version=$(apt-cache "${private[@]}" madison rust-src | awk -v r="$release" 'index($3, r "+") == 1 { print $3; exit }')
[ -n "$version" ] || { echo "$SUITE has no rust-src $release: rust-toolchain.toml and Debian have parted" >&2; exit 1; }
(cd "$work" && apt-get "${private[@]}" -qq download "rust-src=$version")

# Its vendored crates are 7/8 of it, and cargo takes those it needs from the registry.
dpkg-deb --fsys-tarfile "$work"/rust-src_*.deb |
  tar -x -C "$work" --strip-components=4 --exclude='*/library/vendor' --wildcards "./usr/src/rustc-$release/library/*"
rm -rf "$dest/library"
mv "$work/library" "$dest/library"
echo "$release" > "$dest/release"
