//! The index: leaves in and out, and bytes a leaf on disk.
//!
//! `cargo bench -p modswarm-store --bench index`; `MODSWARM_BENCH_LEAVES` sets how many (200,000 by default).
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    fs,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput};
use modswarm_protocol::format::ChunkerProfile;
use modswarm_store::{HomeLock, ShareSpec, Store, StoreOptions};

fn open(home: &std::path::Path) -> Store {
    let lock = HomeLock::try_acquire(home).unwrap().unwrap();
    Store::open(lock, StoreOptions::default()).unwrap()
}

fn main() {
    let leaves: u64 = std::env::var("MODSWARM_BENCH_LEAVES").map_or(200_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("p");
    fs::create_dir_all(&folder).unwrap();
    // Leaves of 64 bytes, so that hashing them costs next to nothing.
    let bytes: Vec<u8> = (0..leaves * 8)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    fs::write(folder.join("f"), bytes).unwrap();
    let mut spec = ShareSpec::new(&folder, [0; 32]);
    spec.profile = ChunkerProfile::fixed(64);

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(leaves));
    group.bench_function("leaves in, with hashing and nodes", |b| {
        b.iter_custom(|iters| {
            (0..iters)
                .map(|_| {
                    let home = tempfile::tempdir().unwrap();
                    let store = open(home.path());
                    let begun = Instant::now();
                    store.share(&spec, &()).unwrap();
                    begun.elapsed()
                })
                .sum::<Duration>()
        });
    });
    let home = dir.path().join("home");
    let store = open(&home);
    let pack = store.share(&spec, &()).unwrap();
    let record = store.pack(pack.id).unwrap().unwrap();
    let content = store.content(&record).unwrap().unwrap();
    let mut at = 0_u32;
    group.throughput(Throughput::Elements(1));
    group.bench_function("one leaf found, read and hashed", |b| {
        b.iter_batched(
            || {
                at = (at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)) % content.map().len();
                content.map().leaf(content.map().index(at).unwrap())
            },
            |leaf| store.read_leaf(&leaf.cid, leaf.len).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    criterion.final_summary();
    let skeleton = content.skeleton_bytes();
    let blocks = pack.blocks;
    drop((store, content));
    let size = fs::metadata(home.join("index.sqlite")).unwrap().len();
    println!(
        "{blocks} leaves: index of {size} bytes, {skeleton} of them nodes: {:.1} bytes a leaf beside the nodes",
        (size - skeleton) as f64 / blocks as f64
    );
}
