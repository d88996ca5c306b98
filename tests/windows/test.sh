#!/bin/bash
# Runs the tests of what Windows has under Wine: tests/windows/test.sh [ARGUMENT OF cargo test…]
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

cargo_for x86_64-pc-windows-gnu test --locked --no-fail-fast --features swarmdisk-host-windows/exe -p swarmdisk-core \
  -p swarmdisk-common -p swarmdisk-host -p swarmdisk-host-windows "$@"
