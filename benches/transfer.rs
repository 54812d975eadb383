//! One node gets a pack from another over loopback, beside a bare libp2p stream of the same transport.
//!
//! `cargo bench --bench transfer`. Each end is a process of its own. A pack is read from files, verified twice (read and received), written
//! to files and made durable; the bare stream goes from memory to memory. Kinds of runs take turns, so that what else the machine does
//! meets all of them; medians are printed. `MODSWARM_BENCH_MIB` sets how much (1024 by default), `MODSWARM_BENCH_RUNS` how often (5),
//! `MODSWARM_BENCH_ONLY` a comma-separated choice of [`KINDS`].
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, multiaddr::Protocol, noise, swarm::SwarmEvent, tls, yamux,
};
use modswarm::{
    api::{GetEvent, GetRequest, NetworkKind, ShareEvent, ShareRequest},
    node::{Node, NodeConfig},
};
use modswarm_store::HomeLock;
use serde_json::{Value, json};

/// What is compared. A pack of small files is 20,000 of 4 KiB, whatever the amount.
const KINDS: [&str; 6] = [
    "disk",
    "bare tcp",
    "bare quic",
    "pack tcp",
    "pack quic",
    "small files tcp",
];
const BARE: StreamProtocol = StreamProtocol::new("/modswarm/bench/1");
/// Bytes that the bare stream's ends write and read at once.
const BARE_CHUNK: usize = 256 * 1024;
const FILE_LEN: usize = 32 << 20;
const SMALL_FILES: usize = 20_000;
const SMALL_FILE_LEN: usize = 4 << 10;
/// As the node's own.
const QUIC_STREAM_WINDOW: u32 = 16 << 20;
const QUIC_CONNECTION_WINDOW: u32 = 24 << 20;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["seed", listen, home, pack] => block_on(seed(listen, home.as_ref(), pack.as_ref())),
        ["get", listen, home, link, output] => block_on(get(listen, home.as_ref(), link, output.as_ref())),
        ["bare-send", listen, bytes] => block_on(bare_send(listen.parse().unwrap(), bytes.parse().unwrap())),
        ["bare-receive", addr, bytes] => block_on(bare_receive(addr.parse().unwrap(), bytes.parse().unwrap())),
        _ => compare(),
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(work);
}

// The parent: starts the ends, and gathers what they say.

/// What one run cost.
struct Run {
    seconds: f64,
    /// Of the sending and the receiving end.
    cpu: [f64; 2],
    peak_kib: [u64; 2],
}

fn compare() {
    let number = |name: &str, default| env::var(name).map_or(default, |text| text.parse::<usize>().unwrap());
    let (mib, runs) = (number("MODSWARM_BENCH_MIB", 1024), number("MODSWARM_BENCH_RUNS", 5));
    let only = env::var("MODSWARM_BENCH_ONLY").unwrap_or_default();
    let kinds: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| only.is_empty() || only.split(',').any(|asked| asked.trim() == *kind))
        .collect();
    let bytes = (mib << 20) as u64;
    let dir = tempfile::tempdir().unwrap();
    let (large, small) = (dir.path().join("large"), dir.path().join("small"));
    write_files(&large, mib << 20, FILE_LEN);
    write_files(&small, SMALL_FILES * SMALL_FILE_LEN, SMALL_FILE_LEN);

    let mut seeds: Vec<(&str, End)> = Vec::new();
    for kind in &kinds {
        let pack = match *kind {
            "pack tcp" | "pack quic" => &large,
            "small files tcp" => &small,
            _ => continue,
        };
        let home = dir.path().join(format!("home of {kind}"));
        seeds.push((kind, End::start(&["seed", listen(kind), text(&home), text(pack)])));
    }

    let mut results: Vec<Vec<Run>> = kinds.iter().map(|_| Vec::new()).collect();
    // Where tens of thousands of files were removed a moment ago, ext4 looks long for places for new ones.
    let mut kept = Vec::new();
    for run in 0..runs {
        for (kind, results) in kinds.iter().zip(&mut results) {
            let seed = seeds.iter_mut().find(|seed| seed.0 == *kind).map(|seed| &mut seed.1);
            results.push(match (*kind, seed) {
                ("disk", _) => write_durably(dir.path(), bytes),
                (_, None) => bare(kind, bytes),
                ("small files tcp", Some(seed)) => {
                    let (run, folder) = transfer(kind, seed, dir.path(), &small, run == 0);
                    kept.push(folder);
                    run
                }
                (_, Some(seed)) => transfer(kind, seed, dir.path(), &large, run == 0).0,
            });
            eprintln!("{kind}: {:.2} s", results.last().unwrap().seconds);
        }
    }

    println!("{mib} MiB, medians of {runs} runs; sending and receiving end");
    println!("| | MiB/s | slowest to fastest | CPU s/GiB | peak MiB |\n|---|--:|--:|--:|--:|");
    let mut rates = Vec::new();
    for (kind, runs) in kinds.iter().zip(&results) {
        let bytes = if *kind == "small files tcp" {
            (SMALL_FILES * SMALL_FILE_LEN) as u64
        } else {
            bytes
        };
        let (mib, gib) = (bytes as f64 / f64::from(1 << 20), bytes as f64 / f64::from(1 << 30));
        let rate = |run: &Run| mib / run.seconds;
        let slowest = runs.iter().map(rate).fold(f64::INFINITY, f64::min);
        let fastest = runs.iter().map(rate).fold(0.0, f64::max);
        let cpu = [0, 1].map(|end| median(runs.iter().map(|run| run.cpu[end])) / gib);
        let peak = [0, 1].map(|end| runs.iter().map(|run| run.peak_kib[end]).max().unwrap_or(0) >> 10);
        rates.push((*kind, median(runs.iter().map(rate))));
        println!(
            "| {kind} | {:.0} | {slowest:.0} to {fastest:.0} | {:.2}, {:.2} | {}, {} |",
            median(runs.iter().map(rate)),
            cpu[0],
            cpu[1],
            peak[0],
            peak[1],
        );
        if *kind == "small files tcp" {
            let seconds = median(runs.iter().map(|run| run.seconds));
            println!(
                "\n{SMALL_FILES} files of {SMALL_FILE_LEN} bytes: {seconds:.2} s, {:.0} files/s",
                SMALL_FILES as f64 / seconds
            );
        }
    }
    let rate = |name: &str| rates.iter().find(|(kind, _)| *kind == name).map(|(_, rate)| *rate);
    for transport in ["tcp", "quic"] {
        if let (Some(pack), Some(bare)) = (rate(&format!("pack {transport}")), rate(&format!("bare {transport}"))) {
            println!(
                "{transport}: a pack moves at {:.2} of the bare stream's rate",
                pack / bare
            );
        }
    }
}

