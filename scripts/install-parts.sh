# What scripts/install knows of each part: `wanted_` describes it in a line, `ready_` tells whether
# it is there already, `install_` brings it. Sourced after lib.sh.

TARGETS=(x86_64-apple-darwin x86_64-unknown-freebsd)
BROWSER=${SUITE_BROWSER:-chromium}
FIREFOX=${SUITE_FIREFOX:-firefox-esr}

# A part is current while its stamp names the requirements and the interpreter it was made with.
current() {
  local part=$1 stamp
  shift
  stamp=$(stamp_of "$@")
  [ -f "$SUITE/$part/stamp" ] && [ "$(cat "$SUITE/$part/stamp")" = "$stamp" ]
}

# stamp_of INTERPRETER FILE...
stamp_of() {
  local interpreter=$1
  shift
  { echo "$interpreter"; cat "$@"; } | sha256sum
}

pins() { grep -E '==' "$1" | tr '\n' ' '; }

# --- distribution packages ----------------------------------------------------------------------

missing_packages() {
  local packages=()
  [ -n "$(find_python3)" ] || packages+=(python3 python3-venv)
  [ "$(node_version)" -ge 18 ] || packages+=(nodejs)
  have npm || packages+=(npm)
  have prlimit || packages+=(util-linux)
  have curl || packages+=(curl)
  have openssl || packages+=(openssl)
  echo "${packages[*]-}"
}

# wanted_distribution PACKAGES OTHERWISE
wanted_distribution() {
  if [ -n "$1" ]; then echo "distribution packages: $1"; else echo "$2"; fi
}

wanted_packages() {
  wanted_distribution "$(missing_packages)" "no distribution package is missing"
}

ready_packages() { [ -z "$(missing_packages)" ]; }

install_packages() {
  # shellcheck disable=SC2046 # one word a package
  install_distribution $(missing_packages)
}

# install_distribution PACKAGE...: one part at a time, since the package manager has one lock; and
# one package after the other, since not every distribution has all of them. What a package would
# start is not started: the suites need the program, not its service.
install_distribution() {
  local package failed='' policy=/usr/sbin/policy-rc.d
  have apt-get || { echo "no apt-get here: install $*"; return 1; }
  [ "$(id -u)" = 0 ] || { echo "not root: apt-get install $*"; return 1; }
  export DEBIAN_FRONTEND=noninteractive
  exec {lock}>"$SUITE/packages.lock"
  flock "$lock"
  if [ -d "${policy%/*}" ] && [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get update -q
  for package; do
    apt-get install -q -y --no-install-recommends "$package" || failed+=" $package"
  done
  [ -z "$failed" ] || { echo "apt-get cannot install$failed"; return 1; }
}

# --- Python clients -----------------------------------------------------------------------------

PYTHON_PINS=tests/clients/python/requirements.txt

wanted_python() { echo "$SUITE/python: $(pins $PYTHON_PINS)$(already python)"; }
ready_python() { current python "$(find_python3)" $PYTHON_PINS; }

install_python() { python_environment python $PYTHON_PINS; }

# python_environment PART PINS: a virtual environment with exactly these packages.
python_environment() {
  local part=$1 pins=$2 python
  python=$(find_python3)
  [ -n "$python" ] || { echo "no Python 3.11 or newer with venv"; return 1; }
  rm -rf "${SUITE:?}/$part"
  "$python" -m venv "$SUITE/$part"
  "$SUITE/$part/bin/pip" install --disable-pip-version-check --no-deps -r "$pins"
  stamp_of "$python" "$pins" >"$SUITE/$part/stamp"
}

# --- node clients -------------------------------------------------------------------------------

NODE_PINS=(tests/clients/node/package.json tests/clients/node/package-lock.json)

wanted_node() {
  echo "$SUITE/node: $(sed -n 's/^ *"\(centrifuge\|ws\|wscat\)": "\(.*\)".*/\1==\2/p' "${NODE_PINS[0]}" |
    tr '\n' ' ')$(already node)"
}
ready_node() { current node "$(node --version 2>/dev/null)" "${NODE_PINS[@]}"; }

install_node() {
  [ "$(node_version)" -ge 18 ] || { echo "no node 18 or newer"; return 1; }
  have npm || { echo "no npm"; return 1; }
  rm -rf "$SUITE/node"
  mkdir -p "$SUITE/node"
  cp "${NODE_PINS[@]}" "$SUITE/node"
  npm ci --prefix "$SUITE/node" --no-audit --no-fund --ignore-scripts
  stamp_of "$(node --version)" "${NODE_PINS[@]}" >"$SUITE/node/stamp"
}

