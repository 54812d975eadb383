//! Measures what a chunker's average costs when version 1 of a pack is here and version 2 is fetched.
//!
//! `cargo run -p modswarm-protocol --release --example chunker_table -- V1 V2 [V1 V2]…`, where each is a folder; benches/chunker_table.sh
//! fetches real ones. Each pair is measured as a folder, as one uncompressed container (.pak-like), as one container whose assets are compressed each
//! for itself in blocks of at most 128 KiB (.ucas-like), and as one zip. Costs: leaves of version 2 that version 1 has not, nodes of
//! version 2 that version 1 has not, and an index entry for each distinct leaf of version 2.
//!
//! With `--write OUT V1 V2` nothing is measured: `OUT/<shape>/old` and `OUT/<shape>/new` get the files in every shape, for other tools.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{
    Compression, Crc,
    write::{DeflateEncoder, ZlibEncoder},
};
use modswarm_protocol::format::{BuiltContent, ChunkerProfile, Cid, Codec, ContentBuilder, HashKind, Leaf, PackPath};

/// Averages that are compared, in bytes.
const AVERAGES: [u32; 4] = [32 << 10, 64 << 10, 128 << 10, 256 << 10];
/// About what an index entry of one leaf takes, in bytes.
const INDEX_ENTRY_BYTES: u64 = 40;
/// The longest block of a .ucas before compression.
const UCAS_BLOCK_LEN: usize = 128 << 10;
/// Averages this much dearer than the cheapest still win if they are larger.
const TOLERANCE: f64 = 1.03;

type Files = Vec<(String, Vec<u8>)>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, Default)]
struct Cost {
    fetched: u64,
    nodes: u64,
    leaves: u64,
}

impl Cost {
    fn total(&self) -> u64 {
        self.fetched + self.nodes + self.leaves * INDEX_ENTRY_BYTES
    }
}

fn main() -> Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if let [flag, out, old, new] = &folders[..]
        && flag.as_os_str() == "--write"
    {
        return write(out, old, new);
    }
    if folders.is_empty() || !folders.len().is_multiple_of(2) {
        return Err("give pairs of folders: V1 V2 [V1 V2]…".into());
    }
    println!("| pair | shape | bytes of v2 | average | fetched | new nodes | leaves | total |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    let mut sums = [0_u64; AVERAGES.len()];
    let mut by_shape: Vec<(&str, [u64; AVERAGES.len()])> = Vec::new();
    for pair in folders.chunks(2) {
        let (old, new) = (read_folder(&pair[0])?, read_folder(&pair[1])?);
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (shape, make) in SHAPES {
            let (old, new) = (make(&old)?, make(&new)?);
            let bytes: usize = new.iter().map(|file| file.1.len()).sum();
            let mut row = [0; AVERAGES.len()];
            for (at, average) in AVERAGES.into_iter().enumerate() {
                let cost = measure(&old, &new, average)?;
                row[at] = cost.total();
                sums[at] += cost.total();
                let Cost { fetched, nodes, leaves } = cost;
                println!(
                    "| {} -> {} | {shape} | {bytes} | {} KiB | {fetched} | {nodes} | {leaves} | {} |",
                    name(&pair[0]),
                    name(&pair[1]),
                    average >> 10,
                    cost.total()
                );
            }
            match by_shape.iter_mut().find(|(known, _)| *known == shape) {
                Some((_, total)) => total.iter_mut().zip(row).for_each(|(sum, value)| *sum += value),
                None => by_shape.push((shape, row)),
            }
        }
    }
    println!("\n| all pairs | 32 KiB | 64 KiB | 128 KiB | 256 KiB |\n|---|--:|--:|--:|--:|");
    for (shape, [a, b, c, d]) in by_shape {
        println!("| {shape} | {a} | {b} | {c} | {d} |");
    }
    let [a, b, c, d] = sums;
    println!("| **together** | {a} | {b} | {c} | {d} |");
    let least = sums.iter().copied().min().unwrap_or_default() as f64;
    let winner = AVERAGES
        .iter()
        .zip(sums)
        .filter(|(_, sum)| *sum as f64 <= least * TOLERANCE)
        .map(|(average, _)| average)
        .max();
    println!("\nWinner: {} KiB", winner.copied().unwrap_or_default() >> 10);
    Ok(())
}

