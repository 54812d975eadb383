"""Hosts in network namespaces around one bridge, every link shaped by tc in both directions.

Owns the namespaces of one bench run: nothing outside them is touched, and `close` takes them all away. Rates are of Ethernet frames with
preamble and gap, as on a real wire. Delay and loss are netem's, where the kernel has it.
"""

import json
import os
import signal
import subprocess
import time

# Preamble, frame check and gap, which a real wire spends on every frame.
WIRE_BYTES_PER_FRAME = 24
# Headers of one TCP segment with time stamps: Ethernet 14, IPv4 20, TCP 32.
HEADER_BYTES_PER_SEGMENT = 66
# Headers of one UDP datagram: Ethernet 14, IPv4 20, UDP 8.
HEADER_BYTES_PER_DATAGRAM = 42
FRAME_BYTES_MAX = 1514
# How much of a link's rate waits at it before frames are dropped.
QUEUE_MS = 100
# Of the range for benchmarks (RFC 2544): never on the internet.
SUBNET = "198.18.7"


def sh(command, check=True):
    """Runs a command line; what it printed."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{command}\n{done.stderr.strip()}")
    return done.stdout


def kernel_has(qdisc):
    """Whether this kernel knows a queueing discipline, tried in a namespace of its own."""
    ns = f"swarm-try-{os.getpid()}"
    sh(f"ip netns add {ns}")
    try:
        sh(f"ip -n {ns} link add try0 type veth peer name try1 && ip -n {ns} link set try0 up")
        options = {"netem": "netem delay 1ms", "htb": "htb default 1"}[qdisc]
        return subprocess.run(
            f"ip netns exec {ns} tc qdisc add dev try0 root {options}", shell=True, capture_output=True
        ).returncode == 0
    finally:
        sh(f"ip netns del {ns}", check=False)


class Link:
    """One host's way to the switch: Mbit/s up and down, one-way delay in ms, loss in percent."""

    def __init__(self, up, down, delay=0.0, loss=0.0):
        self.up, self.down, self.delay, self.loss = up, down, delay, loss


class Net:
    """The hosts, numbered from 0, each with its Link."""

    def __init__(self, links, netem):
        self.links = links
        self.prefix = f"swarm{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.made = []
        try:
            self._make_ns(self.switch)
            sh(f"ip -n {self.switch} link add br0 type bridge && ip -n {self.switch} link set br0 up")
            for host, link in enumerate(links):
                self._add_host(host, link, netem)
        except BaseException:
            self.close()
            raise

    def ns(self, host):
        return f"{self.prefix}-{host}"

    def ip(self, host):
        return f"{SUBNET}.{10 + host}"

    def _make_ns(self, name):
        sh(f"ip netns add {name}")
        self.made.append(name)

    def _add_host(self, host, link, netem):
        ns, port = self.ns(host), f"port{host}"
        self._make_ns(ns)
        sh(f"ip -n {self.switch} link add {port} type veth peer name eth0 netns {ns}")
        # Whole frames only: the shapers see what a wire would carry, not packets of 64 KiB that are cut later.
        for where, device in [(self.switch, port), (ns, "eth0")]:
            sh(f"ip -n {where} link set {device} gso_max_segs 1 gso_max_size {FRAME_BYTES_MAX}")
            sh(f"ip -n {where} link set {device} txqueuelen 1000 up")
        sh(f"ip -n {self.switch} link set {port} master br0")
        sh(f"ip -n {ns} link set lo up && ip -n {ns} addr add {self.ip(host)}/24 dev eth0 && ip -n {ns} route add default dev eth0")
        self._shape(ns, "eth0", link.up, link, netem)
        self._shape(self.switch, port, link.down, link, netem)

    def _shape(self, ns, device, mbit, link, netem):
        tc = f"ip netns exec {ns} tc"
        burst = max(3000, int(mbit * 1e6 / 8 / 250))
        sh(f"{tc} qdisc add dev {device} root handle 1: htb default 1")
        sh(
            f"{tc} class add dev {device} parent 1: classid 1:1 htb rate {mbit}mbit ceil {mbit}mbit "
            f"burst {burst} cburst {burst} overhead {WIRE_BYTES_PER_FRAME} linklayer ethernet"
        )
        queue_bytes = int(mbit * 1e6 / 8 * QUEUE_MS / 1000)
        if netem and (link.delay or link.loss):
            # Frames on their way count against netem's queue as well.
            in_flight = mbit * 1e6 / 8 * link.delay / 1000
            frames = int((queue_bytes + in_flight) / FRAME_BYTES_MAX) + 10
            loss = f"loss {link.loss}%" if link.loss else ""
            sh(f"{tc} qdisc add dev {device} parent 1:1 handle 10: netem limit {frames} delay {link.delay}ms {loss}")
        else:
            sh(f"{tc} qdisc add dev {device} parent 1:1 handle 10: bfifo limit {max(queue_bytes, 2 * FRAME_BYTES_MAX)}")

    def start(self, host, command, **options):
        """Starts a program on a host, in a process group of its own."""
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(["ip", "netns", "exec", self.ns(host), *command], start_new_session=True, **options)

    def counters(self, host):
        """What the host has sent: (bytes, frames), Ethernet headers counted."""
        shown = json.loads(sh(f"ip -n {self.ns(host)} -j -s link show eth0"))[0]["stats64"]["tx"]
        return shown["bytes"], shown["packets"]

    def close(self):
        for name in reversed(self.made):
            sh(f"ip netns del {name}", check=False)
        self.made = []


def stop(processes, patience=10.0):
    """Ends programs that `Net.start` started, and all that they started."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    until = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process, which):
    try:
        os.killpg(process.pid, which)
    except ProcessLookupError:
        pass


def _tree(pid):
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    todo += [int(child) for child in children.read().split()]
        except OSError:
            pass
    return found


def cpu_seconds(process):
    """CPU time of a program and of all that it started."""
    ticks = 0
    for pid in _tree(process.pid):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(process):
    """Peak resident memory of the largest of a program's processes."""
    peak = 0
    for pid in _tree(process.pid):
        try:
            with open(f"/proc/{pid}/status") as status:
                peak = max([peak] + [int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")])
        except OSError:
            pass
    return peak