/// One get into a new folder, and that folder.
fn transfer(kind: &str, seed: &mut End, dir: &Path, pack: &Path, check: bool) -> (Run, tempfile::TempDir) {
    let here = tempfile::tempdir_in(dir).unwrap();
    let (home, output) = (here.path().join("home"), here.path().join("in"));
    let link = seed.first["link"].as_str().unwrap().to_owned();
    seed.ask("begin");
    let mut get = End::start(&["get", listen(kind), text(&home), &link, text(&output)]);
    let sent = seed.ask("report");
    let run = Run::of(&get.first, &sent);
    get.end();
    if check {
        let name = pack.file_name().unwrap();
        assert_same_files(pack, &output.join(name));
    }
    (run, here)
}

fn bare(kind: &str, bytes: u64) -> Run {
    let bytes = bytes.to_string();
    let mut send = End::start(&["bare-send", listen(kind), &bytes]);
    let addr = send.first["addr"].as_str().unwrap().to_owned();
    let mut receive = End::start(&["bare-receive", &addr, &bytes]);
    let sent = send.ask("report");
    let run = Run::of(&receive.first, &sent);
    receive.end();
    send.end();
    run
}

/// What the disk alone takes for as many bytes.
fn write_durably(dir: &Path, bytes: u64) -> Run {
    let chunk = noise(1, BARE_CHUNK);
    let path = dir.join("plain");
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut file = fs::File::create(&path).unwrap();
    for _ in 0..bytes / BARE_CHUNK as u64 {
        file.write_all(&chunk).unwrap();
    }
    file.sync_all().unwrap();
    let run = Run {
        seconds: begun.elapsed().as_secs_f64(),
        cpu: [0.0, cpu_seconds() - cpu],
        peak_kib: [0, 0],
    };
    fs::remove_file(path).unwrap();
    run
}

fn listen(kind: &str) -> &'static str {
    if kind.ends_with("quic") {
        "/ip4/127.0.0.1/udp/0/quic-v1"
    } else {
        "/ip4/127.0.0.1/tcp/0"
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Run {
    fn of(received: &Value, sent: &Value) -> Self {
        let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"));
        Self {
            seconds: number(received, "seconds"),
            cpu: [number(sent, "cpu"), number(received, "cpu")],
            peak_kib: [number(sent, "peak_kib") as u64, number(received, "peak_kib") as u64],
        }
    }
}

/// One end, in a process of its own. It says a line of JSON when it is ready or done, and one for each line it is told; it ends with its
/// input.
struct End {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    first: Value,
}

impl End {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut end = Self {
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            input,
            first: Value::Null,
        };
        end.first = end.line();
        end
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("an end said {line:?}: {e}"))
    }

    fn ask(&mut self, what: &str) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{what}").unwrap();
        self.line()
    }

    fn end(&mut self) {
        self.input = None;
        self.child.wait().unwrap();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.end();
    }
}

