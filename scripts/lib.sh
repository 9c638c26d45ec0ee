# Shared by the scripts beside this file: where things are, how a suite says that it was skipped,
# and how one server is started on a port of its own. Sourced by bash, never run.

set -euo pipefail
export LC_ALL=C.UTF-8

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
SUITE=$TARGET/suite
SERVER=${SUITE_SERVER:-$TARGET/release/tidemill}
SKIPPED=77
cd "$ROOT"

# A caller's TIDEMILL_* variables would change what the tests measure.
for variable in $(compgen -e TIDEMILL_ || true); do
  unset "$variable"
done

have() { command -v "$1" >/dev/null 2>&1; }

# Some programs are where only the superuser looks for them.
have_program() { PATH=$PATH:/usr/sbin:/usr/local/sbin have "$1"; }

# nginx passes streams on by itself, or by a module that has a package of its own.
has_nginx_stream() {
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] ||
    PATH=$PATH:/usr/sbin:/usr/local/sbin nginx -V 2>&1 | grep -e '--with-stream ' >/dev/null
}

# skip COMPONENT REASON: ends a suite as skipped. docs/testing.md lists the components that may be
# missing; scripts/test counts the line and, under CI, looks the component up there.
skip() {
  echo "skipped: $1: $2"
  exit "$SKIPPED"
}

die() {
  echo "error: $*" >&2
  exit 1
}

# Why a part could not be installed, as scripts/install left it.
why_missing() {
  if [ -s "$SUITE/$1.why" ]; then tail -n 1 "$SUITE/$1.why"; else echo "run scripts/install"; fi
}

# A CPython 2.7, or nothing: the conformance suite runs on no other.
find_python2() {
  local candidate
  for candidate in python2.7 python2 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python; do
    command "$candidate" -c 'import sys; assert sys.version_info[:2] == (2, 7); print(sys.executable)' \
      2>/dev/null && return
  done
}

# A Python 3 that `websockets` supports and that can make virtual environments, or nothing.
find_python3() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    command "$candidate" -c 'import ensurepip, sys
assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null && return
  done
}

# The major version of node, 0 without it.
node_version() {
  local version
  version=$(node --version 2>/dev/null) || version=v0
  version=${version#v}
  echo "${version%%.*}"
}

# start_server LOG [NAME=VALUE...]: sets SERVER_PID and SERVER_PORT. The port is the kernel's
# choice, read from the banner, so that suites run beside each other and beside a real server.
start_server() {
  local log=$1 deadline=$((SECONDS + 20))
  shift
  [ -x "$SERVER" ] || die "no server at $SERVER: cargo build --release"
  env TIDEMILL_LISTEN=127.0.0.1:0 "$@" "$SERVER" >"$log" 2>&1 </dev/null &
  SERVER_PID=$!
  trap 'kill "$SERVER_PID" 2>/dev/null || true' EXIT
  until SERVER_PORT=$(grep -oEm1 'ws://127\.0\.0\.1:[0-9]+' "$log"); do
    kill -0 "$SERVER_PID" 2>/dev/null || { cat "$log"; die "the server ended at start"; }
    [ "$SECONDS" -lt "$deadline" ] || { cat "$log"; die "the server printed no ws:// endpoint"; }
    sleep 0.05
  done
  SERVER_PORT=${SERVER_PORT##*:}
}

# Ends the server as an operator would and insists on exit status 0.
stop_server() {
  local status=0
  kill -TERM "$SERVER_PID"
  wait "$SERVER_PID" || status=$?
  trap - EXIT
  [ "$status" = 0 ] || die "the server left with status $status"
}
