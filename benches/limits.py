#!/usr/bin/env python3
"""How exact and how smooth rate limits are on real sockets.

A seed and a getter on loopback, with a relay between them that notes when bytes pass from the seed to the getter. For every
case it prints the mean rate, the least and the most in any five seconds, and the longest burst: the most that passed in any
time, less what the limit gives in that time, as milliseconds of the limit. Bytes are those of TCP's payload: encryption and framing are
within them (about half a per cent).

    benches/limits.py [path of the program]
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/modswarm")
SECONDS = 20
# What is limited, and to how many bytes a second.
CASES = [
    ("upload", 100_000),
    ("upload", 200_000),
    ("upload", 1_000_000),
    ("upload", 10_000_000),
    ("upload of one pack", 1_000_000),
    ("download", 100_000),
    ("download", 200_000),
    ("download", 1_000_000),
    ("download", 10_000_000),
]


class Relay:
    """Passes one TCP connection on and notes what comes back when."""

    def __init__(self, port):
        self.to = port
        self.passed = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.to))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.copy, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.copy, args=(far, near, True), daemon=True).start()

    def copy(self, a, b, note):
        try:
            while data := a.recv(65536):
                if note:
                    self.passed.append((time.monotonic(), len(data)))
                b.sendall(data)
        except OSError:
            pass
        for one in (a, b):
            one.close()


def start(home, *args):
    env = {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "MODSWARM_HOME": home + "/home",
        "MODSWARM_NETWORK": "private",
        "MODSWARM_LISTEN": "/ip4/127.0.0.1/tcp/0",
    }
    return subprocess.Popen([PROGRAM, *args], env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def ask(home, *args):
    process = start(home, *args)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, (args, out)
    return out


def burst(passed, rate):
    """The most that any span is ahead of the rate, in milliseconds of it."""
    bucket, at, worst = 0.0, passed[0][0], 0.0
    for when, size in passed:
        bucket = max(0.0, bucket - (when - at) * rate) + size
        at, worst = when, max(worst, bucket)
    return worst / rate * 1000


def case(what, rate):
    with tempfile.TemporaryDirectory() as dir:
        a, b = dir + "/a", dir + "/b"
        os.makedirs(a + "/Pack")
        os.makedirs(b)
        with open(a + "/Pack/a.pak", "wb") as file:
            for _ in range(max(1, rate * SECONDS * 2 // 1_000_000)):
                file.write(os.urandom(1_000_000))
        limit = f"{rate}B/s"
        flags = ["--upload-limit", limit] if what == "upload" else []
        seed = start(a, "share", a + "/Pack", "--json", *flags)
        ready = json.loads(seed.stdout.readline())
        if what == "upload of one pack":
            ask(a, "limit", "Pack", "--up", limit)
        addr = next(addr for addr in ready["addrs"] if addr.startswith("/ip4/127.0.0.1/tcp/"))
        relay = Relay(int(addr.split("/")[4]))
        addr = f"/ip4/127.0.0.1/tcp/{relay.port}/p2p/{ready['peer_id']}"
        flags = ["--download-limit", limit] if what == "download" else []
        getter = start(b, "get", ready["content"], "--peer", addr, "--no-seed", *flags)
        time.sleep(SECONDS + 3)
        getter.kill()
        seed.kill()
        getter.wait()
        seed.wait()
        # Not the handshake, the list of files and the end.
        began = relay.passed[0][0] + 2
        passed = [(at, size) for at, size in relay.passed if began <= at < began + SECONDS]
        total = sum(size for _, size in passed)
        fives = []
        for i in range(SECONDS - 4):
            fives.append(sum(size for at, size in passed if began + i <= at < began + i + 5) / 5)
        mean = total / SECONDS
        print(
            f"{what:20} {rate / 1e6:6.2f} MB/s: mean {mean / rate * 100:6.2f} %, "
            f"5 s: {min(fives) / rate * 100:6.2f} to {max(fives) / rate * 100:6.2f} %, "
            f"longest burst {burst(passed, rate * 1.01):5.0f} ms",
            flush=True,
        )


for what, rate in CASES:
    case(what, rate)
