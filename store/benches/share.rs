//! `share` of files in the page cache: many files, one file, files of all sizes, 100,000 small ones, and those again with nothing changed. Every scene
//! runs in a process of its own, which says what memory it had at most. Beside them, in the same run: reading, cutting and hashing alone.
//!
//! `cargo bench -p modswarm-store --bench share [-- SCENE]`; a scene is `raw`, `one`, `many` (1 MiB each), `medium` (3 MiB), `huge` (eight), `small` or `again`.
//! With `MODSWARM_BENCH_ROOT` and `MODSWARM_BENCH_SCENE` (any word) that folder is shared instead. Medians are printed. `MODSWARM_BENCH_MIB` sets how much (1024 by default),
//! `MODSWARM_BENCH_FILES` how many small files (100,000), `MODSWARM_BENCH_RUNS` how often (5), `MODSWARM_BENCH_DIR` where the files are made.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    fs::{self, File},
    hint::black_box,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use modswarm_protocol::format::{ChunkerProfile, HashKind};
use modswarm_store::{HomeLock, ShareSpec, SharedPack, Store, StoreOptions};

/// Files of a folder: a file system is slow with all in one.
const FOLDER: u64 = 250;
const SMALL: usize = 200;

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

fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).map_or(default, |text| text.parse().unwrap())
}

/// Makes files of `len` bytes.
fn files(root: &Path, count: u64, len: usize, seed: u64) {
    for n in 0..count {
        let folder = root.join((n / FOLDER).to_string());
        if n % FOLDER == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(n.to_string()), noise(seed + n, len)).unwrap();
    }
}

/// Makes files of `len` MiB.
fn long_files(root: &Path, count: u64, mib: u64) {
    fs::create_dir_all(root).unwrap();
    for n in 0..count {
        let mut file = File::create(root.join(n.to_string())).unwrap();
        for part in 0..mib {
            file.write_all(&noise((n << 32) + part, 1 << 20)).unwrap();
        }
    }
}

fn open(home: &Path) -> Store {
    let lock = HomeLock::try_acquire(home).unwrap().unwrap();
    Store::open(lock, StoreOptions::default()).unwrap()
}

fn share(store: &Store, root: &Path) -> SharedPack {
    store.share(&ShareSpec::new(root, [0; 32]), &()).unwrap()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Median seconds of `runs` runs.
fn time(runs: u64, mut run: impl FnMut()) -> f64 {
    let one = |_| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    };
    median((0..runs).map(one).collect())
}

fn rate(what: &str, seconds: f64, bytes: u64) {
    let gib = bytes as f64 / f64::from(1 << 30);
    println!("{what}: {seconds:.3} s, {:.2} GiB/s", gib / seconds);
}

fn folder_size(root: &Path) -> u64 {
    let entries = fs::read_dir(root).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => folder_size(&entry.path()),
        metadata => metadata.len(),
    });
    sizes.sum()
}

/// One scene, in a process of its own.
fn scene(name: &str, root: &Path, runs: u64) {
    let mut packs = Vec::new();
    let mut homes = Vec::new();
    let seconds = match name {
        "again" => {
            let home = tempfile::tempdir().unwrap();
            let store = open(home.path());
            share(&store, root);
            drop(store);
            // Each time as a program does that has just started.
            let mut times = Vec::new();
            for _ in 0..runs {
                let store = open(home.path());
                let begun = Instant::now();
                packs.push(share(&store, root));
                times.push(begun.elapsed().as_secs_f64());
            }
            homes.push(home);
            median(times)
        }
        _ => time(runs, || {
            let home = tempfile::tempdir().unwrap();
            packs.push(share(&open(home.path()), root));
            homes.push(home);
        }),
    };
    let bytes = packs[0].bytes;
    match name {
        "again" | "small" => println!("{name}: {seconds:.3} s for {} files", packs[0].files),
        _ => rate(name, seconds, bytes),
    }
    if name != "again" {
        let home = folder_size(homes[0].path());
        println!(
            "    the home takes {home} bytes, {:.4} of the content",
            home as f64 / bytes as f64
        );
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        println!("    peak memory {}", peak.unwrap_or("unknown").trim());
    }
}

/// What one core does of each part of the work, and what all do.
fn raw(root: &Path, runs: u64) {
    let path = root.join("0");
    let len = 256 << 20;
    let mut bytes = Vec::new();
    File::open(&path).unwrap().take(len).read_to_end(&mut bytes).unwrap();
    let size = bytes.len() as u64;
    let mut buf = vec![0; 1 << 20];
    let read = || {
        let mut file = File::open(&path).unwrap().take(len);
        while file.read(&mut buf).unwrap() > 0 {}
    };
    rate("one core, read", time(runs, read), size);
    let profile = ChunkerProfile::DEFAULT;
    rate(
        "one core, cut",
        time(runs, || {
            black_box(profile.chunks(&bytes).count());
        }),
        size,
    );
    let hash = |bytes: &[u8]| {
        for leaf in bytes.chunks(38 << 10) {
            black_box(HashKind::Blake3.digest(leaf));
        }
    };
    rate("one core, hash", time(runs, || hash(&bytes)), size);
    let cores = thread::available_parallelism().unwrap().get();
    let all = time(runs, || {
        thread::scope(|scope| {
            for part in bytes.chunks(bytes.len() / cores + 1) {
                scope.spawn(|| profile.chunks(part).for_each(hash));
            }
        });
    });
    rate(&format!("{cores} cores, cut and hash"), all, size);
}

fn main() {
    let runs = number("MODSWARM_BENCH_RUNS", 5);
    if let (Ok(name), Ok(root)) = (
        std::env::var("MODSWARM_BENCH_SCENE"),
        std::env::var("MODSWARM_BENCH_ROOT"),
    ) {
        return scene(&name, Path::new(&root), runs);
    }
    let mib = number("MODSWARM_BENCH_MIB", 1024);
    let small = number("MODSWARM_BENCH_FILES", 100_000);
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let dir = match std::env::var_os("MODSWARM_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(PathBuf::from(dir)).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let root = dir.path().join("files");
    for name in ["raw", "one", "many", "medium", "huge", "small", "again"] {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        if name != "again" || !root.exists() || !only.is_empty() {
            let _ = fs::remove_dir_all(&root);
            match name {
                "raw" => long_files(&root, 1, mib.min(256)),
                "one" => long_files(&root, 1, mib),
                "many" => files(&root, mib, 1 << 20, 1),
                "medium" => files(&root, mib / 3, 3 << 20, 1),
                "huge" => long_files(&root, 8, mib / 8),
                _ => files(&root, small, SMALL, 1),
            }
        }
        if name == "raw" {
            raw(&root, runs);
            continue;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .env("MODSWARM_BENCH_SCENE", name)
            .env("MODSWARM_BENCH_ROOT", &root);
        assert!(child.status().unwrap().success(), "{name} failed");
    }
}
