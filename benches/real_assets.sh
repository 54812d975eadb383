#!/bin/sh
# Shares version 1 of a game's real assets, gets it, shares version 2 in its place, and gets that over version 1 and beside it; then renames
# files and gets that. Fails unless what was fetched is to the byte version 2's leaves less version 1's (protocol/examples/leaf_diff.rs
# says what that is), and nothing at all after renaming. Each pair is tried as a folder and as one container of all files.
# Processes are real and talk over loopback in a private network. Prints a table; it is in docs/BENCHMARKS.md.
#
#   benches/real_assets.sh [cache directory]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=$("$here/minecraft_assets.sh" "$@")
cd "$here/.."
cargo build --quiet --release --bin modswarm
cargo build --quiet --release -p modswarm-protocol --example leaf_diff
bin=${CARGO_TARGET_DIR:-target}/release
modswarm=$(cd "$bin" && pwd)/modswarm
leaf_diff=$(cd "$bin" && pwd)/examples/leaf_diff

export MODSWARM_NETWORK=private MODSWARM_LISTEN=/ip4/127.0.0.1/tcp/0
work=$(mktemp -d)
mkdir "$work/none"
seeds=
trap 'for pid in $seeds; do kill "$pid" 2>/dev/null || :; done; wait; rm -rf "$work"' EXIT

fail() {
    echo "real_assets: $*" >&2
    exit 1
}

# number KEY < line of JSON
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }

# share FOLDER: sets $link
share() {
    said=$(mktemp "$work/said.XXXXXX")
    "$modswarm" --home "$work/a/home" share "$1" --json > "$said" 2> "$said.err" &
    seeds="$seeds $!"
    until [ -s "$said" ]; do
        kill -0 $! 2>/dev/null || fail "share ended: $(cat "$said.err")"
        sleep 0.1
    done
    link=$(sed -n 's/.*"link":"\([^"]*\)".*/\1/p' "$said")
}

# get WHO FOLDER: sets $complete
get() {
    "$modswarm" --home "$work/$1/home" get "$link" -o "$2" --no-seed --timeout 60 --json > "$work/got" 2> "$work/got.err" ||
        fail "get failed: $(cat "$work/got.err")"
    complete=$(tail -n 1 "$work/got")
}

# row WHAT EXPECTED_FETCHED EXPECTED_REUSED
row() {
    fetched=$(echo "$complete" | number bytes_fetched)
    reused=$(echo "$complete" | number bytes_reused)
    skeleton=$(echo "$complete" | number bytes_skeleton)
    echo "| $pair | $shape | $1 | $2 | $fetched | $reused | $skeleton |"
    [ "$fetched" = "$2" ] || fail "$pair as $shape, $1: fetched $fetched bytes, not $2"
    [ "$reused" = "$3" ] || fail "$pair as $shape, $1: reused $reused bytes, not $3"
}

# put VERSION FOLDER
put() {
    rm -rf "$2"
    mkdir -p "$2"
    case $shape in
        folder) cp -R "$data/$1/." "$2" ;;
        container) (cd "$data/$1" && find . -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cat) > "$2/assets.pak" ;;
    esac
}

same() { diff -r "$1" "$2" > /dev/null || fail "$1 and $2 differ"; }

echo "| pair | shape | get | expected | bytes_fetched | bytes_reused | bytes_skeleton |"
echo "|---|---|---|--:|--:|--:|--:|"
for pair in 1.8.8:1.9 1.20.2:1.21.1; do
    for shape in folder container; do
        rm -rf "$work/a" "$work/b" "$work/c"
        old=$work/old/Assets new=$work/new/Assets shared=$work/a/Assets
        put "${pair%:*}" "$old"
        put "${pair#*:}" "$new"

        put "${pair%:*}" "$shared"
        share "$shared"
        set -- $("$leaf_diff" "$work/none" "$old")
        get b "$work/b/in"
        row "version 1, nothing here" "$1" "$2"
        same "$old" "$work/b/in/Assets"
        get c "$work/c/in"
        row "version 1, nothing here" "$1" "$2"

        put "${pair#*:}" "$shared"
        share "$shared"
        set -- $("$leaf_diff" "$old" "$new")
        get b "$work/b/in/Assets"
        row "version 2 over version 1" "$1" "$2"
        same "$new" "$work/b/in/Assets"
        get c "$work/c/next"
        row "version 2 beside version 1" "$1" "$2"
        same "$new" "$work/c/next/Assets"
        same "$old" "$work/c/in/Assets"

        for file in $(cd "$shared" && find . -type f | LC_ALL=C sort | head -n 3); do
            mv "$shared/$file" "$shared/$file.renamed"
        done
        share "$shared"
        set -- $("$leaf_diff" "$new" "$shared")
        [ "$1" = 0 ] || fail "renaming made new leaves"
        get b "$work/b/in/Assets"
        row "files renamed, over version 2" 0 "$2"
        same "$shared" "$work/b/in/Assets"
        get c "$work/c/renamed"
        row "files renamed, beside version 2" 0 "$2"
        same "$shared" "$work/c/renamed/Assets"

        for pid in $seeds; do kill "$pid" 2>/dev/null || :; done
        wait
        seeds=
    done
done