# --- browsers -----------------------------------------------------------------------------------

missing_browsers() {
  local packages=()
  have "$BROWSER" || packages+=(chromium)
  have "$FIREFOX" || packages+=(firefox-esr)
  # Makes the databases of authorities that both of them trust.
  have certutil || packages+=(libnss3-tools)
  echo "${packages[*]-}"
}

wanted_browser() {
  wanted_distribution "$(missing_browsers)" "browsers are there: $BROWSER $FIREFOX"
}

ready_browser() { [ -z "$(missing_browsers)" ]; }

install_browser() {
  # shellcheck disable=SC2046 # one word a package
  install_distribution $(missing_browsers)
}

# --- proxies, and what is slow on purpose -------------------------------------------------------

missing_proxies() {
  local packages=()
  have_program nginx || packages+=(nginx)
  have_program haproxy || packages+=(haproxy)
  has_nginx_stream || packages+=(libnginx-mod-stream)
  echo "${packages[*]-}"
}

wanted_proxies() { wanted_distribution "$(missing_proxies)" "nginx and haproxy are there"; }
ready_proxies() { [ -z "$(missing_proxies)" ]; }

install_proxies() {
  # shellcheck disable=SC2046 # one word a package
  install_distribution $(missing_proxies)
}

missing_slow() { have slowhttptest || echo slowhttptest; }
wanted_slow() { wanted_distribution "$(missing_slow)" "slowhttptest is there"; }
ready_slow() { [ -z "$(missing_slow)" ]; }
install_slow() { install_distribution slowhttptest; }

# --- what looks for weak TLS --------------------------------------------------------------------

SCAN_PINS=tests/tls/scan/requirements.txt

wanted_scan() { echo "$SUITE/scan: $(grep sslyze $SCAN_PINS) and what it needs$(already scan)"; }
ready_scan() { current scan "$(find_python3)" $SCAN_PINS; }
install_scan() { python_environment scan $SCAN_PINS; }

# --- Autobahn -----------------------------------------------------------------------------------

AUTOBAHN_PINS=(tests/autobahn/bootstrap.txt tests/autobahn/requirements.txt)

wanted_autobahn() {
  if [ -z "$(find_python2)" ]; then echo "nothing: no Python 2.7 for autobahntestsuite"; return; fi
  echo "$SUITE/autobahn: $(grep -h autobahntestsuite "${AUTOBAHN_PINS[1]}") and what it" \
    "needs, on Python 2.7$(already autobahn)"
}
ready_autobahn() { current autobahn "$(find_python2)" "${AUTOBAHN_PINS[@]}"; }

# Python 2.7 brings no venv module: a virtualenv of its last supporting release makes one.
install_autobahn() {
  local python bootstrap="$SUITE/autobahn/bootstrap"
  python=$(find_python2)
  [ -n "$python" ] || { echo "no Python 2.7"; return 1; }
  rm -rf "$SUITE/autobahn"
  mkdir -p "$bootstrap"
  "$python" -m pip install --disable-pip-version-check --no-deps --target "$bootstrap" \
    -r "${AUTOBAHN_PINS[0]}"
  PYTHONPATH=$bootstrap "$python" -m virtualenv --no-periodic-update "$SUITE/autobahn/env"
  "$SUITE/autobahn/env/bin/pip" install --disable-pip-version-check --no-deps \
    -r "${AUTOBAHN_PINS[1]}"
  stamp_of "$python" "${AUTOBAHN_PINS[@]}" >"$SUITE/autobahn/stamp"
}

# --- rustup's targets ---------------------------------------------------------------------------

missing_targets() {
  local target installed missing=()
  installed=$(rustup target list --installed 2>/dev/null || true)
  for target in "${TARGETS[@]}"; do
    grep -qx "$target" <<<"$installed" || missing+=("$target")
  done
  echo "${missing[*]-}"
}

wanted_targets() {
  local missing
  missing=$(missing_targets)
  if [ -z "$missing" ]; then echo "rustup has ${TARGETS[*]}"
  else echo "rustup targets: $missing"; fi
}

ready_targets() { [ -z "$(missing_targets)" ]; }

install_targets() {
  have rustup || { echo "no rustup"; return 1; }
  local target
  for target in $(missing_targets); do
    timeout 120 rustup target add "$target"
  done
}

already() { if "ready_$1"; then echo " (there)"; fi; }
