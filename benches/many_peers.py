#!/usr/bin/env python3
"""What many peers at once cost a seed: processor time and memory.

A seed shares as many packs as there are peers, each of noise of its own, so that no peer can get anything from another, at an upload limit over all. Every
peer is a process that gets one pack over loopback TCP. From when the last of them has begun until the first is done, the seed's processor time, its rate
and its peak memory are measured. The same is then done with one peer and one pack as large as all of them: what that costs a byte is encryption,
hashing, reading and the sockets, and the rest is what many peers cost.

    benches/many_peers.py [PEERS [MB a second [MiB a peer]]]      (40, 50, 16; needs 2.1 times PEERS x MiB in TMPDIR, and 40 MB of memory a peer)

Every peer is a whole node that knows all others through the DHT of the private network, and keeps a connection to each: two hundred of them keep two cores
busy with that alone.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = os.path.abspath(os.environ.get("MODSWARM", "target/release/modswarm"))
PEERS, RATE, MIB = (int(sys.argv[i + 1]) if len(sys.argv) > i + 1 else known for i, known in enumerate([40, 50, 16]))
TICKS = os.sysconf("SC_CLK_TCK")


def start(home, *args):
    env = {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "MODSWARM_HOME": home + "/home",
        "MODSWARM_NETWORK": "private",
        "MODSWARM_LISTEN": "/ip4/127.0.0.1/tcp/0",
    }
    command = [PROGRAM, *args, "--json"]
    return subprocess.Popen(command, env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def event(process, name):
    for line in process.stdout:
        value = json.loads(line)
        if value.get("event") == name or name in value:
            return value
    raise RuntimeError(f"a process ended without {name!r}")


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak(pid):
    status = open(f"/proc/{pid}/status").read().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


class Peer:
    """A get, and how far it has come."""

    def __init__(self, home, link):
        os.makedirs(home)
        self.done, self.complete, self.began = 0, threading.Event(), threading.Event()
        self.process = start(home, "get", link, "--no-seed", "-o", home + "/got")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            value = json.loads(line)
            if value.get("stage") == "downloading":
                self.done = value["bytes_done"]
                self.began.set()
            if value.get("event") == "complete":
                self.complete.set()
        self.began.set()
        if not self.complete.is_set():
            print("a get ended too soon", file=sys.stderr)
        self.complete.set()


def run(work, peers, mib):
    """Processor seconds, bytes and seconds while all peers were served, and the seed's peak memory in MiB."""
    os.makedirs(work)
    noise = random.Random(peers)
    for i in range(peers):
        os.makedirs(f"{work}/pack {i}")
        with open(f"{work}/pack {i}/file", "wb") as file:
            for _ in range(mib):
                file.write(noise.randbytes(1 << 20))
    seed = start(work, "share", "--no-qr", "--upload-limit", f"{RATE}MB/s", f"{work}/pack 0")
    links = [event(seed, "link")["link"]]
    threading.Thread(target=seed.stdout.read, daemon=True).start()
    for i in range(1, peers):
        client = start(work, "share", "--no-qr", f"{work}/pack {i}")
        links.append(event(client, "link")["link"])
        client.kill()
        client.wait()
    gets = []
    try:
        gets = [Peer(f"{work}/peer {i}", link) for i, link in enumerate(links)]
        for get in gets:
            get.began.wait()
        before, begun, from_cpu = sum(get.done for get in gets), time.monotonic(), cpu(seed.pid)
        while not any(get.complete.is_set() for get in gets) and time.monotonic() - begun < 600:
            time.sleep(0.05)
        used, took, bytes_sent = cpu(seed.pid) - from_cpu, time.monotonic() - begun, sum(get.done for get in gets) - before
        for get in gets:
            get.complete.wait(600)
        return used, bytes_sent, took, peak(seed.pid)
    finally:
        for process in [get.process for get in gets] + [seed]:
            process.kill()
            process.wait()
        shutil.rmtree(work)


def main():
    with tempfile.TemporaryDirectory() as work:
        rows = [(PEERS, run(work + "/many", PEERS, MIB)), (1, run(work + "/one", 1, PEERS * MIB))]
    print("| peers | MB/s | seed's cores | CPU s/GB | peak MiB |\n|--:|--:|--:|--:|--:|")
    for peers, (used, bytes_sent, took, memory) in rows:
        print(f"| {peers} | {bytes_sent / took / 1e6:.1f} | {used / took:.3f} | {used / bytes_sent * 1e9:.2f} | {memory:.0f} |")
    (used, bytes_sent, took, _), (one_used, one_bytes, _, _) = rows[0][1], rows[1][1]
    print(f"\nbeyond what one peer costs a byte: {(used - one_used / one_bytes * bytes_sent) / took:.3f} cores")


main()
