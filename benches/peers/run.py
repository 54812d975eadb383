"""Runs each tool in turn, and prints a table: see run.sh."""

import filecmp, http.server, os, pathlib, random, re, shutil, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.parse

import libtorrent as lt

program, binaries, tools = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
MIB = int(os.environ.get("MODSWARM_BENCH_MIB", 1024))
RUNS = int(os.environ.get("MODSWARM_BENCH_RUNS", 5))
FILES = 4
PATIENCE = 300
top = pathlib.Path(tempfile.mkdtemp(prefix="modswarm-peers-"))
pack = top / "content" / "pack"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Tracker(http.server.BaseHTTPRequestHandler):
    """As much of a BitTorrent tracker as two clients need to meet."""

    peers = {}

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query, encoding="latin-1")
        port = int(query["port"][0])
        others = [p for p in self.peers if p != port]
        self.peers[port] = True
        compact = b"".join(bytes([127, 0, 0, 1]) + p.to_bytes(2, "big") for p in others)
        body = b"d8:intervali5e12:min intervali1e5:peers%d:%se" % (len(compact), compact)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def make_torrent(tracker):
    storage = lt.file_storage()
    lt.add_files(storage, str(pack))
    torrent = lt.create_torrent(storage, 1 << 20, lt.create_torrent.v1_only)
    torrent.add_tracker(tracker)
    lt.set_piece_hashes(torrent, str(pack.parent))
    path = top / "pack.torrent"
    path.write_bytes(lt.bencode(torrent.generate()))
    return path


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(process, pattern):
    """The first match in what the process prints; it goes on being read."""
    found = {}
    event = threading.Event()

    def read():
        for line in process.stdout:
            match = re.search(pattern, line)
            if match and not found:
                found["match"] = match
                event.set()
        event.set()

    threading.Thread(target=read, daemon=True).start()
    if not event.wait(60) or not found:
        raise RuntimeError(f"{process.args[0]} did not begin to serve")
    return found["match"]


def start(args, **more):
    env = dict(os.environ, **more.pop("env", {}))
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=top, **more)


# Each tool: how to start the serving end (a process, and what the fetching end needs to know), and the command that fetches into `out`.


def modswarm_env(name):
    return {"MODSWARM_HOME": str(top / name), "MODSWARM_NETWORK": "private", "MODSWARM_LISTEN": "/ip4/127.0.0.1/tcp/0"}


def modswarm_seed(_):
    seed = start([program, "share", str(pack), "--json"], env=modswarm_env("seed"))
    return seed, wait_for(seed, r'"link": *"([^"]+)"')[1]


def modswarm_get(link, out):
    return [program, "get", link, "-o", str(out), "--no-seed", "--json"], modswarm_env("getter")


RQBIT = ["--disable-dht", "--disable-lsd", "--disable-upnp-port-forward", "--disable-trackers"]


def rqbit_seed(torrent):
    port = free_port()
    rqbit = [str(binaries / "rqbit"), "-v", "info", *RQBIT, "--listen-ip", "127.0.0.1", "--listen-port", str(port)]
    seed = start([*rqbit, "download", str(torrent), "-o", str(pack.parent), "--overwrite", "--disable-http-api"])
    # It has hashed what it is to serve.
    wait_for(seed, r"\]: 100")
    return seed, (torrent, port)


def rqbit_get(at, out):
    torrent, port = at
    args = [str(binaries / "rqbit"), *RQBIT, "--disable-tcp-listen", "download", str(torrent), "-o", str(out), "-e", "--disable-http-api"]
    return [*args, "--initial-peers", f"127.0.0.1:{port}"], {}


def sendme_seed(_):
    seed = start([str(binaries / "sendme"), "send", "--relay", "disabled", str(pack)], stdin=subprocess.PIPE)
    return seed, wait_for(seed, r"sendme receive (\S+)")[1]


def sendme_get(ticket, out):
    out.mkdir()
    return [str(binaries / "sendme"), "receive", "--relay", "disabled", ticket], {"PWD": str(out)}


LIBTORRENT = """
import libtorrent as lt, sys, time
torrent, folder, port, peer = sys.argv[1:]
ses = lt.session({"listen_interfaces": "127.0.0.1:" + port, "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
                  "allow_multiple_connections_per_ip": True, "alert_mask": 0})
params = lt.add_torrent_params()
params.ti, params.save_path = lt.torrent_info(torrent), folder
if peer == "0":
    params.flags |= lt.torrent_flags.seed_mode
params.trackers = []
handle = ses.add_torrent(params)
if peer != "0":
    handle.connect_peer(("127.0.0.1", int(peer)))
print("ready", flush=True)
while peer == "0" or not handle.status().is_seeding:
    time.sleep(0.01)
ses.pause()
"""


