#!/bin/bash
# Checks that all that Windows has compiles for both its targets, without a warning: tests/windows/check.sh
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

for target in x86_64-pc-windows-gnu x86_64-pc-windows-msvc; do
  cargo_for "$target" clippy --locked --quiet --all-targets --features exe -p swarmdisk-host-windows -p swarmdisk-host \
    -p swarmdisk-common -p swarmdisk-core -- -D warnings \
    -A clippy::missing-const-for-thread-local    # which takes std's own way to be const on windows-gnu for none
  echo "windows: $target compiles"
done
