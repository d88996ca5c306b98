# What is to be there at the next boot: files, a table, and a service that looks for them and tells the console.
# Read by the guest's shell from a disk of its own; says on the console how it ended, and powers the machine off.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0; systemctl poweroff --no-block' EXIT

# A read-only disk, known by its serial number, and what is on it: the test says both before this.
disk=/dev/disk/by-id/virtio-$SERIAL
[ "$(blockdev --getro "$disk")" = 1 ]
[ "$(sha256sum < "$disk")" = "$SUM  -" ]
if dd if=/dev/zero of="$disk" bs=4096 count=1 status=none 2> /dev/null; then exit 1; fi

mkdir /srv/kept
cd /srv/kept

for n in $(seq 40); do
  head -c $((n * 20000)) /dev/urandom > "file-$n"
done
sha256sum file-* > sums
runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -c 'create table kept as select n, md5(n::text) from generate_series(1, 5000) n'

cat > /usr/local/sbin/kept <<'S'
cd /srv/kept && sha256sum --quiet -c sums
echo "KEPT status=$? files=$(ls file-* | wc -l) rows=$(runuser -u postgres -- psql -Atc 'select count(*) from kept')" > /dev/ttyS0
S
cat > /etc/systemd/system/kept.service <<'U'
[Unit]
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/sbin/kept

[Install]
WantedBy=multi-user.target
U
systemctl -q enable kept

# What was deleted is told to the disk.
rm -rf /usr/share/doc
fstrim /
