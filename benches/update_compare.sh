#!/bin/sh
# The bytes that an update costs, from one version of a game's real assets to the next, beside other tools; nothing is timed and nothing goes over a
# network. Each pair is tried as a folder, as one uncompressed container (pak), as one whose assets are compressed each for itself in blocks of at
# most 128 KiB (ucas), and as a zip (protocol/examples/chunker_table.rs makes them).
#   leaves    bytes of our new leaves (protocol/examples/leaf_diff.rs), uncompressed
#   casync =  uncompressed bytes of casync's new chunks, the mean of five chunk sizes around the one whose chunks are as long as our leaves
#   casync 64 the same with casync's default of 64 KiB
#   rsync     literal data that rsync would send (--no-whole-file; it needs a server that reads every file)
#   zstd      a patch of `zstd --patch-from`, compressed; the publisher makes one for every pair of versions
# Needs casync, rsync and zstd beside what the assets need. Fails if our bytes of all pairs together
# are over 2 % more than casync's at an equal average, in any shape; within that, and in a single pair, the luck of a few cuts decides.
#
#   benches/update_compare.sh [cache directory]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=$("$here/minecraft_assets.sh" "$@")
cd "$here/.."
cargo build --quiet --release -p modswarm-protocol --example leaf_diff --example chunker_table
bin=${CARGO_TARGET_DIR:-target}/release/examples
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# chunks DIR: uncompressed bytes of the chunks in it
chunks() { find "$1" -name '*.cacnk' -exec zstd -dcq {} + | wc -c; }

# casync_new AVERAGE OLD NEW: sets $fetched and $mean
casync_new() {
    rm -rf "$work/store"
    mkdir "$work/store"
    made() {
        casync make --log-level=err --compression=zstd --chunk-size="$1" --store="$work/store" --without=all \
            "$work/index.caidx" "$2" > /dev/null
    }
    made "$1" "$3"
    bytes=$(chunks "$work/store")
    mean=$((bytes / $(find "$work/store" -name '*.cacnk' | wc -l)))
    rm -rf "$work/store"
    mkdir "$work/store"
    made "$1" "$2"
    before=$(chunks "$work/store")
    made "$1" "$3"
    fetched=$(($(chunks "$work/store") - before))
}

tarred() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .; }

: > "$work/rows"
echo "| pair | shape | bytes | leaves | our mean | casync = | its mean | casync 64 | rsync | zstd |"
echo "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
for pair in 1.8.8:1.9 1.12:1.13 1.16.1:1.16.4 1.18.1:1.19.1 1.20.2:1.21.1 1.21.4:1.21.11; do
    rm -rf "$work/shapes"
    "$bin/chunker_table" --write "$work/shapes" "$data/${pair%:*}" "$data/${pair#*:}"
    for shape in pak folder ucas zip; do
        old=$work/shapes/$shape/old new=$work/shapes/$shape/new
        set -- $("$bin/leaf_diff" "$old" "$new")
        # What to ask casync for, so that its chunks are as long as our leaves: the best of some steps of the rule of three. A folder is one archive
        # to casync; its chunks are as long as in the pak.
        if [ "$shape" != folder ]; then
            ours=$((($1 + $2) / $3)) try=$((($1 + $2) / $3)) nearest=
            for _ in 1 2 3 4; do
                casync_new "$try" "$old" "$new"
                off=$((mean > ours ? mean - ours : ours - mean))
                if [ -z "$nearest" ] || [ "$off" -lt "$nearest" ]; then
                    nearest=$off ask=$try
                fi
                try=$((try * ours / mean))
            done
        fi
        leaves=$1 bytes=$(($1 + $2)) our_mean=$((($1 + $2) / $3))
        casync_new 65536 "$old" "$new"
        default=$fetched
        # Where cuts fall is luck in files this small: the mean of five sizes close to each other.
        sum=0 sum_of_means=0
        for percent in 94 97 100 103 106; do
            casync_new $((ask * percent / 100)) "$old" "$new"
            sum=$((sum + fetched)) sum_of_means=$((sum_of_means + mean))
        done
        fetched=$((sum / 5)) mean=$((sum_of_means / 5))
        cp -R "$old" "$work/rsynced"
        rsynced=$(rsync -rI --delete --no-whole-file --stats "$new/" "$work/rsynced/" | sed -n 's/^Literal data: \([0-9,]*\).*/\1/p' | tr -d ,)
        rm -rf "$work/rsynced"
        tarred "$old" "$work/old.tar"
        tarred "$new" "$work/new.tar"
        zstd -q -f --long=27 --patch-from="$work/old.tar" "$work/new.tar" -o "$work/patch"
        patch=$(wc -c < "$work/patch")
        echo "| $pair | $shape | $bytes | $leaves | $our_mean | $fetched | $mean | $default | $rsynced | $patch |"
        echo "$shape $bytes $leaves $fetched $default $rsynced $patch" >> "$work/rows"
    done
done
awk '{
    if (!($1 in leaves)) shapes[++n] = $1
    bytes[$1] += $2; leaves[$1] += $3; casync[$1] += $4; usual[$1] += $5; rsynced[$1] += $6; patch[$1] += $7
} END {
    for (i = 1; i <= n; i++) {
        s = shapes[i]
        printf "| **all** | %s | %d | %d | | %d | | %d | %d | %d |\n", s, bytes[s], leaves[s], casync[s], usual[s], rsynced[s], patch[s]
        printf "%s: %.3f of casync at an equal average\n", s, leaves[s] / casync[s] > "/dev/stderr"
    }
}' "$work/rows"
