# Where this machine takes its Debian packages from, and how they are installed; sourced by the scripts beside it.

# One line "URI SUITE" for each suite of the machine's own APT sources, in both of APT's formats.
debian_suites() {
  local file
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ -f "$file" ] || continue
    case $file in
      *.sources) awk '
          tolower($1) == "uris:"   { uri = $2 }
          tolower($1) == "suites:" { suites = $0; sub(/^[^:]*:/, "", suites) }
          NF == 0 { flush() }
          END { flush() }
          function flush(  n, i, s) {
            n = split(suites, s, " ")
            if (uri != "") for (i = 1; i <= n; i++) print uri, s[i]
            uri = suites = ""
          }' "$file" ;;
      *) sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+) +([^ ]+).*/\2 \3/p' "$file" ;;
    esac
  done
}

# The URI that serves SUITE; a suite that is not among the machine's own is served beside the main one.
debian_uri() {
  local suite=$1 uri
  uri=$(debian_suites | awk -v s="$suite" '$2 == s { print $1; exit }')
  [ -n "$uri" ] || uri=$(debian_suites | awk '$2 == "bookworm" { print $1; exit }')
  [ -n "$uri" ] || { echo "no Debian 12 (bookworm) source in /etc/apt: add one to /etc/apt/sources.list" >&2; return 1; }
  echo "$uri"
}

# Those of the packages that are not installed, one a line.
missing() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

# Runs a command that is heard only if it fails; then all ends.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || cat "$log" >&2
  rm -f "$log"
  [ "$status" = 0 ] || exit 1
}

# apt-get install, which neither asks nor removes what is there.
install_packages() {
  quietly env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-remove --no-install-recommends "$@"
}
