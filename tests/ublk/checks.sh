# What a ublk device must do; sourced by guest.sh.

check "without the driver: one line that names the module" no_driver
for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
wait_for 10 test -e /dev/ublk-control

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
check "detached" detach
