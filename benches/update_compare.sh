#!/bin/sh
# The bytes that an update costs, from one version of games' real assets to the next, beside other tools; nothing is timed and nothing goes over a
# network. Every two consecutive versions that differ are tried, of npm's `minecraft-assets` and PyPI's `arcade`: as a folder, as one uncompressed
# container (pak), as one whose assets are compressed each for itself in blocks of at most 128 KiB (ucas), and as a zip
# (protocol/examples/chunker_table.rs makes them).
#   leaves    bytes of our new leaves (protocol/examples/leaf_diff.rs), uncompressed
#   casync =  uncompressed bytes of casync's new chunks at an equal average
#   casync 64 the same with casync's default of 64 KiB
#   rsync     literal data that rsync would send (--no-whole-file; it needs a server that reads every file)
#   zstd      a patch of `zstd --patch-from`, compressed; the publisher makes one for every pair of versions
#
# Equal average: the chunker's average as measured, not as asked for: the mean length of the new versions' chunks that content ended, which is all
# but the last of each file (of the archive, for casync), alike in every shape. Casync's bytes at our average are read off a line through its
# bytes at a fixed ladder of sizes (least squares over logarithms, from the sums of all pairs), so that neither the luck of a few cuts nor a size
# chosen after seeing bytes decides. In folders most of our leaves are whole small files, which are not cut and not counted here; casync runs over their ends.
#
# Prints a row for each pair, then ratios of all pairs, their standard error (jackknife: one pair left out at a time) and the single pairs' spread.
# Fails if a shape's ratio over all pairs of both games is above 1. Needs casync, rsync, zstd and od beside what the assets need.
#
#   benches/update_compare.sh [cache directory]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
minecraft=$("$here/minecraft_assets.sh" "$@")
arcade=$("$here/arcade_assets.sh" "$@")
cd "$here/.."
cargo build --quiet --release -p modswarm-protocol --example leaf_diff --example chunker_table
bin=${CARGO_TARGET_DIR:-target}/release/examples
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ladder='20480 24576 28672 34816 40960 49152 57344 65536'

# casync_cut SIZE FOLDER OUT: the end and the ID (as four numbers) of each chunk of casync's index
casync_cut() {
    rm -rf "$work/store"
    casync make --log-level=err --compression=zstd --chunk-size="$1" --store="$work/store" --without=all "$work/index.caidx" "$2" > /dev/null
    # Before the chunks are two headers, of 48 and 16 bytes; after them a line that begins with zero.
    tail -c +65 "$work/index.caidx" | od --endian=little -An -v -w40 -tu8 > "$3"
}

# compared OLD NEW: bytes of the new chunks; bytes and number of all but the last
compared() {
    awk '
        FNR == 1 { file++; before = 0 }
        $1 == 0 { next }
        { len = $1 - before; before = $1; id = $2 " " $3 " " $4 " " $5 }
        file == 1 { old[id]; next }
        { bytes += len; n++ }
        !(id in new) { new[id]; if (!(id in old)) fetched += len }
        END { print fetched + 0, bytes - len, n - 1 }
    ' "$1" "$2"
}

tarred() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .; }

# pair GAME OLD NEW: rows of all shapes
pair() {
    rm -rf "$work/shapes"
    "$bin/chunker_table" --write "$work/shapes" "$2" "$3"
    for shape in pak folder ucas zip; do
        old=$work/shapes/$shape/old new=$work/shapes/$shape/new row="$1 ${2##*/}:${3##*/} $shape"
        "$bin/leaf_diff" "$old" "$new" | awk -v row="$row" '{ print row, "ours", $1, $5, $6; print row, "bytes", $1 + $2 }' >> "$work/rows"
        for size in $ladder; do
            was=$work/$shape.$size.old now=$work/$shape.$size.new
            if [ -e "$now" ]; then mv "$now" "$was"; else casync_cut "$size" "$old" "$was"; fi
            casync_cut "$size" "$new" "$now"
            echo "$row $size $(compared "$was" "$now")" >> "$work/rows"
        done
        cp -R "$old" "$work/rsynced"
        rsynced=$(rsync -rI --delete --no-whole-file --stats "$new/" "$work/rsynced/" | sed -n 's/^Literal data: \([0-9,]*\).*/\1/p' | tr -d ,)
        rm -rf "$work/rsynced"
        tarred "$old" "$work/old.tar"
        tarred "$new" "$work/new.tar"
        zstd -q -f --long=27 --patch-from="$work/old.tar" "$work/new.tar" -o "$work/patch"
        echo "$row others $rsynced $(wc -c < "$work/patch")" >> "$work/rows"
    done
}

