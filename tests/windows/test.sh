#!/bin/bash
# Runs the tests of what Windows has under Wine: tests/windows/test.sh [ARGUMENT OF cargo test…]
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

SWARMDISK_STANDIN_WNBD=$(tests/windows/standin.sh)
export SWARMDISK_STANDIN_WNBD
cargo_for x86_64-pc-windows-gnu test --locked --no-fail-fast --features swarmdisk-host-windows/exe -p swarmdisk-core \
  -p swarmdisk-common -p swarmdisk-host -p swarmdisk-host-windows "$@"