// The ends.

fn say(line: &Value) {
    println!("{line}");
}

/// Answers the parent's questions until it has no more.
async fn answer(started_cpu: f64) {
    tokio::task::spawn_blocking(move || {
        let mut from = started_cpu;
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line == "begin" {
                forget_peak();
                from = cpu_seconds();
            }
            say(&json!({"cpu": cpu_seconds() - from, "peak_kib": peak_kib()}));
        }
    })
    .await
    .unwrap();
}

async fn start_node(listen: &str, home: &Path) -> Node {
    let lock = HomeLock::try_acquire(home).unwrap().unwrap();
    let config = NodeConfig {
        listen: vec![listen.parse().unwrap()],
        network: NetworkKind::Private,
        ..NodeConfig::default()
    };
    Node::start(lock, config).await.unwrap()
}

async fn seed(listen: &str, home: &Path, pack: &Path) {
    let node = start_node(listen, home).await;
    let mut events = node.share(ShareRequest {
        path: pack.to_owned(),
        ..ShareRequest::default()
    });
    loop {
        match events.recv().await.unwrap() {
            ShareEvent::Ready(shared) => {
                say(&json!({"link": shared.link}));
                break;
            }
            ShareEvent::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }
    answer(cpu_seconds()).await;
    node.shutdown().await;
}

async fn get(listen: &str, home: &Path, link: &str, output: &Path) {
    let node = start_node(listen, home).await;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut events = node.get(GetRequest {
        target: link.to_owned(),
        output: output.to_owned(),
        ..GetRequest::default()
    });
    loop {
        match events.recv().await.unwrap() {
            GetEvent::Complete(_) => break,
            GetEvent::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    say(&json!({"seconds": seconds, "cpu": cpu_seconds() - cpu, "peak_kib": peak_kib()}));
    answer(0.0).await;
    node.shutdown().await;
}

fn bare_swarm() -> Swarm<libp2p_stream::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .unwrap()
        .with_quic_config(|mut config| {
            config.max_stream_data = QUIC_STREAM_WINDOW;
            config.max_connection_data = QUIC_CONNECTION_WINDOW;
            config
        })
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

async fn bare_send(listen: Multiaddr, bytes: u64) {
    let mut swarm = bare_swarm();
    let mut streams = swarm.behaviour().new_control().accept(BARE).unwrap();
    swarm.listen_on(listen).unwrap();
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    };
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    say(&json!({"addr": addr.to_string()}));
    let (_, mut stream) = streams.next().await.unwrap();
    let cpu = cpu_seconds();
    let chunk = noise(1, BARE_CHUNK);
    for _ in 0..bytes / BARE_CHUNK as u64 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.close().await.unwrap();
    answer(cpu).await;
}

async fn bare_receive(addr: Multiaddr, bytes: u64) {
    let mut swarm = bare_swarm();
    let mut control = swarm.behaviour().new_control();
    let Some(Protocol::P2p(peer)) = addr.iter().last() else {
        panic!("{addr} names no peer")
    };
    swarm.dial(addr).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut stream = control.open_stream(peer, BARE).await.unwrap();
    let mut buffer = vec![0; BARE_CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{left} bytes are missing");
        left -= n as u64;
    }
    let seconds = begun.elapsed().as_secs_f64();
    say(&json!({"seconds": seconds, "cpu": cpu_seconds() - cpu, "peak_kib": peak_kib()}));
    answer(0.0).await;
}

// What the system says of this process.

#[cfg(unix)]
fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    0.0
}

/// Peak resident memory; 0 where the system does not say.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

/// Lets the peak begin at what is resident now, where the system can.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

// Files.

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

fn write_files(dir: &Path, bytes: usize, file_len: usize) {
    for n in 0..bytes.div_ceil(file_len) {
        let folder = dir.join((n / 200).to_string());
        fs::create_dir_all(&folder).unwrap();
        let len = file_len.min(bytes - n * file_len);
        fs::write(folder.join(n.to_string()), noise(n as u64 + 1, len)).unwrap();
    }
}

fn assert_same_files(left: &Path, right: &Path) {
    for entry in fs::read_dir(left).unwrap() {
        let name = entry.unwrap().file_name();
        let (a, b) = (left.join(&name), right.join(&name));
        if a.is_dir() {
            assert_same_files(&a, &b);
            continue;
        }
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            fs::File::open(path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .unwrap();
            bytes
        };
        assert!(read(&a) == read(&b), "{} and {} differ", a.display(), b.display());
    }
}
