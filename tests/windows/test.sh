#!/bin/bash
# Runs the tests of what Windows has under Wine: tests/windows/test.sh [ARGUMENT OF cargo test…]
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

# Those that cannot pass under Wine are told, and left out.
skips=()
while IFS=: read -r test reason; do
  case $test in '' | '#'*) continue ;; esac
  echo "not under Wine: $test:$reason"
  skips+=(--skip "$test")
done < tests/windows/not-under-wine.txt

SWARMDISK_STANDIN_WNBD=$(tests/windows/standin.sh)
export SWARMDISK_STANDIN_WNBD
cargo_for x86_64-pc-windows-gnu test --locked --no-fail-fast --features swarmdisk-host-windows/exe -p swarmdisk-core \
  -p swarmdisk-common -p swarmdisk-host -p swarmdisk-host-windows "$@" -- "${skips[@]}"
