#!/bin/sh
# Fetches npm's `minecraft-assets`, which holds the assets of many versions of a game, unless it is in the cache already, and prints
# the folder that holds a folder for each version. Needs npm and tar.
#
#   benches/minecraft_assets.sh [cache directory]
set -eu
cd "$(dirname "$0")/.."
cache=${1:-target/chunker-table}
data=$cache/package/minecraft-assets/data

if [ ! -d "$data" ]; then
    mkdir -p "$cache"
    (cd "$cache" && npm pack --silent minecraft-assets@1.19.0 >&2 && tar xzf minecraft-assets-*.tgz)
fi
cd "$data"
pwd
