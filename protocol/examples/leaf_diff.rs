//! What a get of version 2 has to fetch when version 1 is here: the bytes of version 2's distinct leaves less version 1's.
//!
//! `cargo run -p modswarm-protocol --release --example leaf_diff -- V1 V2` prints `fetched reused leaves new_leaves cut_bytes cut_leaves`; the last two
//! are of version 2's leaves that do not end a file, repetitions counted: their quotient is the average that the chunker makes. It reads whole
//! files, cuts them with the default profile and compares sets, so that it is an expectation made without store, engine or network.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use modswarm_protocol::format::{ChunkerProfile, Cid, Codec, HashKind};

#[derive(Default)]
struct Version {
    /// The distinct leaves and their lengths.
    leaves: HashMap<Cid, u64>,
    bytes: u64,
    /// Of leaves that do not end a file.
    cut_bytes: u64,
    cut_leaves: u64,
}

fn read(root: &Path) -> Result<Version, Box<dyn Error>> {
    let mut version = Version::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = fs::read(&path)?;
            let mut left = file.len() as u64;
            version.bytes += left;
            for chunk in ChunkerProfile::DEFAULT.chunks(&file) {
                let len = chunk.len() as u64;
                version.leaves.insert(Cid::of(Codec::Raw, HashKind::Blake3, chunk), len);
                left -= len;
                if left > 0 {
                    version.cut_bytes += len;
                    version.cut_leaves += 1;
                }
            }
        }
    }
    Ok(version)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [old, new] = &folders[..] else {
        return Err("give two folders: V1 V2".into());
    };
    let (old, new) = (read(old)?, read(new)?);
    let fresh = || {
        let leaves = new.leaves.iter();
        leaves
            .filter(|(cid, _)| !old.leaves.contains_key(cid))
            .map(|(_, len)| len)
    };
    let fetched: u64 = fresh().sum();
    println!(
        "{fetched} {} {} {} {} {}",
        new.bytes - fetched,
        new.leaves.len(),
        fresh().count(),
        new.cut_bytes,
        new.cut_leaves
    );
    Ok(())
}
