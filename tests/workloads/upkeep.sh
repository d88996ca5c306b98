# What an administrator does after a boot: looks at packages, verifies some, reads logs, makes keys, backs settings up.
# Read by the guest's shell from a disk of its own; says on the console how it ended.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0' EXIT
cd /tmp

dpkg -l
dpkg -S /usr/bin/perl /usr/sbin/nginx
apt-cache stats
apt-cache depends --recurse nginx
apt-get check
dpkg --verify nginx-common openssh-server python3-minimal libpython3.11-stdlib curl || true
journalctl -b -p info
systemd-analyze blame
ssh-keygen -q -t ed25519 -N '' -f key
perl -MPOSIX -MFile::Find -MGetopt::Long -MTime::Local -e 'find(sub { $n++ }, "/etc"); print $n'
du -s /usr/share
tar -cz /etc
ip addr
sshd -t || true
