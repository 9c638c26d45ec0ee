#!/usr/bin/env bash
# A million connections to one server on one machine: checks what the machine allows, opens them,
# holds them, sends one echo and one ping over each, closes them, and prints what it took.
#
#   scripts/million.sh [N] [--tls] [--hold 20s] [--json FILE] [--report FILE.html] [--source LIST]
#   scripts/million.sh [N] --url ws://HOST:PORT/echo [--part 2/4] [--source LIST] ...
#
# N is 1000000, or 20000, 1_000_000, 100k, 2m; it is lowered where the machine has no room for it.
# --url loads a server that runs already, --part 2/4 with the second of four shares of N while
# other machines open the others. --source names the client's addresses, such as
# 10.0.0.2,10.0.1.1-10.0.1.9: one for each 10,000 connections. Linux only; root is not needed.
#
# --tls does it over wss://, with a full handshake for each connection and a certificate made for
# the occasion. With --url the scheme decides, and --insecure verifies no certificate.
#
# The caller's TIDEMILL_* variables reach the server; TIDEMILL_BIN is the binary that is run, else
# target/release/tidemill, built when it is missing. Where it is allowed everything runs in a
# network namespace of its own; what is raised beyond it is put back at the end. Exits with 0 when
# all connections were opened and nothing was lost, with 1 otherwise, with 2 on bad arguments.

set -euo pipefail
export LC_ALL=C.UTF-8

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SERVER=${TIDEMILL_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release/tidemill}

BYTES_PER_END=5000 # of a connection: half of 9.5 KB in the kernel and 0.5 KB in both processes
BYTES_FOR_TLS=5000 # more: keys and buffers, half of the 9.5 KB that both processes hold
PER_SOURCE=10000   # connections: a kernel is quick to find ports in one half of the range only
SPARE=1024         # files and watches of whatever else starts meanwhile

N=1000000 HOLD=20s JSON='' REPORT='' SOURCE='' URL='' PART='' TLS='' INSECURE='' PLAIN=''
ENDS=2 LOOPBACK=yes CONNECTING=512 SERVER_PID='' BENCH_PID='' INTERRUPTED=''
LONGEST=null LONGEST_CPU=null TURNS=null LONG_TURNS=null HANDSHAKES=null
NOTES=() RAISED=() CHECKS=()
declare -A FACTS=()

ENVIRONMENT=(-u TIDEMILL_BIN TIDEMILL_LISTEN=127.0.0.1:0 TIDEMILL_ADMIN_LISTEN=
  TIDEMILL_TURN_CPU=true TIDEMILL_LOG="${TIDEMILL_LOG:-warn}")
# A terminal's interrupt is for this script alone, and its own end is the end of both children.
APART=()
if setpriv --pdeathsig TERM true 2>/dev/null; then APART=(setpriv --pdeathsig TERM); fi
# Each job in a process group of its own, which the terminal's Ctrl-C does not reach; but not in a
# session of its own: Linux schedules sessions as groups, and with server and client in two of
# them the processor changes sides at every message, at twice the cost.
set -m

