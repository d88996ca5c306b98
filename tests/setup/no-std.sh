#!/bin/bash
# Proves that the core needs no standard library, no allocator and no operating system: tests/setup/no-std.sh
#
# Builds swarmdisk-core for three targets without std, with `core` alone where the target's library has to be built,
# and links core/examples/bare.rs, a program that has no global allocator.
set -euo pipefail
cd "$(dirname "$0")/../.."

TARGETS=(thumbv7em-none-eabihf x86_64-unknown-none x86_64-unknown-uefi)
ROOT=$PWD
export CARGO_TARGET_DIR=$ROOT/target/no-std

installed=$(rustup target list --installed 2>/dev/null || true)

# cargo for TARGET; without a built library for it, `core` is built too.
cargo_for() {
  local target=$1
  shift
  if grep -qx "$target" <<< "$installed"; then
    cargo "$@" --quiet --target "$target"
  else
    RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$ROOT/target/rust-src/library \
      cargo "$@" --quiet --target "$target" -Zbuild-std=core
  fi
}

for target in "${TARGETS[@]}"; do
  grep -qx "$target" <<< "$installed" || tests/setup/rust-src.sh target/rust-src
  cargo_for "$target" build --locked -p swarmdisk-core
  echo "no-std: swarmdisk-core builds for $target"
done

# As a package of its own: as an example of the core it would be built with the core's dev-dependencies, which need std.
bare=$CARGO_TARGET_DIR/bare
mkdir -p "$bare"
cp Cargo.lock "$bare/"
cat > "$bare/Cargo.toml" <<T
[package]
name = "bare"
edition = "2024"

[[bin]]
name = "bare"
path = "$ROOT/core/examples/bare.rs"
test = false

[dependencies]
swarmdisk-core = { path = "$ROOT/core" }

[workspace]
T
cargo_for x86_64-unknown-none build --manifest-path "$bare/Cargo.toml"
program=$CARGO_TARGET_DIR/x86_64-unknown-none/debug/bare
entry=$(od -An -t u8 -j 24 -N 8 "$program")
[ "$entry" -gt 0 ] || { echo "no-std: $program has no _start" >&2; exit 1; }
echo "no-std: bare.rs links without an allocator"
