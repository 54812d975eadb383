#!/bin/sh
# Times `share` beside libtorrent making a torrent of the same files, in page cache, in turns, and prints medians, ratios and the best of
# each: share uses all cores, so that other work on them tells more on it. libtorrent comes from
# PyPI (the newest, into the cache directory); it is asked for v1, v2 and hybrid torrents with pieces of 1 MiB,
# with its binding's default settings (set_piece_hashes). v2 is the like of what share does: a
# hash for every 16 KiB of every file, and no piece across files. Needs python3 with venv.
#
#   benches/share_compare.sh [cache directory]      MODSWARM_BENCH_MIB (1024), MODSWARM_BENCH_RUNS (5)
set -eu
cd "$(dirname "$0")/.."
cache=${1:-target/share-compare}
mib=${MODSWARM_BENCH_MIB:-1024} runs=${MODSWARM_BENCH_RUNS:-5}
mkdir -p "$cache"
if [ ! -x "$cache/venv/bin/python" ]; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet libtorrent
fi
cargo bench --quiet -p modswarm-store --bench share --no-run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cache/venv/bin/python" - "$work" "$mib" "$runs" <<'PYTHON'
import os, re, statistics, subprocess, sys, time
import libtorrent as lt

work, mib, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def make(kind, root):
    files = lt.file_storage()
    lt.add_files(files, root)
    flags = {"v1": lt.create_torrent.v1_only, "v2": lt.create_torrent.v2_only, "hybrid": 0}[kind]
    torrent = lt.create_torrent(files, 1 << 20, flags)
    begun = time.monotonic()
    lt.set_piece_hashes(torrent, os.path.dirname(root))
    torrent.generate()
    return time.monotonic() - begun

def share(root):
    env = dict(os.environ, MODSWARM_BENCH_SCENE="share", MODSWARM_BENCH_ROOT=root, MODSWARM_BENCH_RUNS="1")
    out = subprocess.run(["cargo", "bench", "--quiet", "-p", "modswarm-store", "--bench", "share"],
                         env=env, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"share: ([0-9.]+) s", out).group(1))

print(f"libtorrent {lt.__version__}, {os.cpu_count()} cores, {mib} MiB, medians of {runs}, load {os.getloadavg()[0]:.1f}")
print("| files | share | libtorrent v2 | libtorrent hybrid | libtorrent v1 | share is times v2 | best share, best v2 |")
print("|---|--:|--:|--:|--:|--:|--:|")
for name, count, size in [("1 MiB each", mib, 1), ("one", 1, mib)]:
    root = os.path.join(work, "files", name.replace(" ", ""))
    os.makedirs(root)
    for n in range(count):
        with open(os.path.join(root, str(n)), "wb") as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
    times = {}
    for _ in range(runs):
        times.setdefault("share", []).append(share(root))
        for kind in ["v2", "hybrid", "v1"]:
            times.setdefault(kind, []).append(make(kind, root))
    rate = {key: mib / 1024 / statistics.median(value) for key, value in times.items()}
    best = {key: mib / 1024 / min(value) for key, value in times.items()}
    cells = " | ".join(f"{rate[key]:.2f} GiB/s" for key in ["share", "v2", "hybrid", "v1"])
    print(f"| {name} | {cells} | {rate['share'] / rate['v2']:.2f} | {best['share']:.2f}, {best['v2']:.2f}: {best['share'] / best['v2']:.2f} |", flush=True)
PYTHON
