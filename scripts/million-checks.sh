# What scripts/million.sh asks of a machine: one line for each check, and N lowered to what fits.
# Sourced by it: N, ENDS, SOURCE, CONNECTING, TLS and RAISED are its variables.

# row NAME FOUND NEEDED VERDICT
row() {
  printf '  %-30s %-18s %-22s %s\n' "$@"
  CHECKS+=("$(printf '%s:{"found":%s,"needed":%s,"verdict":%s}' \
    "$(quote "$1")" "$(quote "$2")" "$(quote "$3")" "$(quote "$4")")")
}

# scale COUNT WHY: lowers N to what there is room for.
scale() {
  local fits=$1
  [ "$fits" -lt "$N" ] || return 0
  if [ "$fits" -ge 10000 ]; then fits=$((fits / 1000 * 1000)); fi
  [ "$fits" -gt 0 ] || fail 1 "no room for connections: $2"
  note "scaled down from $(grouped "$N") to $(grouped "$fits") connections: $2"
  N=$fits
}

# raise NAME FOUND NEEDED VALUE: sets a kernel setting if it is too small. Sets VERDICT.
raise() {
  local path=/proc/sys/${1//.//} before
  VERDICT=ok
  [ "$2" -lt "$3" ] || return 0
  before=$(<"$path")
  if { echo "$4" >"$path"; } 2>/dev/null; then
    RAISED+=("$path" "$before") VERDICT=raised
  else
    VERDICT="too small: root may raise it with sysctl -w $1='$4'"
  fi
}

# at_least NAME FOUND BASE EACH: a setting that must be BASE, and EACH for every connection.
at_least() {
  local needed=$(($3 + $4 * N))
  raise "$1" "$2" "$needed" "$needed"
  row "$1" "$(grouped "$2")" "$(grouped "$needed")" "$VERDICT"
  [[ $VERDICT != too* ]] || scale $((($2 - $3) / $4)) "$1"
}

# Each end knows best how many descriptors and tables of them it needs: both are asked.
descriptors() {
  local found needed most nr_open verdict=ok
  found=$(ulimit -Hn) nr_open=$(</proc/sys/fs/nr_open)
  until server_fits; do
    [[ $WHY =~ MAX_CONNECTIONS=.*(1|TIONS)\ to\ ([0-9]+) || $WHY =~ (holds)\ ([0-9,]+)\  ]] ||
      fail 2 "$WHY"
    most=${BASH_REMATCH[2]//,/}
    if [[ $WHY != *'allowed: 1 to'* && $verdict = ok ]]; then
      verdict="too small: root may raise it with ulimit -Hn, up to fs.nr_open=$nr_open"
      if ulimit -HSn "$nr_open" 2>/dev/null; then verdict=raised; continue; fi
    fi
    [ "$most" -lt "$N" ] || fail 2 "$WHY"
    scale "$most" "${WHY%%;*}"
  done
  most=$N
  until client_fits "$most"; do most=$((most * 9 / 10)); done
  scale "$most" "descriptors of the load generator, ulimit -Hn $found"
  needed=$(sed -nE 's/^  descriptors +([0-9,]+) in a table when full.*/\1 a table/p' <<<"$FITS")
  row 'ulimit -Hn' "$(grouped "$found")" "${needed:--}" "$verdict"
}

# Sets FITS to what the server says about its configuration, WHY to what is wrong with it.
server_fits() {
  FITS='' WHY=''
  [ -z "$URL" ] || return 0
  FITS=$(env "${ENVIRONMENT[@]}" TIDEMILL_MAX_CONNECTIONS="$N" "$SERVER" check 2>&1) ||
    WHY=$(sed -n 's/^error: //p' <<<"$FITS")
  [ -z "$WHY" ]
}

# Nobody listens on port 1: what fits ends there, what does not fit before, with status 2.
client_fits() {
  local status=0
  "$SERVER" bench hold "ws${TLS:+s}://127.0.0.1:1/echo" ${TLS:+--insecure} --connections "$1" \
    --progress off >/dev/null 2>&1 ||
    status=$?
  [ "$status" != 2 ]
}

memory() {
  local total available controllers path
  read -r total available < <(awk '{ kb[$1] = $2 }
    END { printf "%.0f %.0f\n", kb["MemTotal:"] * 1024, kb["MemAvailable:"] * 1024 }' /proc/meminfo)
  room "memory available" "$available" "$total" "to be had by ending other programs, or more memory"
  while IFS=: read -r _ controllers path; do
    case ,$controllers, in
      ,,) cgroup /sys/fs/cgroup "$path" max current inactive_file ;;
      *,memory,*) cgroup /sys/fs/cgroup/memory "$path" limit_in_bytes usage_in_bytes \
        total_inactive_file ;;
    esac
  done </proc/self/cgroup
}

# cgroup MOUNT PATH LIMIT USED CACHE: the limits of a group and of those around it.
cgroup() {
  local folder=${1}${2%/} limit used cache
  while [ ${#folder} -ge ${#1} ]; do
    limit=$(cat "$folder/memory.$3" 2>/dev/null) || limit=max
    if [ "$limit" != max ] && [ "$limit" -lt "$total" ]; then
      used=$(<"$folder/memory.$4")
      cache=$(awk -v key="$5" '$1 == key { print $2 }' "$folder/memory.stat")
      room "cgroup memory.$3" $((limit - used + cache)) "$limit" "root may raise it in $folder"
    fi
    folder=${folder%/*}
  done
}

# room NAME BYTES OF REMEDY: free memory, of which a tenth, 1 GiB at most, is left.
room() {
  local each=$((BYTES_PER_END * ENDS)) keep=$(($3 / 10 < 1 << 30 ? $3 / 10 : 1 << 30)) verdict=ok
  if [ "$2" -lt $((each * N + keep)) ]; then verdict="too small: $4"; fi
  row "$1" "$(gib "$2")" "$(gib $((each * N + keep)))" "$verdict"
  scale $(($2 > keep ? ($2 - keep) / each : 0)) "$1"
}

ports() {
  local name=net.ipv4.ip_local_port_range low high span sources each
  read -r low high </proc/sys/net/ipv4/ip_local_port_range
  span=$((high - low + 1)) sources=$(addresses)
  each=$(((N + sources - 1) / sources))
  raise $name $span $((each < PER_SOURCE ? 2 * each : 2 * PER_SOURCE)) '10240 65535'
  if [ "$VERDICT" = raised ]; then span=$((65535 - 10240 + 1)); fi
  if [[ $VERDICT == too* && -n $LOOPBACK && -z $SOURCE ]]; then
    sources=$((N / (span / 2) + 1)) each=$((span / 2))
    SOURCE=127.0.0.2-127.$((sources + 1 >> 16)).$((sources + 1 >> 8 & 255)).$((sources + 1 & 255))
    VERDICT="ok with $(grouped $sources) source addresses"
  elif [ "$each" -gt $PER_SOURCE ]; then
    VERDICT="too small: give --source one address for each $(grouped $PER_SOURCE)"
  fi
  row $name "$(grouped $span) ports" "$(grouped $((2 * each))) by $(grouped "$sources")" "$VERDICT"
  [[ $VERDICT != too* ]] || scale $((span * sources)) "ports of the source addresses"
}

# How many addresses the client has: those of --source, or what the load generator takes itself.
addresses() {
  local part a b c d e f g h count=0
  for part in ${SOURCE//,/ }; do
    IFS=.- read -r a b c d e f g h <<<"$part"
    count=$((count + 1))
    [ -z "$h" ] || count=$((count + (e - a << 24) + (f - b << 16) + (g - c << 8) + h - d))
  done
  if [ -z "$SOURCE$LOOPBACK" ]; then count=1; fi
  echo $((count > 0 ? count : (N + PER_SOURCE - 1) / PER_SOURCE))
}

backlog() {
  local found
  found=$(</proc/sys/net/core/somaxconn)
  raise net.core.somaxconn "$found" $((2 * CONNECTING)) 4096
  row net.core.somaxconn "$(grouped "$found")" "$(grouped $((2 * CONNECTING)))" "$VERDICT"
  [[ $VERDICT != too* ]] || CONNECTING=$((found > 1 ? found / 2 : 1))
}

# A namespace in which no rule asks for connections tracks none.
conntrack() {
  local name=/proc/sys/net/netfilter/nf_conntrack tracked
  tracked=$(cat ${name}_count 2>/dev/null) || tracked=0
  if [ "$tracked" = 0 ]; then row conntrack "tracks nothing" nothing ok; return; fi
  at_least net.netfilter.nf_conntrack_max "$(<${name}_max)" "$tracked" 1
}

checks() {
  local files
  echo "what $(grouped "$N") connections${TLS:+ over TLS} need"
  row '' found needed verdict
  CHECKS=()
  memory
  descriptors
  read -r files _ </proc/sys/fs/file-nr
  at_least fs.file-max "$(</proc/sys/fs/file-max)" $((files + SPARE)) $ENDS
  at_least fs.epoll.max_user_watches "$(</proc/sys/fs/epoll/max_user_watches)" $SPARE $ENDS
  conntrack
  ports
  [ -n "$URL" ] || backlog
}
