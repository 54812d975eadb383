#!/usr/bin/env bash
# One get over loopback, by modswarm and by others, of the same content in the same run.
#
#   benches/peers/run.sh [TOOL...]      (modswarm rqbit sendme libtorrent aria2 if none is named)
#
# Installs what it compares with from the registries (crates.io, PyPI, the distribution) into a cache; what cannot be installed is left out with a line. Runs in
# a network namespace of its own, so that nothing reaches any other machine: needs root, or user namespaces. MODSWARM_BENCH_MIB sets how much (1024),
# MODSWARM_BENCH_RUNS how often each (5). With libtorrent and aria2 it takes minutes a turn.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${MODSWARM_PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/modswarm-peers}
mkdir -p "$cache"
[ $# -gt 0 ] || set -- modswarm rqbit sendme libtorrent aria2

crate() { # NAME VERSION OPTIONS...
  [ -x "$cache/bin/$1" ] && return
  echo "installing $1 $2" >&2
  CARGO_TARGET_DIR="$cache/target" cargo install --quiet "$1" --version "$2" --locked --root "$cache" "${@:3}" || echo "$1 could not be installed" >&2
}

cargo build --release --quiet
for tool in "$@"; do
  case $tool in
    rqbit) crate rqbit 9.1.0 --no-default-features --features default-tls ;;
    sendme) crate sendme 0.37.1 ;;
    aria2) command -v aria2c > /dev/null || apt-get install -y -qq aria2 > /dev/null 2>&1 || echo "aria2 could not be installed" >&2 ;;
  esac
done
# Torrents are made by libtorrent, whoever fetches them.
if [ ! -x "$cache/venv/bin/python" ]; then
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet libtorrent
fi
exec unshare --net --map-root-user bash -c '
  ip link set lo up
  ip link add bench0 type dummy 2> /dev/null && ip addr add 10.77.0.1/24 dev bench0 && ip link set bench0 up
  exec "$@"' - "$cache/venv/bin/python" -W ignore::DeprecationWarning benches/peers/run.py "$PWD/target/release/modswarm" "$cache/bin" "$@"
