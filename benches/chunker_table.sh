#!/bin/sh
# Chooses the chunker's average: fetches npm's `minecraft-assets`, which holds the assets of many versions of a game, and measures
# what each average costs from one version to the next. Needs npm and tar. The table is in docs/FORMAT.md.
#
#   benches/chunker_table.sh [cache directory]
set -eu
cd "$(dirname "$0")/.."
cache=${1:-target/chunker-table}
package=minecraft-assets@1.19.0
data=$cache/package/minecraft-assets/data

mkdir -p "$cache"
if [ ! -d "$data" ]; then
    (cd "$cache" && npm pack --silent "$package" && tar xzf minecraft-assets-*.tgz)
fi

set --
for pair in 1.8.8:1.9 1.12:1.13 1.16.1:1.16.4 1.18.1:1.19.1 1.20.2:1.21.1 1.21.4:1.21.11; do
    set -- "$@" "$data/${pair%:*}" "$data/${pair#*:}"
done
exec cargo run --quiet -p modswarm-protocol --release --example chunker_table -- "$@"
