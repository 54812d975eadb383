//! Measures building and reading the skeleton of a large content: 100,000 files, 1.6 million distinct leaves.
//!
//! `cargo run -p modswarm-protocol --release --example skeleton_scale`; peak memory is told on Linux.

use std::{error::Error, time::Instant};

use modswarm_protocol::format::{Cid, Codec, ContentBuilder, HashKind, Leaf, Limits, PackPath, SkeletonReader};

const FILES: u32 = 100_000;
const LEAVES_PER_FILE: u32 = 16;

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or("VmHWM: unknown")
        .to_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    for file in 0..FILES {
        let leaves = (0..LEAVES_PER_FILE).map(|at| {
            let text = (u64::from(file) << 32 | u64::from(at)).to_le_bytes();
            Leaf {
                cid: Cid::of(Codec::Raw, HashKind::Blake3, &text),
                len: 50_000,
            }
        });
        builder.add_file(
            PackPath::new(&format!("mods/{}/Some mod {file}_9999999_P.pak", file % 100))?,
            leaves,
        )?;
    }
    let added = start.elapsed();
    let built = builder.finish()?;
    println!(
        "built: {added:.1?} to add, {:.1?} with directories and reading back; {}",
        start.elapsed(),
        peak_memory()
    );
    let content = &built.content;
    println!(
        "{} files, {} pieces, {} nodes, {} bytes of skeleton for {} bytes",
        content.files().len(),
        content.map().len(),
        content.node_cids().len(),
        content.skeleton_bytes(),
        content.bytes()
    );

    let start = Instant::now();
    let mut reader = SkeletonReader::new(built.cid, Limits::DEFAULT);
    for (cid, bytes) in built.nodes.iter().rev() {
        reader.add(cid, bytes)?;
    }
    let added = start.elapsed();
    let read = reader.finish()?;
    println!(
        "read: {added:.1?} to add, {:.1?} in all; {}",
        start.elapsed(),
        peak_memory()
    );
    assert_eq!(*read.content, built.content);
    Ok(())
}
