#!/usr/bin/env bash
# One large get over loopback: what it takes of the disk and of memory, and how soon it goes on after kill -9.
#
#   benches/long_get.sh [GIB] [SEEDS]      (10 GiB of one seed if nothing is said; needs 2.1 x that room in TMPDIR, and python3)
#
# Prints: disk of share and get over the pack's bytes, peak memory of both ends, the rate, and the seconds from start to the first new blocks of five
# resumptions, each after kill -9 at about half. Everything stays on 127.0.0.1.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet
exec python3 - "${1:-10}" "${2:-1}" "$PWD/target/release/modswarm" <<'PYTHON'
import json, os, pathlib, random, shutil, signal, statistics, subprocess, sys, tempfile, time

gib, seed_count, program = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
top = pathlib.Path(tempfile.mkdtemp(prefix="modswarm-long-get-"))
size = int(gib * (1 << 30))

def env(name):
    return dict(os.environ, MODSWARM_HOME=str(top / name), MODSWARM_NETWORK="private", MODSWARM_LISTEN="/ip4/127.0.0.1/tcp/0")

def disk(path):
    return sum(p.lstat().st_blocks * 512 for p in [path, *path.rglob("*")])

def peak(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024

def start(args, name):
    return subprocess.Popen([program, *args, "--json"], env=env(name), cwd=top, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

def events(process):
    for line in process.stdout:
        yield json.loads(line)

def get(link):
    return start(["get", link, "-o", str(top / "got"), "--no-seed"], "getter")

seeds = []
try:
    pack = top / "pack"
    pack.mkdir()
    noise = random.Random(1)
    files = max(1, size // (1 << 30))
    for number in range(files):
        with open(pack / f"{number}.pak", "wb") as file:
            for _ in range(size // files >> 20):
                file.write(noise.randbytes(1 << 20))
    before = disk(top / "pack")
    began = time.time()
    seed = start(["share", str(pack)], "seed")
    seeds.append(seed)
    link = next(events(seed))["link"]
    print(f"share {time.time() - began:.1f} s, disk {1 + disk(top / 'seed') / size:.4f} x, peak {peak(seed.pid)} MB", flush=True)
    for number in range(1, seed_count):
        seeds.append(start(["share", str(pack)], f"seed{number}"))
        query = next(events(seeds[-1]))["link"].split("?", 1)[1]
        link += "".join(f"&{part}" for part in query.split("&") if part.startswith("a="))

    resumed = []
    for _ in range(5):
        process = get(link)
        began, first, start_done = time.time(), None, None
        for event in events(process):
            done, total = event.get("bytes_done", 0), event.get("bytes_total", 0)
            # Once it is known what is here already.
            start_done = event.get("bytes_here", start_done)
            if event.get("stage") not in ("connecting", "waiting", "downloading") or not total or start_done is None:
                continue
            if first is None and done > start_done:
                first = time.time() - began
            if done >= total * (0.4 + 0.05 * len(resumed)) and done > start_done + (64 << 20):
                break
        assert first is not None, f"get ended with {process.wait()}: {event}"
        resumed.append(first)
        process.send_signal(signal.SIGKILL)
        process.wait()
    print("first blocks after start: new {:.2f} s; after kill -9 {}; median {:.2f} s".format(
        resumed[0], " ".join(f"{s:.2f}" for s in resumed[1:]), statistics.median(resumed[1:])), flush=True)

    shutil.rmtree(top / "got", ignore_errors=True)
    for stage in top.glob("*.modswarm*"):
        shutil.rmtree(stage, ignore_errors=True)
    shutil.rmtree(top / "getter")
    began = time.time()
    process = get(link)
    most = 0
    for event in events(process):
        try:
            most = peak(process.pid) or most
        except OSError:
            pass
    took = time.time() - began
    assert process.wait() == 0
    print(f"get {took:.1f} s, {size / took / (1 << 20):.0f} MiB/s, disk {(disk(top / 'got') + disk(top / 'getter')) / size:.4f} x, "
          f"peak of the getter {most} MB, of the seed {peak(seed.pid)} MB")
finally:
    for seed in seeds:
        seed.terminate()
        seed.wait()
    shutil.rmtree(top, ignore_errors=True)
PYTHON
