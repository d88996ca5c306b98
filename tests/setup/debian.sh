# Where this machine takes its Debian packages from; sourced by the scripts beside it.

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
