# What another web server does after its boot: files with listings, no TLS, no batch job; its logs are counted and rotated.
# Read by the guest's shell from a disk of its own; says on the console how it ended.
set -e
exec > /dev/null 2> /dev/ttyS0
trap 'echo "WORKLOAD-DONE status=$?" > /dev/ttyS0' EXIT
cd /tmp

cat > /etc/nginx/conf.d/site.conf <<'C'
server {
  listen 127.0.0.1:8080;
  gzip on;
  gzip_types text/plain application/octet-stream;
  location /doc/ { alias /usr/share/doc/; autoindex on; }
  location /app/ { proxy_pass http://127.0.0.1:8000/; }
}
C
systemctl restart nginx
curl -sf --retry 5 --retry-connrefused http://127.0.0.1:8080/doc/
for file in $(find /usr/share/doc -name copyright | sort | awk 'NR % 4 == 0'); do
  curl -sf --compressed "http://127.0.0.1:8080/doc/${file#/usr/share/doc/}"
done
until curl -sf http://127.0.0.1:8080/app/; do sleep 1; done
curl -sf http://127.0.0.1:8080/app/[1-5]

awk '{ print $9 }' /var/log/nginx/access.log | sort | uniq -c | sort -rn
logger -t site "counted"
grep -c GET /var/log/nginx/access.log
if [ -x /usr/sbin/logrotate ]; then /usr/sbin/logrotate -f /etc/logrotate.conf; fi
sed -n 1,5p /etc/nginx/nginx.conf
ss -ltn
