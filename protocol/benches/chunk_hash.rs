//! Cutting and hashing, which every shared byte goes through once: each alone, and together as `share` does it, on one core.
//!
//! `cargo bench -p modswarm-protocol --bench chunk_hash`
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::hint::black_box;

use chacha20::{
    ChaCha8,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use criterion::{Criterion, Throughput};
use modswarm_protocol::format::{ChunkerProfile, Cid, Codec, HashKind};

/// More than the processor caches.
const BYTES: usize = 256 << 20;
const LEAF: usize = 48 << 10;

fn main() {
    let mut bytes = vec![0; BYTES];
    ChaCha8::new(&[7; 32].into(), &[0; 12].into()).apply_keystream(&mut bytes);
    let bytes = &bytes[..];

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("chunk_hash");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("cut", |b| {
        b.iter(|| ChunkerProfile::DEFAULT.chunks(black_box(bytes)).count());
    });
    for hash in [HashKind::Blake3, HashKind::Sha2_256] {
        group.bench_function(format!("hash, {}", hash.name()), |b| {
            b.iter(|| {
                let cids = bytes
                    .chunks(LEAF)
                    .map(|leaf| Cid::of(Codec::Raw, hash, black_box(leaf)));
                cids.for_each(|cid| {
                    black_box(cid);
                });
            });
        });
        group.bench_function(format!("cut and hash, {}", hash.name()), |b| {
            b.iter(|| {
                let leaves = ChunkerProfile::DEFAULT.chunks(black_box(bytes));
                leaves.for_each(|leaf| {
                    black_box(Cid::of(Codec::Raw, hash, leaf));
                });
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
