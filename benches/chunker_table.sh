#!/bin/sh
# Chooses the chunker's average: measures what each costs from one version of a game's assets to the next. The table is in
# docs/FORMAT.md.
#
#   benches/chunker_table.sh [cache directory]
set -eu
data=$("$(dirname "$0")/minecraft_assets.sh" "$@")
cd "$(dirname "$0")/.."

set --
for pair in 1.8.8:1.9 1.12:1.13 1.16.1:1.16.4 1.18.1:1.19.1 1.20.2:1.21.1 1.21.4:1.21.11; do
    set -- "$@" "$data/${pair%:*}" "$data/${pair#*:}"
done
exec cargo run --quiet -p modswarm-protocol --release --example chunker_table -- "$@"
