# What keep.sh left is changed: files written anew, over and in the middle, and deleted; rows too.
# Read by the guest's shell from a disk of its own; says on the console how it ended, and powers the machine off.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0; systemctl poweroff --no-block' EXIT
cd /srv/kept

# It is to look before anything is changed.
systemctl start kept
rm file-1
head -c 3000000 /dev/urandom > file-41
head -c 50000 /dev/urandom > file-42
head -c 10001 /dev/urandom | dd of=file-30 bs=1000 seek=77 conv=notrunc,fsync status=none
fallocate -z -o 4096 -l 65536 file-29
sha256sum file-* > sums
runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -c 'delete from kept where n <= 500' -c 'vacuum kept'
fstrim /
