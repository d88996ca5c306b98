#!/bin/bash
# Builds the stand-ins of tests: for WNBD's library (--wnbd), and beside it for PowerShell (--iscsi --mount).
# Prints where the library is: tests/windows/standin.sh
set -euo pipefail
. "$(dirname "$0")/env.sh"

folder=$CARGO_TARGET_DIR/standin
mkdir -p "$folder"
x86_64-w64-mingw32-gcc -shared -O2 -s -Wall -Wextra -Werror -o "$folder/libwnbd.dll.new" \
  "$ROOT/tests/windows/standin_libwnbd.c"
mv "$folder/libwnbd.dll.new" "$folder/libwnbd.dll"
mkdir -p "$folder/path"
x86_64-w64-mingw32-gcc -O2 -s -Wall -Wextra -Werror -o "$folder/path/powershell.new" \
  "$ROOT/tests/windows/standin_powershell.c" -lws2_32
mv "$folder/path/powershell.new" "$folder/path/powershell.exe"
echo "$folder/libwnbd.dll"
