//! What a get of version 2 has to fetch when version 1 is here: the bytes of version 2's distinct leaves less version 1's.
//!
//! `cargo run -p modswarm-protocol --release --example leaf_diff -- V1 V2` prints `fetched reused leaves new_leaves`. It reads whole files,
//! cuts them with the default profile and compares sets, so that it is an expectation made without store, engine or network.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use modswarm_protocol::format::{ChunkerProfile, Cid, Codec, HashKind};

/// The distinct leaves of a folder, and its bytes.
fn leaves(root: &Path) -> Result<(HashMap<Cid, u64>, u64), Box<dyn Error>> {
    let mut leaves = HashMap::new();
    let mut bytes = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = fs::read(&path)?;
            bytes += file.len() as u64;
            for chunk in ChunkerProfile::DEFAULT.chunks(&file) {
                leaves.insert(Cid::of(Codec::Raw, HashKind::Blake3, chunk), chunk.len() as u64);
            }
        }
    }
    Ok((leaves, bytes))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [old, new] = &folders[..] else {
        return Err("give two folders: V1 V2".into());
    };
    let (old, _) = leaves(old)?;
    let (new, bytes) = leaves(new)?;
    let fresh = || new.iter().filter(|(cid, _)| !old.contains_key(cid)).map(|(_, len)| len);
    let fetched: u64 = fresh().sum();
    println!("{fetched} {} {} {}", bytes - fetched, new.len(), fresh().count());
    Ok(())
}
