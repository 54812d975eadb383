//! `share` of files in the page cache: many small ones, one large one, and again with nothing changed. Memory is printed at the end.
//!
//! `cargo bench -p modswarm-store --bench share`; `MODSWARM_BENCH_MIB` sets how much (1024 by default).
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use modswarm_store::{HomeLock, ShareSpec, Store, StoreOptions};

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

/// Shares `root` into a new home, `iters` times.
fn time(root: &Path, iters: u64) -> Duration {
    (0..iters)
        .map(|_| {
            let home = tempfile::tempdir().unwrap();
            let lock = HomeLock::try_acquire(home.path()).unwrap().unwrap();
            let store = Store::open(lock, StoreOptions::default()).unwrap();
            let begun = Instant::now();
            store.share(&ShareSpec::new(root, [0; 32]), &()).unwrap();
            begun.elapsed()
        })
        .sum()
}

fn main() {
    let mib: usize = std::env::var("MODSWARM_BENCH_MIB").map_or(1024, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (many, one, tiny) = (dir.path().join("many"), dir.path().join("one"), dir.path().join("tiny"));
    for n in 0..mib {
        let folder = many.join((n / 100).to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(n.to_string()), noise(n as u64, 1 << 20)).unwrap();
    }
    fs::create_dir_all(&one).unwrap();
    let mut file = fs::File::create(one.join("one")).unwrap();
    for n in 0..mib {
        std::io::Write::write_all(&mut file, &noise(n as u64, 1 << 20)).unwrap();
    }
    for n in 0..20_000_u64 {
        let folder = tiny.join((n / 200).to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(n.to_string()), noise(n, 200)).unwrap();
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("share");
    group.throughput(Throughput::Bytes((mib as u64) << 20));
    group.bench_function("files of 1 MiB", |b| b.iter_custom(|iters| time(&many, iters)));
    group.bench_function("one file", |b| b.iter_custom(|iters| time(&one, iters)));
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("20,000 tiny files", |b| b.iter_custom(|iters| time(&tiny, iters)));
    let home = tempfile::tempdir().unwrap();
    let lock = HomeLock::try_acquire(home.path()).unwrap().unwrap();
    let store = Store::open(lock, StoreOptions::default()).unwrap();
    store.share(&ShareSpec::new(&tiny, [0; 32]), &()).unwrap();
    group.bench_function("20,000 tiny files again", |b| {
        b.iter(|| store.share(&ShareSpec::new(&tiny, [0; 32]), &()).unwrap());
    });
    group.finish();
    criterion.final_summary();
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        println!("peak memory of all of the above: {}", peak.unwrap_or("unknown"));
    }
}