fn write(out: &Path, old: &Path, new: &Path) -> Result<()> {
    for (version, files) in [("old", read_folder(old)?), ("new", read_folder(new)?)] {
        for (shape, make) in SHAPES {
            for (name, bytes) in make(&files)? {
                let path = out.join(shape).join(version).join(name);
                fs::create_dir_all(path.parent().unwrap_or(out))?;
                fs::write(path, bytes)?;
            }
        }
    }
    Ok(())
}

/// How the files of a version are packed, by name.
type Shape = (&'static str, fn(&Files) -> Result<Files>);

const SHAPES: [Shape; 4] = [
    ("folder", |files| Ok(files.clone())),
    ("pak", pak),
    ("ucas", ucas),
    ("zip", zip),
];

fn read_folder(root: &Path) -> Result<Files> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(root)?
                    .to_str()
                    .ok_or("a name is not UTF-8")?
                    .replace('\\', "/");
                files.push((name, fs::read(&path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn index(files: impl Iterator<Item = (String, usize, usize)>) -> Vec<u8> {
    files
        .flat_map(|(name, offset, len)| format!("{name}\0{offset}\0{len}\n").into_bytes())
        .collect()
}

fn pak(files: &Files) -> Result<Files> {
    let mut out: Vec<u8> = Vec::new();
    let mut entries = Vec::new();
    for (name, bytes) in files {
        entries.push((name.clone(), out.len(), bytes.len()));
        out.extend(bytes);
    }
    out.extend(index(entries.into_iter()));
    Ok(vec![("assets.pak".to_owned(), out)])
}

fn ucas(files: &Files) -> Result<Files> {
    let mut out: Vec<u8> = Vec::new();
    let mut entries = Vec::new();
    for (name, bytes) in files {
        entries.push((name.clone(), out.len(), bytes.len()));
        for block in bytes.chunks(UCAS_BLOCK_LEN) {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(block)?;
            out.extend(encoder.finish()?);
        }
    }
    Ok(vec![
        ("assets.ucas".to_owned(), out),
        ("assets.utoc".to_owned(), index(entries.into_iter())),
    ])
}

/// Local headers, deflated bytes and a central directory, with all times zero.
fn zip(files: &Files) -> Result<Files> {
    let mut out: Vec<u8> = Vec::new();
    let mut directory: Vec<u8> = Vec::new();
    for (name, bytes) in files {
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes)?;
        let deflated = encoder.finish()?;
        let mut head: Vec<u8> = vec![20, 0, 0, 8, 8, 0, 0, 0, 0, 0];
        head.extend(crc.sum().to_le_bytes());
        head.extend(u32::try_from(deflated.len())?.to_le_bytes());
        head.extend(u32::try_from(bytes.len())?.to_le_bytes());
        head.extend(u16::try_from(name.len())?.to_le_bytes());
        head.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&head);
        directory.extend([0; 10]);
        directory.extend(u32::try_from(out.len())?.to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&head);
        out.extend(name.as_bytes());
        out.extend(deflated);
    }
    let (start, count) = (u32::try_from(out.len())?, u16::try_from(files.len())?);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(u32::try_from(directory.len())?.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    Ok(vec![("assets.zip".to_owned(), out)])
}

fn build(files: &Files, average: u32) -> Result<BuiltContent> {
    let profile = ChunkerProfile::fastcdc(average).ok_or("not an average")?;
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    for (name, bytes) in files {
        let leaf = |chunk: &[u8]| Leaf {
            cid: Cid::of(Codec::Raw, HashKind::Blake3, chunk),
            len: chunk.len() as u32,
        };
        builder.add_file(PackPath::new(name)?, profile.chunks(bytes).map(leaf))?;
    }
    Ok(builder.finish()?)
}

fn measure(old: &Files, new: &Files, average: u32) -> Result<Cost> {
    let (old, new) = (build(old, average)?, build(new, average)?);
    let leaves: HashMap<Cid, u32> = old.content.map().iter().map(|(_, leaf)| (leaf.cid, leaf.len)).collect();
    let nodes: HashMap<Cid, usize> = old.nodes.iter().map(|(cid, bytes)| (*cid, bytes.len())).collect();
    let fresh = new
        .content
        .map()
        .iter()
        .filter(|(_, leaf)| !leaves.contains_key(&leaf.cid));
    let fresh_nodes = new.nodes.iter().filter(|(cid, _)| !nodes.contains_key(cid));
    Ok(Cost {
        fetched: fresh.map(|(_, leaf)| u64::from(leaf.len)).sum(),
        nodes: fresh_nodes.map(|(_, bytes)| bytes.len() as u64).sum(),
        leaves: u64::from(new.content.map().len()),
    })
}
