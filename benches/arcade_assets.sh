#!/bin/sh
# Fetches some versions of PyPI's `arcade`, whose resources are real games' images, sounds and maps, unless they are in the cache already,
# and prints the folder that holds a folder for each version. Needs python3 with pip.
#
#   benches/arcade_assets.sh [cache directory]
set -eu
cd "$(dirname "$0")/.."
cache=${1:-target/chunker-table}
data=$cache/arcade

mkdir -p "$data"
for version in 2.2.9 2.3.15 2.4.3 2.6.17 3.0.2 3.3.3; do
    [ -d "$data/$version" ] && continue
    rm -rf "$cache/wheel"
    pip download --quiet --no-deps --only-binary :all: --dest "$cache/wheel" "arcade==$version" >&2
    python3 -m zipfile -e "$cache"/wheel/arcade-*.whl "$cache/wheel"
    mv "$cache/wheel/arcade/resources" "$data/$version"
    rm -rf "$cache/wheel"
done
cd "$data"
pwd
