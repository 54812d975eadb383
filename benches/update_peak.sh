#!/usr/bin/env bash
# The disk that an update takes at its worst moment: no more than version 1, the bytes that are fetched, and the largest changed file.
#
#   benches/update_peak.sh [MIB]      (512 if nothing is said; needs four times that room in TMPDIR, and python3)
#
# Shares a pack of sixteen files of different sizes, gets it, changes it (bytes put into the largest and into two others, one file new, one renamed, one
# gone), shares and gets it again to the same folder, and meanwhile adds up all that the folder, the staged files beside it and the getter's home take, every
# few milliseconds. Fails if the most of it is over the bound by more than the index may take. A file system that shares blocks takes less than what is counted
# here. Everything stays on 127.0.0.1.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet
exec python3 - "${1:-512}" "$PWD/target/release/modswarm" <<'PYTHON'
import json, os, pathlib, random, shutil, subprocess, sys, tempfile, threading, time

size, program = int(sys.argv[1]) << 20, sys.argv[2]
top = pathlib.Path(tempfile.mkdtemp(prefix="modswarm-update-peak-"))
# Rows of the index and its log, of pieces that are there once more while they are staged.
INDEX = 4 << 20
MIB = 1 << 20

def env(name):
    return dict(os.environ, MODSWARM_HOME=str(top / name), MODSWARM_NETWORK="private", MODSWARM_LISTEN="/ip4/127.0.0.1/tcp/0")

def start(args, name):
    return subprocess.Popen([program, *args, "--json"], env=env(name), cwd=top, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

def taken(paths):
    """Bytes of all files below; each once, whatever names it has."""
    seen, waiting = {}, list(paths)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        seen[status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            pass
    return sum(seen.values())

def write(path, noise, length):
    with open(path, "wb") as file:
        while length > 0:
            step = min(length, MIB)
            file.write(noise.randbytes(step))
            length -= step

def insert(path, at, noise, length):
    """Puts bytes into the middle of a file, so that all behind them lie elsewhere."""
    old = path.with_suffix(".old")
    path.rename(old)
    with open(old, "rb") as source, open(path, "wb") as target:
        left = at
        while left > 0:
            bytes = source.read(min(left, MIB))
            target.write(bytes)
            left -= len(bytes)
        target.write(noise.randbytes(length))
        shutil.copyfileobj(source, target, MIB)
    old.unlink()

class Share:
    def __init__(self):
        self.process = start(["share", str(top / "pack")], "seed")
        for line in self.process.stdout:
            event = json.loads(line)
            if "link" in event:
                self.link = event["link"]
                break

    def __enter__(self):
        return self.link

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

def get(link):
    process = start(["get", link, "-o", str(top / "disk"), "--no-seed"], "disk/home")
    last = None
    for line in process.stdout:
        last = json.loads(line)
    assert process.wait() == 0, last
    return last

try:
    noise = random.Random(1)
    (top / "disk").mkdir()
    pack = top / "pack"
    pack.mkdir()
    # The largest is a quarter of all.
    parts = [16, 8, 8, 4, 4, 4, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1]
    for number, part in enumerate(parts):
        write(pack / f"{number}.pak", noise, size * part // sum(parts))
    with Share() as link:
        get(link)
    before = taken([top / "disk"])

    insert(pack / "0.pak", MIB, noise, MIB)
    insert(pack / "1.pak", size // 32, noise, 3 * MIB)
    insert(pack / "8.pak", 100_000, noise, 50_000)
    write(pack / "new.pak", noise, size // 64)
    (pack / "3.pak").rename(pack / "renamed.pak")
    (pack / "12.pak").unlink()
    changed = max((pack / name).stat().st_size for name in ["0.pak", "1.pak", "8.pak"])

    most, looks, done = 0, 0, threading.Event()
    def watch():
        global most, looks
        while not done.is_set():
            most = max(most, taken([top / "disk"]))
            looks += 1
            time.sleep(0.002)
    with Share() as link:
        watcher = threading.Thread(target=watch)
        watcher.start()
        complete = get(link)
        done.set()
        watcher.join()
    after = taken([top / "disk"])
    fetched = complete["bytes_fetched"] + complete["bytes_skeleton"]
    bound = before + fetched + changed
    for name in os.listdir(pack):
        assert (pack / name).read_bytes() == (top / "disk/pack" / name).read_bytes(), name
    print(f"before {before / MIB:.1f} MiB, fetched {fetched / MIB:.1f} MiB, largest changed file {changed / MIB:.1f} MiB: at most {bound / MIB:.1f} MiB")
    print(f"peak {most / MIB:.1f} MiB ({most / bound:.3f} of that, {looks} looks), after {after / MIB:.1f} MiB")
    sys.exit(most > bound + INDEX)
finally:
    shutil.rmtree(top, ignore_errors=True)
PYTHON
