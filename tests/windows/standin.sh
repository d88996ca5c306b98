#!/bin/bash
# Builds the stand-in for WNBD's library that tests of --wnbd use, and prints where it is: tests/windows/standin.sh
set -euo pipefail
. "$(dirname "$0")/env.sh"

folder=$CARGO_TARGET_DIR/standin
mkdir -p "$folder"
x86_64-w64-mingw32-gcc -shared -O2 -s -Wall -Wextra -Werror -o "$folder/libwnbd.dll.new" \
  "$ROOT/tests/windows/standin_libwnbd.c"
mv "$folder/libwnbd.dll.new" "$folder/libwnbd.dll"
echo "$folder/libwnbd.dll"
