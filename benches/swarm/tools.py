"""How each program shares and gets the pack: `seed(host)` starts one that has it, `get(host, out)` one that has not.

A get's `done` is set by a thread that waits for the program to say that all files are in their places; `figures` is what it said.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from net import HEADER_BYTES_PER_DATAGRAM, HEADER_BYTES_PER_SEGMENT


class Get:
    """A running download."""

    def __init__(self, process):
        self.process = process
        self.done = None
        self.figures = {}

    def watch(self, is_end):
        """Reads the program's lines for ever, so that it never waits for us."""

        def read():
            for line in self.process.stdout:
                if self.done is None and is_end(line):
                    self.done = time.monotonic()

        threading.Thread(target=read, daemon=True).start()
        return self


class Modswarm:
    """Over QUIC, which it dials first across the internet. Host 0 shares; everyone else knows its link and nothing more.

    Further seeds have got the pack from it before, outside the shaped net. In the net they run the same `get` again, which finds all files
    and seeds them, with host 0 as their way into the private network.
    """

    SETTLE = 4.0
    HEADER_BYTES = HEADER_BYTES_PER_DATAGRAM
    LISTEN = "udp/0/quic-v1"

    def __init__(self, net, work, pack, binary):
        self.net, self.work, self.pack, self.binary = net, Path(work), Path(pack), binary
        self.link = self.address = None

    def _command(self, home, ip):
        return [
            self.binary, "--json", "--network", "private", "--home", str(self.work / home), "--listen", f"/ip4/{ip}/{self.LISTEN}",
        ]

    def _until(self, process, key):
        """Reads lines until one has `key` or is that event, and leaves the rest to a thread."""
        for line in process.stdout:
            said = json.loads(line)
            if key in said or said.get("event") == key:
                threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
                return said
        raise RuntimeError(f"{process.args} ended before it said {key!r}")

    def _log(self, name):
        return open(self.work / f"{name}.log", "w")

    def seed(self, host):
        if host == 0:
            process = self.net.start(
                0, [*self._command("home0", self.net.ip(0)), "share", "--no-qr", str(self.pack)],
                stdout=subprocess.PIPE, stderr=self._log("seed0"), text=True,
            )
            said = self._until(process, "link")
            self.link, self.address = said["link"], said["addrs"][0]
            return process
        had = self.work / f"had{host}"
        if not had.exists():
            self._get_before(host, had)
        process = self.net.start(
            host, [*self._command(f"home{host}", self.net.ip(host)), "--bootstrap", self.address, "get", "-o", str(had), self.link],
            stdout=subprocess.PIPE, stderr=self._log(f"seed{host}"), text=True,
        )
        self._until(process, "complete")
        return process

    def _get_before(self, host, out):
        """Gets the pack over loopback from a copy of host 0's home."""
        twin = self.work / "twin"
        shutil.rmtree(twin, ignore_errors=True)
        shutil.copytree(self.work / "home0", twin, ignore=lambda _, names: [name for name in names if name.endswith(".sock")])
        out.mkdir()
        share = subprocess.Popen(
            [*self._command("twin", "127.0.0.1"), "share", "--no-qr", str(self.pack)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        try:
            link = self._until(share, "link")["link"]
            subprocess.run(
                [*self._command(f"home{host}", "127.0.0.1"), "get", "--no-seed", "-o", str(out), link],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        finally:
            share.terminate()
            share.wait()

    def get(self, host, out):
        process = self.net.start(
            host, [*self._command(f"home{host}", self.net.ip(host)), "get", "-o", str(out), self.link],
            stdout=subprocess.PIPE, stderr=self._log(f"get{host}"), text=True,
        )
        get = Get(process)

        def is_end(line):
            said = json.loads(line)
            if said.get("event") == "complete":
                get.figures = {"fetched": said["bytes_fetched"], "wasted": said.get("bytes_wasted", 0)}
            return said.get("event") == "complete"

        return get.watch(is_end)

    def close(self):
        pass


class ModswarmTcp(Modswarm):
    """The same over TCP, as where UDP is blocked."""

    HEADER_BYTES = HEADER_BYTES_PER_SEGMENT
    LISTEN = "tcp/0"


class Tracker(ThreadingHTTPServer):
    """The least BitTorrent tracker: everyone who asked, to everyone who asks."""

    def __init__(self, address):
        super().__init__(address, _Announce)
        self.peers = set()


class _Announce(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        query = dict(part.split("=", 1) for part in self.path.split("?", 1)[1].split("&") if "=" in part)
        me = (self.client_address[0], int(urllib.parse.unquote(query["port"])))
        self.server.peers.add(me)
        others = [peer for peer in self.server.peers if peer != me]
        compact = b"".join(bytes(map(int, ip.split("."))) + struct.pack(">H", port) for ip, port in others)
        body = b"d8:intervali5e12:min intervali2e5:peers%d:%se" % (len(compact), compact)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Libtorrent:
    """Encryption off, a tracker on host 0: no DHT, no UPnP."""

    SETTLE = 4.0
    HEADER_BYTES = HEADER_BYTES_PER_SEGMENT
    PORT, TRACKER_PORT = 7000, 6969

    def __init__(self, net, work, pack, _binary):
        self.net, self.work, self.pack = net, Path(work), Path(pack)
        self.torrent = self.work / "pack.torrent"
        self._self("make", str(self.pack), str(self.torrent), f"http://{net.ip(0)}:{self.TRACKER_PORT}/announce")
        self.tracker = net.start(0, [sys.executable, __file__, "tracker", str(self.TRACKER_PORT)])
        time.sleep(0.5)

    def _self(self, *arguments):
        subprocess.run([sys.executable, "-W", "ignore", __file__, *arguments], check=True)

    def _run(self, host, folder, role):
        return self.net.start(
            host, [sys.executable, "-W", "ignore", __file__, "peer", str(self.torrent), str(folder), str(self.PORT), role],
            stdout=subprocess.PIPE, text=True,
        )

    def seed(self, host):
        return self._run(host, self.pack.parent, "seed")

    def get(self, host, out):
        return Get(self._run(host, out, "get")).watch(lambda line: line.strip() == "done")

    def close(self):
        self.tracker.kill()
        self.tracker.wait()


def _make(folder, torrent, tracker):
    import libtorrent as lt

    files = lt.file_storage()
    lt.add_files(files, folder)
    made = lt.create_torrent(files)
    made.add_tracker(tracker)
    lt.set_piece_hashes(made, os.path.dirname(os.path.abspath(folder)))
    Path(torrent).write_bytes(lt.bencode(made.generate()))


def _peer(torrent, folder, port, role):
    import libtorrent as lt

    session = lt.session({
        "listen_interfaces": f"0.0.0.0:{port}", "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_outgoing_utp": False, "enable_incoming_utp": False, "out_enc_policy": 2, "in_enc_policy": 2, "alert_mask": 0,
        "connection_speed": 200, "min_reconnect_time": 1, "peer_connect_timeout": 5, "send_buffer_watermark": 4 << 20,
    })
    wanted = {"ti": lt.torrent_info(torrent), "save_path": folder}
    if role == "seed":
        wanted["flags"] = lt.torrent_flags.seed_mode
    handle = session.add_torrent(wanted)
    said = role == "seed"
    while True:
        time.sleep(0.02)
        if not said and handle.status().is_seeding:
            print("done", flush=True)
            said = True


TOOLS = {"modswarm": Modswarm, "modswarm-tcp": ModswarmTcp, "libtorrent": Libtorrent}

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, torrent, tracker]:
            _make(folder, torrent, tracker)
        case ["tracker", port]:
            Tracker(("0.0.0.0", int(port))).serve_forever()
        case ["peer", torrent, folder, port, role]:
            _peer(torrent, folder, port, role)
