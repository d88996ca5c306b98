#!/bin/bash
# Checks that all that Windows has compiles for both its targets, without a warning: tests/windows/check.sh
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

# Microsoft's compiler is not to be had: mingw's stands in for it, as no object file is ever linked; the archiver's name tells cc how
# to call it. BLAKE3 is checked without the assembler code that its feature `pure` leaves out.
mkdir -p "$CARGO_TARGET_DIR"
ln -sf "$(command -v x86_64-w64-mingw32-ar)" "$CARGO_TARGET_DIR/llvm-ar"
export CC_x86_64_pc_windows_msvc=x86_64-w64-mingw32-gcc AR_x86_64_pc_windows_msvc=$CARGO_TARGET_DIR/llvm-ar

for target in x86_64-pc-windows-gnu x86_64-pc-windows-msvc; do
  case $target in *-msvc) export CARGO_FEATURE_PURE=1 ;; *) unset CARGO_FEATURE_PURE ;; esac
  cargo_for "$target" clippy --locked --quiet --all-targets --features swarmdisk-host-windows/exe -p swarmdisk-host-windows -p swarmdisk-host \
    -p swarmdisk-common -p swarmdisk-core -- -D warnings \
    -A clippy::missing-const-for-thread-local    # which takes std's own way to be const on windows-gnu for none
  echo "windows: $target compiles"
done
