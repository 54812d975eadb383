//! What many packs, leaves and files cost: bytes of index, memory of a node that nobody asks for anything, the time until it serves, and the memory of one
//! that gets a pack of very many leaves or files.
//!
//! `cargo bench --bench scale`. `MODSWARM_BENCH_ONLY` is `leaves`, `files`, `get` or `get-files`; `MODSWARM_BENCH_PACKS` (100) packs of `MODSWARM_BENCH_LEAVES` (100,000) leaves
//! of 64 bytes each stand for 100 packs of some gigabytes; `MODSWARM_BENCH_FOLDERS` (15) packs of `MODSWARM_BENCH_FILES` (100,000) small files for a large home;
//! one of `MODSWARM_BENCH_PIECES` (1,600,000) leaves of 64 bytes for a pack of 100 GB; one of `MODSWARM_BENCH_GET_FILES` (100,000) files of `MODSWARM_BENCH_GET_FILE_BYTES` (40) for one of very many.
//! All of it needs about 10 GB in the temporary folder. Nothing leaves the machine.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use modswarm_protocol::format::{ChunkerProfile, Leaf};
use modswarm_store::{HomeLock, ShareSpec, Store, StoreOptions};

/// The private network.
const PRIVATE: [u8; 32] = [0; 32];
/// Bytes of a leaf, so that millions of them are soon made.
const LEAF: u32 = 64;

fn main() {
    let number = |name: &str, default| env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let only = env::var("MODSWARM_BENCH_ONLY").unwrap_or_default();
    let empty = {
        let dir = tempfile::tempdir().unwrap();
        idle(dir.path(), "a home with one small pack")
    };
    if only.is_empty() || only == "leaves" {
        leaves(
            number("MODSWARM_BENCH_PACKS", 100),
            number("MODSWARM_BENCH_LEAVES", 100_000),
            empty,
        );
    }
    if only.is_empty() || only == "files" {
        files(
            number("MODSWARM_BENCH_FOLDERS", 15),
            number("MODSWARM_BENCH_FILES", 100_000),
        );
    }
    if only.is_empty() || only == "get" {
        get(number("MODSWARM_BENCH_PIECES", 1_600_000));
    }
    if only.is_empty() || only == "get-files" {
        get_files(
            number("MODSWARM_BENCH_GET_FILES", 100_000),
            number("MODSWARM_BENCH_GET_FILE_BYTES", 40),
        );
    }
}

