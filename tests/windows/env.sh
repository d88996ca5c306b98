# How cargo builds for Windows on this machine, and runs what it built; to be sourced. Sets ROOT, and cargo_for.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# A target directory of its own: what it takes is a few GB, and can go as a whole. Debug information would double that.
export CARGO_TARGET_DIR=${SWARMDISK_WINDOWS_TARGET:-$ROOT/target/windows} CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$ROOT/tests/windows/wine.sh

# cargo_for TARGET COMMAND…: without a built standard library for the target, that is built too.
cargo_for() {
  local target=$1 command=$2
  shift 2
  if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    cargo "$command" --target "$target" "$@"
  else
    RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$ROOT/target/rust-src/library \
      cargo "$command" --target "$target" -Zbuild-std=std,panic_unwind "$@"
  fi
}
