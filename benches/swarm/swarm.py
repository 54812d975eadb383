#!/usr/bin/env python3
"""How near a swarm on shaped links comes to the least possible time.

    sudo benches/swarm/swarm.py [--scene NAME]... [--mib 128] [--runs 3] [--tool modswarm]... [--binary target/release/modswarm]

Every host is a network namespace of its own around one bridge; tc shapes its link both ways (htb), and delays and loses frames where the kernel
has netem (else it says so, and the round trip is nearly nothing). Needs root, Linux, iproute2 and Python 3.10. `--tool modswarm-tcp` is
modswarm where UDP is blocked; `--tool libtorrent` needs `pip install libtorrent`. All traffic stays between the namespaces, which are gone when it ends, however it ends.

For F bytes from seeds with uploads u_s to N downloaders with uploads u_i and downloads d_i nobody can be done before
T_min = max(F / sum u_s, F / min d, N F / (sum u_s + sum u_i)) (Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution Time", 2006).
eta = T_min / T, with T from starting the downloaders' programs, while the seeds listen, until the last says that all its files are in their places.
Rates count whole frames with preamble and gap, so that full frames of TCP leave at most 0.94.

Columns: eta; T of the last downloader and of the median one, and their ratio; payload the seeds sent, in packs, by what left their links; what all sent
for each byte that had to arrive; of it payload of TCP or UDP beyond the content (encryption, framing, acknowledgements of QUIC, control, what came twice or was
sent twice), in percent;
leaf bytes that came in vain, in percent, as the programs say; CPU of all programs in s/GiB delivered; peak memory of the largest.
"""

import sys

sys.dont_write_bytecode = True  # no trace of a run as root stays in the sources

import argparse
import filecmp
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

from net import Link, Net, cpu_seconds, kernel_has, peak_mib, stop
from tools import TOOLS

# Seconds after which a run is given up, at the least, and as a multiple of the least possible time.
PATIENCE, PATIENCE_TIMES = 60, 8


class Scene:
    def __init__(self, about, seeds, getters):
        self.about, self.seeds, self.getters = about, seeds, getters

    def least_seconds(self, size):
        """Kumar and Ross."""
        bits = size * 8 / 1e6
        seeds = sum(link.up for link in self.seeds)
        peers = sum(link.up for link in self.getters)
        slowest = min(link.down for link in self.getters)
        return max(bits / seeds, bits / slowest, len(self.getters) * bits / (seeds + peers))


def mixed(seed, delays=(5, 80), loss=0.0):
    """One seed and eight downloaders, rates and delays drawn by lot, as homes have them."""
    lot = random.Random(seed)

    def home():
        up, down = lot.choice([(5, 25), (10, 50), (20, 100), (40, 100), (50, 50)])
        return Link(up, down, lot.uniform(*delays), loss)

    return [Link(40, 100, lot.uniform(*delays), loss)], [home() for _ in range(8)]


SCENES = {
    "fanin": Scene("four seeds of 50 Mbit/s, one downloader of 400", [Link(50, 200, 15)] * 4, [Link(50, 400, 15)]),
    "aggregate": Scene("a seed of 100, eight of 10 up / 100 down", [Link(100, 100, 15)], [Link(10, 100, 15)] * 8),
    "seedlimited": Scene("a seed of 20, eight of 20 / 100", [Link(20, 100, 15)], [Link(20, 100, 15)] * 8),
    "equal": Scene("a seed of 50, twelve of 50 / 50", [Link(50, 50, 15)], [Link(50, 50, 15)] * 12),
    "far": Scene("a seed of 50, four of 20 / 100, 300 ms apart", [Link(50, 100, 75)], [Link(20, 100, 75)] * 4),
    "mixed": Scene("a seed of 40, eight of mixed rates and delays", *mixed(1)),
    "lossy": Scene("as mixed, and every frame is lost with 0.5 %", *mixed(1, loss=0.5)),
}


def write_content(folder, mib):
    """A folder of mods: many small files, some large. The same for the same size."""
    lot, left, number = random.Random(7), mib << 20, 0
    while left > 0:
        length = min(left, lot.choice([40_000, 300_000, 2_000_000, 16_000_000, 60_000_000]))
        path = folder / f"mod{number % 7}" / f"asset{number:04}.pak"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lot.randbytes(length))
        left, number = left - length, number + 1


def differences(a, b):
    """Paths below `a` that are not the same byte for byte below `b`, and those only below `b`."""
    of = lambda top: {path.relative_to(top) for path in Path(top).rglob("*") if path.is_file()}
    left, right = of(a), of(b)
    return sorted((left ^ right) | {p for p in left & right if not filecmp.cmp(a / p, b / p, shallow=False)})


class Result:
    """One run."""

    def __init__(self, scene, tool, size, seconds, sent, seeds, gets, processes, idle):
        self.least = scene.least_seconds(size)
        self.complete = len(seconds) == len(scene.getters)
        self.last = max(seconds) if self.complete else float("inf")
        self.median = statistics.median(seconds) if seconds else float("inf")
        wanted = size * len(scene.getters)
        payload = [octets - frames * tool.HEADER_BYTES for octets, frames in sent]
        self.eta = self.least / self.last
        self.seed_packs = sum(payload[:seeds]) / size
        self.sent = sum(octets for octets, _ in sent) / wanted
        self.overhead = 100 * (sum(payload) / wanted - 1)
        fetched = sum(get.figures.get("fetched", 0) for get in gets)
        self.wasted = 100 * sum(get.figures.get("wasted", 0) for get in gets) / fetched if fetched else None
        self.cpu = (sum(map(cpu_seconds, processes)) - idle) / (wanted / (1 << 30))
        self.peak = max(map(peak_mib, processes))
        self.wrong = []