fn open(home: &Path) -> Store {
    // The one before may still be giving it back.
    for _ in 0..100 {
        if let Some(lock) = HomeLock::try_acquire(home).unwrap() {
            return Store::open(lock, StoreOptions::default()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the home stays in use");
}

/// Bytes that differ everywhere, cheaply.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn leaves(packs: u64, each: u64, empty: u64) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let store = open(&home);
    let begun = Instant::now();
    let mut last = None;
    for n in 0..packs {
        let folder = dir.path().join(format!("p{n}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("f"), noise(n + 1, (each * u64::from(LEAF)) as usize)).unwrap();
        let mut spec = ShareSpec::new(&folder, PRIVATE);
        spec.profile = ChunkerProfile::fixed(LEAF);
        last = Some(store.share(&spec, &()).unwrap());
    }
    let total = packs * each;
    println!("{packs} packs, {total} leaves shared in {:.0?}", begun.elapsed());
    let record = store.pack(last.unwrap().id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    store.close().unwrap();
    drop(store);
    let index = folder_bytes(&home);
    println!("index: {:.1} bytes a leaf, nodes included", index as f64 / total as f64);

    idle(dir.path(), "the same home, nobody asking");
    // The node was killed: the first block after it.
    let mut times = Vec::new();
    for n in 0..5 {
        let (child, _) = start(dir.path(), "tiny");
        kill(child);
        let leaf = content.map().leaf(content.map().index(n * 17).unwrap());
        let begun = Instant::now();
        let store = open(&home);
        let opened = begun.elapsed();
        store.read_leaf(&leaf.cid, leaf.len).unwrap();
        times.push((begun.elapsed(), opened));
        store.close().unwrap();
    }
    times.sort_unstable();
    let (first, opened) = times[times.len() / 2];
    println!("first block after a kill: {first:.1?} (of which opening the home {opened:.1?}), median of 5");
    println!("(a home with one small pack: {} MiB resident)", empty >> 10);
}

fn files(folders: u64, each: u64) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let store = open(&home);
    let mut shares = Vec::new();
    for n in 0..folders {
        let folder = dir.path().join(format!("p{n}"));
        for file in 0..each {
            let within = folder.join(format!("{}", file / 1000));
            if file % 1000 == 0 {
                fs::create_dir_all(&within).unwrap();
            }
            let bytes = noise(n * each + file, 40 + (file % 100) as usize);
            fs::write(within.join(format!("{file}.json")), bytes).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        let spec = ShareSpec::new(&folder, PRIVATE);
        let begun = Instant::now();
        store.share(&spec, &()).unwrap();
        shares.push(begun.elapsed());
    }
    shares.sort_unstable();
    println!(
        "{folders} packs of {each} files: each shared in {:.1?} (median), the slowest in {:.1?}",
        shares[shares.len() / 2],
        shares[shares.len() - 1]
    );
    let spec = ShareSpec::new(dir.path().join("p0"), PRIVATE);
    let begun = Instant::now();
    store.share(&spec, &()).unwrap();
    println!("shared again, nothing changed: {:.2?}", begun.elapsed());
    store.close().unwrap();
    drop(store);
    let count = folders * each;
    println!("index: {:.0} bytes a file", folder_bytes(&home) as f64 / count as f64);
    idle(dir.path(), &format!("a home of {count} files, nobody asking"));
}

/// Gets one content of very many leaves, and says what the getter takes of memory.
fn get(pieces: u64) {
    const FILES: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("seed/pack");
    fs::create_dir_all(&folder).unwrap();
    for file in 0..FILES {
        let bytes = noise(file + 1, (pieces / FILES * u64::from(LEAF)) as usize);
        fs::write(folder.join(format!("{file}.pak")), bytes).unwrap();
    }
    get_from(dir.path(), pieces, &format!("{pieces} pieces"));
}

/// The same for very many files of `bytes`.
fn get_files(files: u64, bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    for file in 0..files {
        let within = dir.path().join(format!("seed/pack/mods/group{}", file / 1000));
        if file % 1000 == 0 {
            fs::create_dir_all(&within).unwrap();
        }
        fs::write(
            within.join(format!("Some mod asset {file}_P.json")),
            noise(file + 1, bytes as usize),
        )
        .unwrap();
    }
    let pieces = files * bytes.div_ceil(u64::from(LEAF));
    get_from(dir.path(), pieces, &format!("{files} files of {bytes} bytes"));
}

/// Gets `seed/pack` in `dir`.
fn get_from(dir: &Path, pieces: u64, what: &str) {
    let [seed, getter] = ["seed", "getter"].map(|name| dir.join(name));
    fs::create_dir_all(&getter).unwrap();
    let store = open(&seed.join("home"));
    let mut spec = ShareSpec::new(seed.join("pack"), PRIVATE);
    spec.profile = ChunkerProfile::fixed(LEAF);
    let shared = store.share(&spec, &()).unwrap();
    let record = store.pack(shared.id).unwrap().unwrap();
    let pack = record.pack.unwrap();
    store.close().unwrap();
    drop(store);
    let (child, ready) = start(&seed, "tiny");
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let addr = ready["addrs"][0].as_str().unwrap();
    let begun = Instant::now();
    let mut getting = modswarm(&getter)
        .args([
            "get",
            &pack.to_string(),
            "--peer",
            addr,
            "--no-seed",
            "--json",
            "-o",
            "got",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut peaks: BTreeMap<String, u64> = BTreeMap::new();
    for line in BufReader::new(getting.stdout.take().unwrap()).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let stage = event["stage"].as_str().or(event["event"].as_str()).unwrap_or_default();
        if let Some(peak) = peak(getting.id()) {
            peaks.insert(stage.to_owned(), peak);
        }
    }
    assert!(getting.wait().unwrap().success());
    let most = peaks.values().max().unwrap();
    let map = pieces * size_of::<Leaf>() as u64;
    println!(
        "a get of {what} took {:.0?}; {} MiB at most, of which the piece map {} MiB ({})",
        begun.elapsed(),
        most >> 10,
        map >> 20,
        peaks
            .iter()
            .map(|(stage, peak)| format!("{} until {stage}", peak >> 10))
            .collect::<Vec<_>>()
            .join(", ")
    );
    kill(child);
}

/// Starts a node that seeds the home below `dir`, lets it look at all its files, and says what it takes. Returns its resident KiB.
fn idle(dir: &Path, what: &str) -> u64 {
    let begun = Instant::now();
    let (child, _) = start(dir, "tiny");
    let ready = begun.elapsed();
    // It has looked at everything when it does nothing any more.
    let (mut cpu, mut quiet) = (cpu_ticks(child.id()), 0);
    while quiet < 4 {
        std::thread::sleep(Duration::from_millis(500));
        let now = cpu_ticks(child.id());
        quiet = if now <= cpu + 1 { quiet + 1 } else { 0 };
        cpu = now;
    }
    let settled = begun.elapsed();
    let begun = Instant::now();
    let status = modswarm(dir).arg("status").output().unwrap();
    assert!(status.status.success());
    let status = begun.elapsed();
    let (now, peak) = (memory(child.id(), "VmRSS:"), memory(child.id(), "VmHWM:"));
    println!(
        "{what}: ready after {ready:.1?}, quiet after {settled:.0?}; {} MiB resident, {} MiB at most; `status` {status:.2?}",
        now >> 10,
        peak >> 10
    );
    kill(child);
    now
}

fn modswarm(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modswarm"));
    command
        .current_dir(dir)
        .env("MODSWARM_HOME", dir.join("home"))
        .env("MODSWARM_NETWORK", "private")
        .env("MODSWARM_LISTEN", "/ip4/127.0.0.1/tcp/0");
    command
}

/// A node that shares one small folder, and with it seeds all packs of the home. Returns once it is ready.
fn start(dir: &Path, name: &str) -> (Child, String) {
    let small: PathBuf = dir.join(name);
    fs::create_dir_all(&small).unwrap();
    let mut file = fs::File::create(small.join("a.txt")).unwrap();
    file.write_all(b"small").unwrap();
    let mut child = modswarm(dir)
        .args(["share", name, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"link\"") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the node ended early");
    }
    // It would wait for ever if nobody read what it says.
    std::thread::spawn(move || io::copy(&mut output, &mut io::sink()));
    (child, line)
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn memory(pid: u32, field: &str) -> u64 {
    read_memory(pid, field).unwrap()
}

/// The most resident KiB of a process so far, if it lives still.
fn peak(pid: u32) -> Option<u64> {
    read_memory(pid, "VmHWM:")
}

fn read_memory(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let kind = entry.metadata().unwrap();
            if kind.is_dir() {
                folder_bytes(&entry.path())
            } else {
                kind.len()
            }
        })
        .sum()
}