for game in minecraft arcade; do
    rm -f "$work"/*.new "$work"/*.old
    case $game in minecraft) data=$minecraft ;; *) data=$arcade ;; esac
    before=
    for version in $(ls "$data" | grep '^[0-9]' | sort -V); do
        if [ -n "$before" ] && ! diff -rq "$data/$before" "$data/$version" > /dev/null; then
            pair $game "$data/$before" "$data/$version"
        fi
        before=$version
    done
done

awk -v ladder="$ladder" '
# equal(KEY, SHAPE): what casync fetches at our average
function equal(key, shape,    i, n, x, y, sx, sy, sxx, sxy, slope, at) {
    for (i = 1; i <= steps; i++) {
        at = key SUBSEP shape SUBSEP size[i]
        x = log(cut[at] / chunks[at] / average(key, shape))
        y = log(fetched[at])
        n++; sx += x; sy += y; sxx += x * x; sxy += x * y
    }
    slope = (n * sxy - sx * sy) / (n * sxx - sx * sx)
    return exp((sy - slope * sx) / n)
}
function average(key, shape) { return cut[key, shape, "ours"] / chunks[key, shape, "ours"] }
function ratio(key, shape) { return fetched[key, shape, "ours"] / equal(key, shape) }
function add(to, from, shape, sign,    i, at) {
    for (i = 0; i <= steps; i++) {
        at = i ? size[i] : "ours"
        fetched[to, shape, at] += sign * fetched[from, shape, at]
        cut[to, shape, at] += sign * cut[from, shape, at]
        chunks[to, shape, at] += sign * chunks[from, shape, at]
    }
}
function line(game, name, key, shape) {
    printf "| %s | %s | %s | %d | %d | %d | %d | %d | %d | %d | %.3f |\n", game, name, shape, bytes[key, shape], fetched[key, shape, "ours"],
        average(key, shape), equal(key, shape), fetched[key, shape, 65536], rsynced[key, shape], patch[key, shape], ratio(key, shape)
}
BEGIN { steps = split(ladder, size, " ") }
{
    key = $1 " " $2
    if (!(key in game)) { keys[++pairs] = key; game[key] = $1; name[key] = $2 }
    if (!($3 in known)) { shapes[++kinds] = $3; known[$3] }
    n = split(key "\n" $1 "\nall", into, "\n")
    for (i = 1; i <= n; i++) {
        if ($4 == "bytes") bytes[into[i], $3] += $5
        else if ($4 == "others") { rsynced[into[i], $3] += $5; patch[into[i], $3] += $6 }
        else { fetched[into[i], $3, $4] += $5; cut[into[i], $3, $4] += $6; chunks[into[i], $3, $4] += $7 }
    }
}
END {
    print "| game | pair | shape | bytes | leaves | our average | casync = | casync 64 | rsync | zstd | ratio |"
    print "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for (i = 1; i <= pairs; i++)
        for (j = 1; j <= kinds; j++) line(game[keys[i]], name[keys[i]], keys[i], shapes[j])
    split("minecraft arcade all", groups, " ")
    for (g = 1; g <= 3; g++)
        for (j = 1; j <= kinds; j++) line(groups[g], "**all**", groups[g], shapes[j])
    print "\n| game | shape | pairs | ratio | standard error | single pairs: least | median | most |"
    print "|---|---|--:|--:|--:|--:|--:|--:|"
    for (g = 1; g <= 3; g++)
        for (j = 1; j <= kinds; j++) {
            group = groups[g]; shape = shapes[j]; n = sum = squares = 0
            for (i = 1; i <= pairs; i++) {
                if (group != "all" && game[keys[i]] != group) continue
                single = ratio(keys[i], shape)
                for (at = n++; at > 0 && sorted[at] > single; at--) sorted[at + 1] = sorted[at]
                sorted[at + 1] = single
                add(group, keys[i], shape, -1)
                without = ratio(group, shape)
                add(group, keys[i], shape, 1)
                sum += without; squares += without * without
            }
            together = ratio(group, shape)
            printf "| %s | %s | %d | %.3f | %.3f | %.3f | %.3f | %.3f |\n", group, shape, n, together, sqrt((n - 1) * (squares / n - sum * sum / n / n)),
                sorted[1], sorted[int((n + 1) / 2)], sorted[n]
            if (group == "all" && together > 1) { print shape ": more than casync at an equal average" > "/dev/stderr"; failed = 1 }
        }
    exit failed
}' "$work/rows"