def run(scene, tool, work, pack, size, binary, netem):
    """One swarm from start to end."""
    net, processes, adapter = None, [], None
    seeds = len(scene.seeds)
    try:
        net = Net(scene.seeds + scene.getters, netem)
        adapter = tool(net, work, pack, binary)
        for host in range(seeds):
            processes.append(adapter.seed(host))
        time.sleep(tool.SETTLE)
        hosts = range(seeds, seeds + len(scene.getters))
        outs = {host: work / f"out{host}" for host in hosts}
        for host, out in outs.items():
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(work / f"home{host}", ignore_errors=True)
            out.mkdir()
        before = [net.counters(host) for host in range(len(net.links))]
        idle = sum(map(cpu_seconds, processes))
        started, gets = time.monotonic(), []
        for host, out in outs.items():
            gets.append(adapter.get(host, out))
            processes.append(gets[-1].process)
        limit = started + PATIENCE + PATIENCE_TIMES * scene.least_seconds(size)
        while any(get.done is None and get.process.poll() is None for get in gets) and time.monotonic() < limit:
            time.sleep(0.02)
        after = [net.counters(host) for host in range(len(net.links))]
        sent = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(after, before)]
        seconds = [get.done - started for get in gets if get.done is not None]
        result = Result(scene, tool, size, seconds, sent, seeds, gets, processes, idle)
        for get, out in zip(gets, outs.values()):
            if get.done is not None:
                result.wrong += differences(pack, out / pack.name)
        return result
    finally:
        stop(processes)
        if adapter:
            adapter.close()
        if net:
            net.close()


HEADING = """\
| scene | program | eta | last s | median s | last/median | least s | seeds sent | all sent | over payload % | in vain % | CPU s/GiB | peak MiB |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def row(scene, tool, results):
    middle = lambda pick: statistics.median(pick(result) for result in results)
    etas = [result.eta for result in results]
    spread = f" ({min(etas):.2f}-{max(etas):.2f})" if len(etas) > 1 else ""
    vain = "" if any(result.wasted is None for result in results) else f"{middle(lambda r: r.wasted):.2f}"
    cells = [
        scene, tool, f"{middle(lambda r: r.eta):.3f}{spread}", f"{middle(lambda r: r.last):.1f}", f"{middle(lambda r: r.median):.1f}",
        f"{middle(lambda r: r.last / r.median):.2f}", f"{results[0].least:.1f}", f"{middle(lambda r: r.seed_packs):.2f}",
        f"{middle(lambda r: r.sent):.3f}", f"{middle(lambda r: r.overhead):.2f}", vain, f"{middle(lambda r: r.cpu):.1f}",
        f"{max(r.peak for r in results)}",
    ]
    return "| " + " | ".join(cells) + " |"


def arguments():
    top = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", action="append", choices=SCENES, help="which swarm; may be given several times (default: all)")
    parser.add_argument("--mib", type=int, default=128, help="how large the pack is (default: 128)")
    parser.add_argument("--runs", type=int, default=1, help="how often each; medians are printed (default: 1)")
    parser.add_argument("--tool", action="append", choices=TOOLS, help="which program (default: modswarm)")
    parser.add_argument("--binary", type=Path, default=top / "target/release/modswarm", help="the modswarm to measure")
    return parser.parse_args()


def main():
    asked = arguments()
    if os.geteuid() != 0:
        sys.exit("swarm.py makes network namespaces and shapes their links, which needs root: run it with sudo")
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: it comes with iproute2")
    if not kernel_has("htb"):
        sys.exit("this kernel has no htb to shape links with (CONFIG_NET_SCH_HTB)")
    tools = asked.tool or ["modswarm"]
    if "modswarm" in tools and not asked.binary.is_file():
        sys.exit(f"{asked.binary} is not there: run `cargo build --release` first, or name another with --binary")
    netem = kernel_has("netem")
    if not netem:
        print("This kernel has no netem: links are shaped, but not delayed, and lose nothing.", file=sys.stderr)
    names = asked.scene or list(SCENES)
    print(f"{asked.mib} MiB, medians of {asked.runs}; {'with' if netem else 'WITHOUT'} delay and loss\n\n{HEADING}", flush=True)
    wrong = False
    with tempfile.TemporaryDirectory(prefix="modswarm-swarm-") as top:
        pack = Path(top) / "content" / "pack"
        pack.mkdir(parents=True)
        write_content(pack, asked.mib)
        size = sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())
        for name in names:
            for tool in tools:
                results = []
                for turn in range(asked.runs):
                    work = Path(top) / f"{name}-{tool}-{turn}"
                    work.mkdir()
                    results.append(run(SCENES[name], TOOLS[tool], work, pack, size, str(asked.binary), netem))
                    print(f"{name} {tool}: {results[-1].last:.2f} s", file=sys.stderr)
                    if results[-1].wrong or not results[-1].complete:
                        wrong = True
                        what = f"these files differ: {results[-1].wrong[:5]}" if results[-1].wrong else "not everyone ended in time"
                        print(f"{name} {tool}: {what}", file=sys.stderr)
                    shutil.rmtree(work)
                print(row(name, tool, results), flush=True)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    # Ending by a signal runs the same clean-up as ending by an error.
    for ending in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    main()
