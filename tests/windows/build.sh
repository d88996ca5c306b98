#!/bin/bash
# Builds swarmdisk.exe and prints where it is: tests/windows/build.sh
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

cargo_for x86_64-pc-windows-gnu build --locked --quiet -p swarmdisk-host-windows --features exe --bins
echo "$CARGO_TARGET_DIR/x86_64-pc-windows-gnu/debug/swarmdisk.exe"