def libtorrent_seed(torrent):
    port = free_port()
    seed = start([sys.executable, "-c", LIBTORRENT, str(torrent), str(pack.parent), str(port), "0"])
    wait_for(seed, "ready")
    time.sleep(settle)
    return seed, (torrent, port)


def libtorrent_get(at, out):
    torrent, port = at
    out.mkdir()
    return [sys.executable, "-c", LIBTORRENT, str(torrent), str(out), str(free_port()), str(port)], {}


ARIA2 = ["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6", "--interface=127.0.0.1", "--file-allocation=none", "--no-conf"]


def aria2_seed(torrent):
    port = free_port()
    Tracker.peers.clear()
    seed = start(["aria2c", *ARIA2, f"--listen-port={port}", "--seed-ratio=0", "--bt-seed-unverified=true", "-V", "-d", str(pack.parent), str(torrent)])
    for _ in range(600):
        if port in Tracker.peers:
            break
        time.sleep(0.1)
    time.sleep(settle)
    return seed, torrent


def aria2_get(torrent, out):
    return ["aria2c", *ARIA2, f"--listen-port={free_port()}", "--seed-time=0", "-d", str(out), str(torrent)], {}


# Seeds without a word of their own on when they are ready get this long after they listen.
settle = 2.0
TOOLS = {
    "modswarm": (modswarm_seed, modswarm_get, program),
    "rqbit": (rqbit_seed, rqbit_get, binaries / "rqbit"),
    "sendme": (sendme_seed, sendme_get, binaries / "sendme"),
    "libtorrent": (libtorrent_seed, libtorrent_get, sys.executable),
    "aria2": (aria2_seed, aria2_get, shutil.which("aria2c") or "/nowhere"),
}


def once(tool, torrent):
    serve, fetch, _ = TOOLS[tool]
    out = top / "out"
    for name in ["out", "getter", "seed"]:
        shutil.rmtree(top / name, ignore_errors=True)
    seed, at = serve(torrent)
    log = open(top / "log", "w+")
    try:
        os.sync()
        before = cpu(seed.pid)
        args, env = fetch(at, out)
        began = time.monotonic()
        getter = subprocess.Popen(args, stdout=log, stderr=log, env=dict(os.environ, **env), cwd=env.get("PWD", top))
        deadline = threading.Timer(PATIENCE, getter.kill)
        deadline.start()
        _, status, used = os.wait4(getter.pid, 0)
        took = time.monotonic() - began
        deadline.cancel()
        getter.returncode = status
        seed_cpu = cpu(seed.pid) - before
        if status != 0:
            log.seek(0)
            raise RuntimeError(f"{tool} failed: {log.read()[-2000:]}")
        here = out if (out / "0.pak").exists() else out / "pack"
        names = [f"{n}.pak" for n in range(FILES)]
        _, wrong, missing = filecmp.cmpfiles(pack, here, names, shallow=False)
        if wrong or missing:
            raise RuntimeError(f"{tool} brought something else: {wrong} {missing} in {list(out.rglob('*'))[:9]}")
        return took, seed_cpu, used.ru_utime + used.ru_stime
    finally:
        seed.terminate()
        try:
            seed.wait(10)
        except subprocess.TimeoutExpired:
            seed.kill()
            seed.wait()


def main():
    pack.mkdir(parents=True)
    noise = random.Random(1)
    for number in range(FILES):
        with open(pack / f"{number}.pak", "wb") as file:
            for _ in range(MIB // FILES):
                file.write(noise.randbytes(1 << 20))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tracker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    torrent = make_torrent(f"http://127.0.0.1:{server.server_port}/announce")
    chosen = []
    for tool in tools:
        if pathlib.Path(TOOLS[tool][2]).exists():
            chosen.append(tool)
        else:
            print(f"{tool} is not installed and left out", file=sys.stderr)
    results = {tool: [] for tool in chosen}
    for turn in range(RUNS):
        for tool in chosen:
            try:
                results[tool].append(once(tool, torrent))
            except (RuntimeError, OSError) as error:
                print(f"run {turn + 1}: {error}", file=sys.stderr)
    print(f"{MIB} MiB in {FILES} files over loopback, medians of {RUNS} runs that took turns; sending and receiving end")
    print("| | MiB/s | slowest to fastest | CPU s/GiB | to modswarm |\n|---|--:|--:|--:|--:|")
    ours = None
    for tool, runs in results.items():
        if not runs:
            continue
        rates = sorted(MIB / run[0] for run in runs)
        rate = statistics.median(rates)
        ours = rate if tool == "modswarm" else ours
        seed, getter = (statistics.median(run[at] for run in runs) * 1024 / MIB for at in (1, 2))
        ratio = f"{rate / ours:.2f}" if ours else ""
        print(f"| {tool} | {rate:.0f} | {rates[0]:.0f} to {rates[-1]:.0f} | {seed:.2f}, {getter:.2f} | {ratio} |")


try:
    main()
finally:
    shutil.rmtree(top, ignore_errors=True)
