# What a ublk device must do; sourced by guest.sh.

check "without the driver: one line that names the module" no_driver
# Twice, since some need others.
for module in /modules/*.ko /modules/*.ko; do insmod "$module" 2>/dev/null; done
wait_for 10 test -e /dev/ublk-control

# --- a node's disk
check "attached" attach one /data/image.swarm --ublk
check "the device is the image" cmp "$DISK" /data/image.raw
check "read-only" setting ro 1
check "logical blocks" setting queue/logical_block_size 512
check "physical blocks" setting queue/physical_block_size 4096
check "the best request is a chunk" setting queue/optimal_io_size 65536
check "long requests" setting queue/max_hw_sectors_kb 1024
check "a queue for each processor" test "$(ls "/sys/block/${DISK#/dev/}/mq" | wc -l)" = 2
write() { dd if=/dev/zero of="$DISK" bs=4096 count=1 conv=notrunc 2>/dev/null; }
check "writes are refused" eval '! write'

first_pid=$PID first_disk=$DISK
check "a second device of the image" attach two /data/image.swarm --ublk
check "the second is the image" cmp "$DISK" /data/image.raw
check "a number that is taken" refused /data/image.swarm "--ublk=${DISK#/dev/ublkb}"
check "a device that is served is not taken back" refused /data/image.swarm --ublk --recover
check "the second detached" detach
PID=$first_pid DISK=$first_disk
drop_caches() { echo 3 > /proc/sys/vm/drop_caches; }
drop_caches
check "the first goes on" cmp "$DISK" /data/image.raw
check "detached" detach
check "a number of one's own" attach seven /data/image.swarm --ublk=7
check "its path" test "$DISK" = /dev/ublkb7
check "detached by number" detach
run() { swarmdisk run /data/image.swarm --ublk -- cmp {disk} /data/image.raw; }
check "run: the command finds the device" run
check "run: the device is gone" eval '! ls /dev/ublkb*'

# --- load: readers that go round and round past the page cache, each until an error
reader() {
  while dd if="$1" of=/dev/null bs=64k iflag=direct skip="$2" count=100 2>/dev/null; do :; done
  echo "$2" >> /tmp/ended
}
load() {
  rm -f /tmp/ended
  for from in 0 100 200 300; do reader "$1" $from & done
}
is_quiet() { [ "$(wc -l < /tmp/ended)" = 4 ]; }

attach load /data/image.swarm --ublk
load "$DISK"
usleep 500000
check "no reader failed" test ! -e /tmp/ended
check "detached under load" detach
check "readers end" wait_for 30 is_quiet

# --- a seed that is dead: requests hang, and the device goes all the same
swarmdisk seed /data/image.swarm > /tmp/seed 2> /tmp/seed.err &
seed=$!
wait_for 30 grep -q swarm:// /tmp/seed
check "attached from a seed" attach swarm "$(head -1 /tmp/seed)" --ublk --cache /tmp/cache --prefetch off
dd if="$DISK" of=/tmp/part bs=64k count=16 iflag=direct 2>/dev/null
check "the beginning" cmp -n 1048576 /tmp/part /data/image.raw
kill -9 $seed
dd if="$DISK" of=/dev/null bs=64k skip=256 count=1 iflag=direct 2>/dev/null &
hung=$!
usleep 500000
check "a read waits for the swarm" kill -0 $hung
check "detached although a read waits" detach
wait $hung
check "the read failed" test $? != 0

# --- kill -9, and back
attach killed /data/image.swarm --ublk
load "$DISK"
usleep 300000
for round in 1 2 3; do
  kill -9 "$PID"
  wait "$PID" 2>/dev/null
  check "$round: the device stays" test -b "$DISK"
  check "$round: another image does not take it" refused /data/other.swarm --ublk --recover
  was=$DISK
  check "$round: taken back" attach "again$round" /data/image.swarm --ublk --recover
  check "$round: the same device" test "$DISK" = "$was"
  drop_caches
  check "$round: it is the image" cmp "$DISK" /data/image.raw
  check "$round: no request failed" test ! -e /tmp/ended
done
check "detached after recovery" detach
check "readers end again" wait_for 30 is_quiet
check "nothing is left to recover" refused /data/image.swarm --ublk --recover

# --- an overlay: written to, kept, and taken back after kills with all that was answered
overlay() {
  local out=$1
  shift
  attach "$out" /data/image.swarm --ublk --overlay /tmp/overlay "$@"
}
check "an overlay" overlay written
check "an overlay is not read-only" setting ro 0
put() { dd if=/data/other.swarm of="$DISK" bs=4k seek=100 count=64 conv=notrunc,fsync 2>/dev/null; }
there() { dd if="$DISK" bs=4k skip=100 count=64 2>/dev/null | cmp -n 262144 - /data/other.swarm; }
check "an overlay is written to" put
drop_caches
check "what was written is read" there
check "an overlay detached" detach
check "nothing is left to take up" test ! -e /tmp/overlay.live
check "an overlay again" overlay again
check "what was written was kept" there
check "another overlay of the image" eval '! swarmdisk attach /data/image.swarm --ublk --recover --overlay /tmp/other 2>/dev/null'
echo "killing $KILLS times"
rm -f /tmp/enough
crash_writes "$DISK" /tmp/enough /tmp/model > /tmp/crash 2>&1 &
writer=$!
round=0
while [ $round -lt "$KILLS" ]; do
  round=$((round + 1))
  usleep $((RANDOM * 25 + 1000))
  kill -9 "$PID"
  wait "$PID" 2>/dev/null
  [ $round != 1 ] || check "not by another way" refused /data/image.swarm --nbd 127.0.0.1:0 --overlay /tmp/overlay
  [ $round != 1 ] || check "not without --recover" refused /data/image.swarm --ublk --overlay /tmp/overlay
  [ $round != 1 ] || check "not without its overlay" refused /data/image.swarm --ublk --recover
  if overlay killed --recover; then taken=$round; else break; fi
done
check "an overlay taken back after each kill" test "$taken" = "$KILLS"
touch /tmp/enough
check "no write failed or was lost" wait $writer
echo "kills $KILLS: $(cat /tmp/crash)"
drop_caches
check "all that was answered is there" cmp "$DISK" /tmp/model
check "an overlay detached after kills" detach
check "an overlay after that" overlay after
check "it was all kept" cmp "$DISK" /tmp/model
check "written and flushed" put
kill -9 "$PID"
wait "$PID" 2>/dev/null
check "taken back to be removed" overlay removed --recover
check "removed" detach
rm -f /tmp/model

# --- a disk that is written to
truncate -s 64M /tmp/file
writable() {
  ublk_file /tmp/file $1 > /tmp/writable 2> /tmp/writable.err &
  PID=$!
  wait_for 30 grep -q ready /tmp/writable || { cat /tmp/writable.err; return 1; }
  DISK=$(sed -n 's/^ready //p' /tmp/writable)
}
check "writable" writable
check "not read-only" setting ro 0
check "a cache that is flushed" setting queue/write_cache "write back"
check "trims" test "$(cat "/sys/block/${DISK#/dev/}/queue/discard_max_bytes")" -gt 0
# busybox has one of this name, which cannot.
check "a filesystem" /bin/mke2fs -q -t ext4 "$DISK"
check "mounted" mount -t ext4 "$DISK" /mnt
copy() { cp /data/image.raw /mnt/image && sync && cmp /mnt/image /data/image.raw; }
check "a copy" copy
writer() {
  local at=0
  while [ ! -e /tmp/enough ]; do
    cp /data/small /mnt/$at && sync /mnt/$at && cmp /mnt/$at /data/small || { echo "writer: $at" >> /tmp/failed; return; }
    at=$((at + 1))
    echo $at > /tmp/written
  done
}
head -c 300000 /data/image.raw > /data/small
writer &
writer=$!
usleep 300000
for round in 1 2; do
  kill -9 "$PID"
  wait "$PID" 2>/dev/null
  check "written $round: taken back" writable --recover
  usleep 300000
done
touch /tmp/enough
wait $writer
check "no write failed" test ! -e /tmp/failed
echo "files written: $(cat /tmp/written)"
umount /mnt
drop_caches
check "mounted again" mount -t ext4 "$DISK" /mnt
drop_caches
whole() {
  cmp /mnt/image /data/image.raw || return 1
  local at=0
  while [ $at -lt "$(cat /tmp/written)" ]; do cmp /mnt/$at /data/small || return 1; at=$((at + 1)); done
}
check "all that was written is there" whole
umount /mnt
check "writable detached" detach
check "the filesystem is sound" /bin/e2fsck -fn /tmp/file
