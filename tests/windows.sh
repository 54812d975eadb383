#!/usr/bin/env bash
# Builds modswarm for Windows on a Debian machine and tries it under Wine: the store's tests, and a pack shared by one process and fetched by another.
#
#   tests/windows.sh
#
# Installs what it needs (about 2 GB) when run as root; says so and skips itself where it can't. Only loopback addresses are used.
# MODSWARM_WINDOWS_CACHE says where builds and the Wine prefix are kept.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "skipped: $*"; exit 0; }
say() { printf '\n-- %s\n' "$*"; }

packages=(rustc-web cargo-web rust-web-src mingw-w64 wine wine64)
missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || skip "this needs Debian's ${missing[*]}"
  [ "$(id -u)" = 0 ] || skip "install ${missing[*]} first; only root can"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null 2>&1 || skip "apt-get cannot install ${missing[*]}"
fi

cache=${MODSWARM_WINDOWS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/modswarm-windows}
mkdir -p "$cache"
target=x86_64-pc-windows-gnu
# Debian's compiler has no library for Windows; it makes one from its sources.
export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_DIR="$cache/target" CARGO_INCREMENTAL=0
export WINEPREFIX="$cache/prefix" WINEDEBUG=-all
built="$cache/target/$target/debug"

say "building"
/usr/bin/cargo build --quiet --locked -Z build-std --target $target --bin modswarm
/usr/bin/cargo build --quiet --locked -Z build-std --target $target -p modswarm-store --tests

work=$(mktemp -d)
trap 'kill ${seed:-} 2>/dev/null || true; rm -rf "$work"' EXIT

# Wine 8 lacks the library that Windows 10 takes random numbers from.
cat > "$work/random.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T len) {
  while (len) {
    ULONG part = len > 0x40000000 ? 0x40000000 : (ULONG)len;
    if (!SystemFunction036(data, part)) return FALSE;
    data += part;
    len -= part;
  }
  return TRUE;
}
C
x86_64-w64-mingw32-gcc -shared -o "$built/bcryptprimitives.dll" "$work/random.c" -ladvapi32
cp "$built/bcryptprimitives.dll" "$built/deps/"
timeout 120 wine "$built/modswarm.exe" --version 2>/dev/null

say "the store's tests"
# Left out, by name:
# - crash, fuzz, shared_names and parts of hostile are of Unix alone: their disks, guards, symlinks and names are.
# - fs::tests::a_file_that_is_open_is_replaced_at_once: Wine 8 answers POSIX's rename (FileRenameInfoEx) with "invalid parameter", so that only Windows itself
#   can show it. That readers of ours do not stand in the way is shown by update_in_place and upkeep.
# Ten thousand small files take Wine more than seven minutes; a few hundred go the same way.
export MODSWARM_SMALL_FILES=300
run() {
  local program
  program=$(ls -t "$built/deps/$1"-*.exe | head -1)
  echo "$1"
  shift
  (cd store && timeout 600 wine "$program" --test-threads=2 "$@" 2>&1 | tr -d '\r' | grep -E '^test result|FAILED|panicked'; exit "${PIPESTATUS[0]}")
}
run modswarm_store --skip a_file_that_is_open_is_replaced_at_once
for test in changing_files copies dedup_and_update destination extremes hostile rebuild reserved_names resume share_again share_and_get update_in_place upkeep; do
  run "$test"
done

say "a pack goes from one process to another"
export MODSWARM_NETWORK=private MODSWARM_LISTEN=/ip4/127.0.0.1/tcp/0
windows() { winepath -w "$1" 2>/dev/null | tr -d '\r'; }
mkdir -p "$work/Pack/sub/$(printf 'd%.0s' {1..120})/$(printf 'e%.0s' {1..120})"
head -c 20000000 /dev/urandom > "$work/Pack/big.pak"
echo text > "$work/Pack/sub/$(printf 'd%.0s' {1..120})/$(printf 'e%.0s' {1..120})/a file beyond 260 characters.txt"
cd "$work"
touch shared.json
MODSWARM_HOME=$(windows "$work/from") wine "$built/modswarm.exe" share Pack --json > shared.json 2> shared.log &
seed=$!
for _ in $(seq 300); do grep -q '"link"' shared.json && break; sleep 0.1; done
link=$(grep -o '"link":"[^"]*' shared.json | cut -d'"' -f4)
[ -n "$link" ] || { cat shared.log; exit 1; }
MODSWARM_HOME=$(windows "$work/to") timeout 120 wine "$built/modswarm.exe" get "$link" --no-seed -o out > got.log 2>&1 || { cat got.log; exit 1; }
diff -r Pack out/Pack
echo "all bytes are the same"

# The user may rename and delete what is being served, at once: by programs of Windows, since only those know of its share modes.
wine cmd /c 'ren Pack\big.pak renamed.pak' 2>/dev/null
[ -e Pack/renamed.pak ] || { echo "a file that is served could not be renamed"; exit 1; }
MODSWARM_HOME=$(windows "$work/third") timeout 120 wine "$built/modswarm.exe" get "$link" --no-seed -o third > third.log 2>&1 || { cat third.log; exit 1; }
cmp Pack/renamed.pak third/Pack/big.pak
wine cmd /c 'del Pack\renamed.pak' 2>/dev/null
# Wine takes the name away when the last program has closed the file.
for _ in $(seq 100); do [ -e Pack/renamed.pak ] || break; sleep 0.1; done
[ ! -e Pack/renamed.pak ] || { echo "a file that is served could not be deleted"; exit 1; }
echo "files that are served can be renamed and deleted"
kill "$seed" 2>/dev/null || true
say "passed"
