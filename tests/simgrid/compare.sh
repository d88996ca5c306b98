#!/bin/bash
# Compares the simulator's network with SimGrid and with closed forms: tests/simgrid/compare.sh [--model fluid|packet]
#
# Builds tests/simgrid/models.cpp (needs g++ and libsimgrid-dev; tests/setup/packages.sh installs them) and swarmdisk-sim, runs
# the same transfers in both over a grid of sizes, and prints a line for each: the seconds of the simulator, of SimGrid, of the
# closed form, and the simulator's ratio to each. Exits 1 if any ratio is more than 5 % from 1, 2 if something is missing.
# SWARMDISK_SIM names a simulator that is built already.
#
# The closed forms, with R the rate, L the latency one way, B the bytes, N the nodes:
#   exchange  (N-1) B / R + L                      each link is full all the time: what every node must send
#             (Bruck, Ho, Kipnis, Upfal, Weathersby, "Efficient algorithms for all-to-all communications", 1997)
#   chain     (B/C + N-2) C / R + (N-1) L          chunks of C bytes, passed on when whole: the pipelined broadcast
#             (Watts, van de Geijn, "A pipelined broadcast for multidimensional meshes", 1995)
set -euo pipefail
cd "$(dirname "$0")/../.."

LIMIT=0.05
MODEL=fluid
case "${1:-}" in
'') ;;
--model) MODEL=${2:?--model fluid or packet} ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

missing() { echo "$1; $2" >&2; exit 2; }
command -v g++ >/dev/null || missing "no g++" "apt-get install g++, or run tests/setup/packages.sh"
[ -e /usr/include/simgrid/s4u.hpp ] || missing "no SimGrid" "apt-get install libsimgrid-dev, or run tests/setup/packages.sh"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
g++ -O2 -std=c++17 -Wall -Wextra -Werror tests/simgrid/models.cpp -o "$folder/models" -lsimgrid
if [ -z "${SWARMDISK_SIM:-}" ]; then
  cargo build --release --quiet -p swarmdisk-sim
  SWARMDISK_SIM=${CARGO_TARGET_DIR:-target}/release/swarmdisk-sim
fi
[ -x "$SWARMDISK_SIM" ] || missing "no simulator at $SWARMDISK_SIM" "name it with SWARMDISK_SIM, or leave that unset"

# The number in {"seconds": X}.
seconds() {
  local said
  said=$("$@") || { echo "failed: $*" >&2; return 1; }
  sed -n 's/.*"seconds": *\([0-9.eE+-]*\).*/\1/p' <<<"$said" | head -n 1 | grep . || { echo "no seconds: $*" >&2; return 1; }
}
calculate() { awk "BEGIN { printf \"%.9f\", $1 }"; }

worst=0
# row NAME SIMULATOR SIMGRID CLOSED
row() {
  local to_simgrid to_closed
  to_simgrid=$(calculate "$2 / $3") to_closed=$(calculate "$2 / $4")
  printf '%-54s %11.6f %11.6f %11.6f %9.4f %9.4f\n' "$1" "$2" "$3" "$4" "$to_simgrid" "$to_closed"
  worst=$(awk -v worst="$worst" -v a="$to_simgrid" -v b="$to_closed" 'function off(x) { return x > 1 ? x - 1 : 1 - x }
    BEGIN { if (off(a) > worst) worst = off(a); if (off(b) > worst) worst = off(b); print worst }')
}

# exchange NODES MBIT MICROS BYTES
exchange() {
  local rate latency ours theirs
  rate=$(($2 * 125000)) latency=$(calculate "$3 / 1000000")
  ours=$(seconds "$SWARMDISK_SIM" network exchange --model "$MODEL" --nodes "$1" --rate "$2mbit" --latency "$3us" \
    --bytes "$4" --json)
  theirs=$(seconds "$folder/models" exchange "$1" "$rate" "$latency" "$4")
  row "exchange, $1 nodes, $2 Mbit/s, $3 us, $4 B" "$ours" "$theirs" "$(calculate "($1 - 1) * $4 / $rate + $latency")"
}

# chain NODES MBIT MICROS BYTES CHUNK; BYTES is a multiple of CHUNK
chain() {
  local rate latency ours theirs
  rate=$(($2 * 125000)) latency=$(calculate "$3 / 1000000")
  ours=$(seconds "$SWARMDISK_SIM" network chain --model "$MODEL" --nodes "$1" --rate "$2mbit" --latency "$3us" \
    --bytes "$4" --chunk "$5" --json)
  theirs=$(seconds "$folder/models" chain "$1" "$rate" "$latency" "$4" "$5")
  row "chain, $1 nodes, $2 Mbit/s, $3 us, $4 B by $5" "$ours" "$theirs" \
    "$(calculate "($4 / $5 + $1 - 2) * $5 / $rate + ($1 - 1) * $latency")"
}

printf '%-54s %11s %11s %11s %9s %9s\n' "$MODEL model" simulator SimGrid closed "/SimGrid" "/closed"
for nodes in 2 4 8 16 32; do
  for bytes in 1048576 8388608; do
    exchange "$nodes" 100 250 "$bytes"
  done
done
exchange 8 50 100 4194304
exchange 8 1000 250 8388608
exchange 8 100 10000 8388608
for nodes in 2 4 8 16 64; do
  for chunk in 65536 262144; do
    chain "$nodes" 100 250 16777216 "$chunk"
  done
done
chain 8 50 100 16777216 65536
chain 8 1000 250 67108864 65536
chain 8 100 10000 16777216 65536

awk -v worst="$worst" -v limit="$LIMIT" 'BEGIN {
  printf "worst difference: %.2f %% (at most %g %%)\n", worst * 100, limit * 100; exit worst > limit }'
