#!/bin/bash
# Runs a program of Windows under Wine: tests/windows/wine.sh PROGRAM.exe [ARGUMENT…]
#
# Wine has a prefix of its own in the cache directory, made when there is none; nothing is shown on a screen. Z: is the
# machine's own file tree. cargo takes this for its runner (env.sh).
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
WINE=/usr/lib/wine/wine64
CACHE=${SWARMDISK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmdisk}
export WINEPREFIX=${WINEPREFIX:-$CACHE/wine} WINEARCH=win64 WINEDEBUG=${WINEDEBUG:--all} WINEDLLOVERRIDES='mscoree,mshtml='
unset DISPLAY WAYLAND_DISPLAY

main() {
  local shim=$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll
  # The shim comes last: where it is, all is. It is built anew when its source has changed.
  if [ ! "$shim" -nt "$HERE/bcryptprimitives.c" ]; then
    mkdir -p "$WINEPREFIX"
    exec 9> "$WINEPREFIX.lock"
    flock 9
    [ "$shim" -nt "$HERE/bcryptprimitives.c" ] || make_prefix "$shim"
    exec 9>&-
  fi
  exec "$WINE" "$@"
}

make_prefix() {
  local tool
  for tool in "$WINE" /usr/bin/x86_64-w64-mingw32-gcc; do
    [ -x "$tool" ] || { echo "no $tool; run tests/windows/toolchain.sh" >&2; exit 1; }
  done
  [ -d "$WINEPREFIX/drive_c" ] || "$WINE" wineboot -i < /dev/null > "$WINEPREFIX.log" 2>&1 9>&- ||
    { cat "$WINEPREFIX.log" >&2; exit 1; }
  x86_64-w64-mingw32-gcc -shared -O2 -s -o "$1.new" "$HERE/bcryptprimitives.c" -ladvapi32
  mv "$1.new" "$1"
}

main "$@"