fail() { echo "error: $2" >&2; exit "$1"; }
note() { NOTES+=("$1"); echo "note: $1"; }
quote() { local text=${1//\\/\\\\}; printf '"%s"' "${text//\"/\\\"}"; }
gib() { awk -v bytes="$1" 'BEGIN { printf "%.2f GiB", bytes / 1073741824 }'; }

grouped() {
  local text=$1
  if [[ $text =~ ^[0-9]{16,}$ ]]; then text=unlimited; fi
  while [[ $text =~ ^([0-9]+)([0-9]{3}.*)$ ]]; do text=${BASH_REMATCH[1]},${BASH_REMATCH[2]}; done
  echo "$text"
}

source "$ROOT/scripts/million-checks.sh"

# --- arguments ----------------------------------------------------------------------------------

arguments() {
  local flag
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) sed -n '2,/^$/ s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
      --hold | --json | --report | --source | --url | --part)
        [ -n "${2-}" ] || fail 2 "$1 needs a value"
        flag=${1#--}; printf -v "${flag^^}" %s "$2"; shift ;;
      --tls) TLS=yes ;;
      --insecure) INSECURE=yes ;;
      [0-9]*) count "$1" ;;
      *) fail 2 "unknown argument $1; --help lists them all" ;;
    esac
    shift
  done
  [[ $HOLD =~ ^[0-9]+(ms|s|m|h)$ ]] || fail 2 "--hold $HOLD: a time such as 500ms, 20s or 2m"
  [ -z "$PART" ] || [ -n "$URL" ] || fail 2 "--part needs --url: the server that all parts load"
  [ -z "$INSECURE" ] || [[ $URL = wss://* ]] || fail 2 "--insecure is for --url wss://…"
  [ -z "$URL" ] || target
  [ -z "$TLS" ] || BYTES_PER_END=$((BYTES_PER_END + BYTES_FOR_TLS))
  [ -z "$JSON" ] || : >"$JSON" || fail 2 "--json $JSON: cannot be written"
}

count() {
  local text=${1//[_,]/} factor=1
  case $text in *[kK]) factor=1000 ;; *[mM]) factor=1000000 ;; esac
  text=${text%[kKmM]}
  [[ $text =~ ^[0-9]{1,9}$ ]] || fail 2 "$1 is no number of connections"
  N=$((10#$text * factor))
  [ "$N" -gt 0 ] && [ "$N" -le 1000000000 ] || fail 2 "$1 connections: from 1 to 1000m"
}

# What --url and --part make of N: this machine's share, the last with what is left over.
target() {
  local host part parts all=$N
  [[ $URL =~ ^wss?://(\[.+\]|[^]/:[]+)(:[0-9]+)?(/.*)?$ ]] ||
    fail 2 "--url $URL: ws://HOST:PORT/echo or wss://HOST:PORT/echo"
  host=${BASH_REMATCH[1]}
  if [[ $URL = wss://* ]]; then TLS=yes
  elif [ -n "$TLS" ]; then fail 2 "--tls and --url $URL: TLS is wss://"; fi
  case $host in
    127.*) ;;
    localhost | '[::1]') LOOPBACK='' ;;
    *) LOOPBACK='' ENDS=1 ;;
  esac
  [ -n "$PART" ] || return 0
  [[ $PART =~ ^([1-9][0-9]{0,3})/([1-9][0-9]{0,3})$ ]] || fail 2 "--part $PART: such as 2/4"
  part=${BASH_REMATCH[1]} parts=${BASH_REMATCH[2]}
  [ "$part" -le "$parts" ] || fail 2 "--part $PART: the last is $parts/$parts"
  N=$((all / parts + (part == parts ? all % parts : 0)))
  [ "$N" -gt 0 ] || fail 2 "--part $PART of $all connections is none"
  CONNECTING=$((CONNECTING / parts > 16 ? CONNECTING / parts : 16))
  echo "part $part of $parts: $(grouped "$N") of $(grouped "$all") connections"
}

# --- a network of its own -----------------------------------------------------------------------

# Starts this script anew in a network namespace; comes back where that is refused.
enter_namespace() {
  local how said='' ways=(-n -rn) up='ip link set lo up'
  [ "$(id -u)" = 0 ] || ways=(-rn)
  if ! command -v ip >/dev/null; then
    # A fresh sysfs shows the interfaces of the namespace that mounts it, and has the switch.
    ways=("${ways[@]/%/m}")
    up='mount -t sysfs sysfs /sys && echo 1 >/sys/class/net/lo/flags && umount /sys'
  fi
  for how in "${ways[@]}"; do
    said=$(unshare "$how" "$BASH" -c "$up" 2>&1) || continue
    MILLION_NAMESPACE=$how MILLION_UP=$up exec unshare "$how" "$BASH" -c "$up && exec \"\$0\" \"\$@\"" \
      "$ROOT/scripts/million.sh" "$@"
  done
  command -v ip >/dev/null || said+=$'\nto bring loopback up, ip of iproute2 is missing'
  note "no network namespace (${said##*$'\n'}): what is raised outside is put back at the end"
}

# Starts this script anew in a namespace within, whose hash table of connections is its own. The
# one that all share has a bucket for each 100 KB of memory: with several connections in each,
# every packet walks a chain, and a million takes a third longer. Stays where it is not to be had.
enter_larger_table() {
  local buckets=262144
  while [ $buckets -lt $((2 * N)) ] && [ $buckets -lt 16777216 ]; do buckets=$((2 * buckets)); done
  { echo $buckets >/proc/sys/net/ipv4/tcp_child_ehash_entries; } 2>/dev/null || return 0
  unshare "$MILLION_NAMESPACE" true 2>/dev/null || return 0
  MILLION_TABLE=$buckets exec unshare "$MILLION_NAMESPACE" "$BASH" -c \
    "$MILLION_UP && exec \"\$0\" \"\$@\"" "$ROOT/scripts/million.sh" "$@"
}

# --- the run ------------------------------------------------------------------------------------

# A certificate for the server that this script starts, which then has a listener for it as well.
certificate() {
  "$ROOT/scripts/gen-certs" --dir "$WORK/certs" >"$WORK/gen-certs.log" ||
    fail 1 "--tls needs a certificate"
  ENVIRONMENT+=(TIDEMILL_TLS_LISTEN=127.0.0.1:0 TIDEMILL_TLS_CERT="$WORK/certs/cert.pem"
    TIDEMILL_TLS_KEY="$WORK/certs/key.pem" TIDEMILL_TLS_SELF_SIGNED= TIDEMILL_TLS_CLIENT_CA=)
  # It is ours: to verify it each time would only cost the client what the server could do with.
  INSECURE=yes
}

# Sets SERVER_PID, PLAIN, where the metrics are, and URL.
start_server() {
  local log=$WORK/server.log deadline=$((SECONDS + 20))
  : >"$log"
  "${APART[@]}" env "${ENVIRONMENT[@]}" TIDEMILL_MAX_CONNECTIONS="$N" "$SERVER" \
    >"$log" 2>&1 </dev/null &
  SERVER_PID=$!
  # The TLS listener, if any, is named after the plain one.
  until PLAIN=$(endpoint ws "$log") && URL=$(endpoint "ws${TLS:+s}" "$log"); do
    kill -0 $SERVER_PID 2>/dev/null || fail 1 "the server ended at start"
    [ $SECONDS -lt $deadline ] || fail 1 "the server printed no ws${TLS:+s}:// endpoint"
    sleep 0.05
  done
  URL+=/echo
}

# endpoint SCHEME LOG: the first that the banner names.
endpoint() { grep -oEm1 "\b$1://127\.0\.0\.1:[0-9]+" "$2"; }

# Sets STATUS, and FACTS from the load generator's report.
bench() {
  local options=(--connections "$N" --connecting "$CONNECTING" --duration "$HOLD" --sweep 256
    --pings 256 --progress lines --json="$WORK/bench.json") path value
  [ -z "$SERVER_PID" ] || options+=(--server-pid "$SERVER_PID")
  [ -z "$REPORT" ] || options+=(--report "$REPORT")
  [ -z "$SOURCE" ] || options+=(--source "$SOURCE")
  [ -z "$INSECURE" ] || options+=(--insecure)
  "${APART[@]}" "$SERVER" bench hold "$URL" "${options[@]}" </dev/null &
  BENCH_PID=$!
  while STATUS=0; wait $BENCH_PID || STATUS=$?; kill -0 $BENCH_PID 2>/dev/null; do :; done
  BENCH_PID=''
  [ -s "$WORK/bench.json" ] || fail 1 "the load generator left with status $STATUS and no report"
  while IFS=$'\t' read -r path value; do FACTS[$path]=$value; done < <(flatten <"$WORK/bench.json")
}

# One line for each value of a JSON text: its path, such as phases.0.name, and what it is.
flatten() {
  grep -oE '"([^"\\]|\\.)*"|[][{}:,]|[^][{}:," ]+' | awk '
    $0 == ":" { named = 1; next }
    $0 == "," { if (kind[depth] == "[") key[depth]++; next }
    /^[]}]$/ { depth--; next }
    kind[depth] == "{" && !named { key[depth] = substr($0, 2, length($0) - 2); next }
    { named = 0 }
    /^[[{]$/ { kind[++depth] = $0; key[depth] = 0; next }
    key[1] !~ /^samples$|percentiles$/ {
      path = key[1]
      for (i = 2; i <= depth; i++) path = path "." key[i]
      gsub(/^"|"$/, "")
      print path "\t" $0
    }'
}

# Sets LONGEST and LONGEST_CPU, in seconds, TURNS and LONG_TURNS, those above 20 ms of CPU time, and
# HANDSHAKES, those of TLS by result, once the server has seen the last connection go.
turns() {
  local deadline=$((SECONDS + 30)) open=1
  while [ "$open" != 0 ] && [ $SECONDS -lt $deadline ] && kill -0 $SERVER_PID 2>/dev/null; do
    read -r open LONGEST LONGEST_CPU TURNS LONG_TURNS HANDSHAKES < <(metrics | awk '
      /^tidemill_connections\{/ { open += $2 }
      /^tidemill_turn_longest_seconds\{/ { if ($2 + 0 >= wall + 0) wall = $2 }
      /^tidemill_turn_cpu_longest_seconds\{/ { if ($2 + 0 >= cpu + 0) cpu = $2 }
      /^tidemill_turn_cpu_seconds_count\{/ { all += $2 }
      /^tidemill_turn_cpu_seconds_bucket\{.*le="0.02"/ { short += $2 }
      /^tidemill_tls_handshakes_total\{/ {
        split($1, name, "\"")
        tls = tls (tls ? "," : "{") "\"" name[2] "\":" $2
      }
      END {
        print NR ? open + 0 : 1, wall == "" ? "null" : wall, cpu == "" ? "null" : cpu,
          all ? all : "null", all ? all - short : "null", tls ? tls "}" : "null"
      }')
    [ "$open" = 0 ] || sleep 0.5
  done
}

metrics() (
  address=${PLAIN#ws://}
  exec 3<>"/dev/tcp/${address/://}"
  printf 'GET /metrics HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$address" >&3
  timeout 20 cat <&3
)

# --- the result ---------------------------------------------------------------------------------

# show FORMAT VALUE [FACTOR]: a number, or a dash for what was not measured.
show() {
  if [ "${2:-null}" = null ]; then echo -; return; fi
  grouped "$(awk -v format="$1" -v value="$2" -v factor="${3:-1}" \
    'BEGIN { printf format, value * factor }')"
}

fact() { show "$1" "${FACTS[$2]-}" "${3:-1}"; }

# answers PHASE: how many came, and how soon.
answers() {
  printf '%s of %s; p50 %s, p99 %s, max %s' "$(fact %d "$1.received")" "$(fact %d "$1.sent")" \
    "$(fact '%.1f ms' "$1.latency.p50" 0.001)" "$(fact '%.1f ms' "$1.latency.p99" 0.001)" \
    "$(fact '%.1f ms' "$1.latency.max" 0.001)"
}

table() {
  local phase i cpu='' handshakes=()
  if [ -n "$TLS" ] && [ "$HANDSHAKES" != null ]; then
    handshakes=('TLS handshakes' "$(sed 's/[{}"]//g; s/:/ /g; s/,/, /g' <<<"$HANDSHAKES")")
  fi
  for ((i = 0; i < 9; i++)); do
    phase=${FACTS[phases.$i.name]-}
    [ -z "$phase" ] || cpu+="${cpu:+, }$phase $(fact '%.1f s' "phases.$i.server_cpu_seconds")"
  done
  printf '\n%s\n' "Result, after $SECONDS s"
  printf '  %-15s %s\n' \
    connections "$(fact %d connections.opened) of $(grouped "$N")" \
    failures "$(fact %d connections.failed) failed, $(fact %d connections.lost) lost" \
    "${handshakes[@]}" \
    speed "$(fact '%.0f a second' connections.per_second), $(fact '%.1f s' connections.seconds)" \
    'server memory' "$(fact '%.0f bytes a connection' server.rss_per_connection)" \
    'kernel memory' "$(fact '%.0f bytes a connection, both ends' kernel.per_connection)" \
    'echo sweep' "$(answers sweep)" 'ping round' "$(answers pings)" 'server CPU' "$cpu" \
    'longest turn' "$(show '%.1f ms' "$LONGEST" 1000)" \
    '  by CPU time' "$(show '%.1f ms' "$LONGEST_CPU" 1000); $(show %d "$LONG_TURNS") of $(
      show %d "$TURNS") turns above 20 ms"
  [ ${#NOTES[@]} = 0 ] || printf '  note: %s\n' "${NOTES[@]}"
}

result_json() {
  local IFS=, text notes=()
  for text in "${NOTES[@]}"; do notes+=("$(quote "$text")"); done
  printf '{"bench":%s,"turns":{"longest_seconds":%s,"longest_cpu_seconds":%s,"count":%s,' \
    "$(<"$WORK/bench.json")" "$LONGEST" "$LONGEST_CPU" "$TURNS"
  printf '"above_20ms_cpu":%s},"tls_handshakes":%s,' "$LONG_TURNS" "$HANDSHAKES"
  printf '"checks":{%s},"notes":[%s]}\n' "${CHECKS[*]}" "${notes[*]}"
}

complete() {
  [ "$STATUS" = 0 ] && [ -z "$INTERRUPTED" ] && [ "${FACTS[connections.opened]-}" = "$N" ] &&
    [ "${FACTS[sweep.received]-}" = "$N" ] && [ "${FACTS[pings.received]-}" = "$N" ] &&
    [ "${FACTS[connections.failed]-}${FACTS[connections.lost]-}" = 00 ]
}

# end PID: as an operator would, with force after 20 seconds.
end() {
  local tries=0
  kill -TERM "$1" 2>/dev/null || true
  while kill -0 "$1" 2>/dev/null && [ $((tries += 1)) -le 200 ]; do sleep 0.1; done
  kill -KILL "$1" 2>/dev/null || true
  wait "$1"
}

interrupt() {
  INTERRUPTED=interrupted
  if [ -n "$BENCH_PID" ]; then kill -INT "$BENCH_PID"; else exit 1; fi
}

finish() {
  local status=$? i
  trap '' INT TERM HUP PIPE
  set +e
  [ -z "$BENCH_PID" ] || end "$BENCH_PID"
  [ -z "$SERVER_PID" ] || end "$SERVER_PID"
  for ((i = 0; i < ${#RAISED[@]}; i += 2)); do echo "${RAISED[i + 1]}" >"${RAISED[i]}"; done
  if [ $status != 0 ] && [ -z "$INTERRUPTED" ] && [ -s "$WORK/server.log" ]; then
    printf '\nThe server said:\n'
    tail -n 30 "$WORK/server.log"
  fi >&2
  rm -rf "$WORK"
  exit $status
}

# --- in order -----------------------------------------------------------------------------------

[ "$(uname -s)" = Linux ] || fail 1 "this needs Linux: namespaces, /proc and descriptor tables"
arguments "$@"
if [ ! -x "$SERVER" ]; then
  [ -z "${TIDEMILL_BIN-}" ] || fail 2 "TIDEMILL_BIN=$SERVER is no program"
  cargo build --release --bin tidemill --manifest-path "$ROOT/Cargo.toml" ||
    fail 1 "no server at $SERVER, and it cannot be built"
fi
if [ -n "${MILLION_NAMESPACE-}" ]; then
  [ -n "${MILLION_TABLE-}" ] || enter_larger_table "$@"
  echo "in a network namespace of its own (unshare $MILLION_NAMESPACE)"
elif [ -z "$URL" ]; then
  enter_namespace "$@"
fi

WORK=$(mktemp -d)
trap finish EXIT
trap interrupt INT TERM HUP PIPE
if [ -n "$TLS" ] && [ -z "$URL" ]; then certificate; fi
checks
here=''
if [ -z "$URL" ]; then here=yes; start_server; fi
bench
[ -z "$here" ] || turns
table
[ -z "$JSON" ] || result_json >"$JSON"
if [ -n "$here" ]; then
  end "$SERVER_PID" || { STATUS=$?; note "the server left with status $STATUS"; }
  SERVER_PID=''
fi
complete || fail 1 "${INTERRUPTED:-not all connections were opened and answered}"
