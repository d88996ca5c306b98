# What reads of block devices cost in the guest; sourced by guest.sh. Prints `RATE ROUND DEVICE LOAD READS_A_SECOND`; round 0
# does not count. From the kernel's command line: ROUNDS, SECONDS_A_RUN, and KIND, which says what is compared.

# Twice, since some need others.
for module in /modules/*.ko /modules/*.ko; do insmod "$module" 2>/dev/null; done

# rate DEVICE fio's arguments…
rate() {
  local device=$1
  shift
  fio --name=reads --filename="$device" --readonly --direct=1 --ioengine=libaio --time_based --randrepeat=0 \
    --runtime="$SECONDS_A_RUN" --output-format=terse --terse-version=3 "$@" | grep '^3;' | cut -d';' -f8
}

ours_and_loop() {
  wait_for 10 test -e /dev/ublk-control
  wait_for 10 test -b /dev/vda
  mount -t ext4 -o ro /dev/vda /mnt
  check "attached" attach rates /mnt/none.swarm --ublk
  one=$DISK
  rublk add loop --read-only --buffered-io --queue "$(nproc)" --file /mnt/part.raw --quiet > /tmp/rublk 2>&1
  wait_for 20 test -b /dev/ublkb1 || cat /tmp/rublk
  other=/dev/ublkb1
}

disks() {
  wait_for 10 test -b /dev/vdb
  case $(cat /sys/block/vda/serial) in
    nbd) other=/dev/vda one=/dev/vdb ;;
    *) other=/dev/vdb one=/dev/vda ;;
  esac
}

$KIND
check "both are the image" cmp "$one" "$other"
round=0
while [ $round -le "$ROUNDS" ]; do
  for device in "$one" "$other"; do
    name=other
    [ "$device" != "$one" ] || name=ours
    echo "RATE $round $name 0 $(rate "$device" --rw=randread --bs=4k --iodepth=1)"
    echo "RATE $round $name 1 $(rate "$device" --rw=randread --bs=4k --iodepth=32)"
    echo "RATE $round $name 2 $(rate "$device" --rw=randread --bs=64k --iodepth=32)"
    echo "RATE $round $name 3 $(rate "$device" --rw=read --bs=1m --iodepth=4)"
  done
  round=$((round + 1))
done
