#!/bin/busybox sh
# Runs in the guest, as its first process: what the scripts in /data say. Prints `PASS NAME` or `FAIL NAME` for each, and
# `UBLK-DONE` at the end. /data has all that goes with them.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
# From the kernel's command line.
KILLS=${KILLS:-10}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
exec 2>&1

# check NAME COMMAND…
check() {
  local name=$1
  shift
  if "$@"; then echo "PASS $name"; else echo "FAIL $name"; fi
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
  local left=$(($1 * 10))
  shift
  until "$@"; do
    [ "$left" -gt 0 ] || return 1
    left=$((left - 1))
    usleep 100000
  done
}

# attach OUT ARGUMENTS…: starts a node; sets PID and DISK once it is ready.
attach() {
  local out=/tmp/$1
  shift
  swarmdisk attach "$@" > "$out" 2> "$out.err" &
  PID=$!
  wait_for 60 grep -q '^ready ' "$out" || { echo "not ready: attach $*: $(cat "$out.err")"; return 1; }
  DISK=$(sed -n 's/^ready //p' "$out")
}

# detach: ends the node; it must be a success, and leave no device.
detach() {
  kill -TERM "$PID"
  wait "$PID" && [ ! -e "$DISK" ]
}

setting() { [ "$(cat "/sys/block/${DISK#/dev/}/$1")" = "$2" ]; }

refused() {
  ! swarmdisk attach "$@" > /tmp/out 2> /tmp/err && [ ! -s /tmp/out ] && [ "$(wc -l < /tmp/err)" = 1 ]
}

no_driver() { refused /data/image.swarm --ublk && grep -q "modprobe ublk_drv" /tmp/err; }

for script in /data/*.sh; do . "$script"; done
echo UBLK-DONE
poweroff -f
