//! CIDs agree with npm's `ipfs-unixfs-importer`, which shares no code with modswarm. oracle/oracle.mjs made the answers.

use std::collections::HashMap;

use modswarm_protocol::format::{
    BuiltContent, ChunkerProfile, Cid, Codec, ContentBuilder, HashKind, Leaf, Limits, PackPath, Part, SkeletonReader,
    read::Added,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Input {
    case: String,
    chunk: u32,
    files: Vec<(String, usize, usize)>,
    #[serde(default)]
    dirs: Vec<String>,
    #[serde(default)]
    many: Vec<Many>,
}

#[derive(Deserialize)]
struct Many {
    dir: String,
    prefix: String,
    count: usize,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    input: Input,
    sha2_256: Cid,
    blake3: Cid,
}

#[derive(Deserialize)]
struct Foreign {
    #[serde(flatten)]
    input: Input,
    root: Cid,
    blocks: Vec<(Cid, String)>,
}

/// As oracle.mjs makes them.
fn bytes_of(size: usize, seed: usize) -> Vec<u8> {
    (0..size)
        .map(|i| (i * 31 + (i >> 8) * 17 + (i >> 16) * 101 + seed) as u8)
        .collect()
}

impl Input {
    /// Paths and bytes of all files.
    fn files(&self) -> Vec<(PackPath, Vec<u8>)> {
        let path = |text: &str| PackPath::new(text).expect("a valid path");
        let mut files: Vec<_> = self
            .files
            .iter()
            .map(|(name, size, seed)| (path(name), bytes_of(*size, *seed)))
            .collect();
        for Many { dir, prefix, count } in &self.many {
            let slash = if dir.is_empty() { "" } else { "/" };
            files.extend((0..*count).map(|i| (path(&format!("{dir}{slash}{prefix}{i}.pak")), bytes_of(1, i & 0xff))));
        }
        files
    }

    fn build(&self, hash: HashKind) -> BuiltContent {
        let profile = ChunkerProfile::fixed(self.chunk).expect("within bounds");
        let mut builder = ContentBuilder::new(hash);
        for (path, bytes) in self.files() {
            let leaf = |chunk: &[u8]| Leaf {
                cid: Cid::of(Codec::Raw, hash, chunk),
                len: chunk.len() as u32,
            };
            builder
                .add_file(path, profile.chunks(&bytes).map(leaf))
                .expect("within bounds");
        }
        for dir in &self.dirs {
            builder
                .add_dir(PackPath::new(dir).expect("a valid path"))
                .expect("within bounds");
        }
        builder.finish().expect("within bounds")
    }
}

#[test]
fn built_cids_are_those_of_the_javascript_importer() {
    let answers: Vec<Answer> = serde_json::from_str(include_str!("oracle/oracle.json")).expect("oracle.json");
    assert!(answers.len() >= 10);
    for Answer {
        input,
        sha2_256,
        blake3,
    } in answers
    {
        assert_eq!(
            input.build(HashKind::Sha2_256).cid,
            sha2_256,
            "{}, sha2-256",
            input.case
        );
        assert_eq!(input.build(HashKind::Blake3).cid, blake3, "{}, blake3", input.case);
    }
}

#[test]
fn dags_of_other_tools_are_read_with_their_bytes() {
    let dags: Vec<Foreign> = serde_json::from_str(include_str!("oracle/foreign.json")).expect("foreign.json");
    for Foreign { input, root, blocks } in dags {
        let blocks: HashMap<Cid, Vec<u8>> = blocks.into_iter().map(|(cid, hex)| (cid, unhex(&hex))).collect();
        let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
        let mut carriers = 0;
        while let [cid] = reader.wanted(1)[..] {
            let bytes = &blocks[&cid];
            assert!(cid.verifies(bytes));
            carriers += usize::from(reader.add(&cid, bytes).expect("a good block") == Added::FileBytes);
        }
        let content = reader.finish().expect("a good DAG").content;
        assert_eq!(content.carriers().len(), carriers, "{}", input.case);

        let mut expected: Vec<(PackPath, Vec<u8>)> = input.files();
        expected.sort();
        let found: Vec<_> = content
            .files()
            .map(|file| (file.path(), assemble(&blocks, file)))
            .collect();
        assert_eq!(found, expected, "{}", input.case);
        let dirs: Vec<String> = content.dirs().map(|dir| dir.to_string()).collect();
        assert_eq!(dirs, ["mods", "nothing"]);
    }
}

/// The bytes of a file whose parts all lie in dag-pb nodes: a carrier's bytes are found by their length at its UnixFS data's end.
fn assemble(blocks: &HashMap<Cid, Vec<u8>>, file: modswarm_protocol::format::File<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in file.parts() {
        let Part::Node { cid, len } = part else {
            panic!("raw leaves were not asked for")
        };
        bytes.extend(modswarm_protocol::format::read::inline_bytes(&blocks[&cid]).expect("a carrier"));
        assert!(bytes.len() >= len as usize);
    }
    assert_eq!(bytes.len() as u64, file.size());
    bytes
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("hexadecimal") as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}
