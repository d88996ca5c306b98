#!/bin/bash
# Makes a zip of a built swarmdisk.exe and what installs it: host-windows/package/package.sh SWARMDISK.exe OUT.zip
# The same input gives the same zip.
set -euo pipefail

[ $# = 2 ] || { sed -n 2,3p "$0" >&2; exit 2; }
exe=$(realpath "$1")
out=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

inside=$folder/swarmdisk
mkdir "$inside"
cp "$exe" "$inside/swarmdisk.exe"
cp "$here/swarmdisk.toml" "$here/install.ps1" "$here/../README.md" "$here/../../LICENSE-MIT" "$here/../../LICENSE-APACHE" "$inside"
# As Windows' editors write it.
sed -i 's/$/\r/' "$inside/swarmdisk.toml" "$inside/install.ps1"
python3 - "$folder" "$out.new" <<'P'
import pathlib, sys, zipfile

folder, out = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, path.read_bytes())
P
mv "$out.new" "$out"
