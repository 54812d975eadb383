//! The reader against good and hostile DAGs, which are made by hand here.

use std::collections::HashMap;

use super::*;
use crate::format::{
    Cid, Codec, HashKind, Limits, Name,
    dagpb::{OutLink, encode_node, put_bytes, put_varint},
    unixfs,
};

mod files;
mod folders;
mod hamts;
mod packs;

/// Blocks made by hand. Every method keeps a block and returns its CID.
#[derive(Default)]
struct Dag(HashMap<Cid, Vec<u8>>);

type Link<'a> = (&'a [u8], Cid, u64);

impl Dag {
    fn put(&mut self, codec: Codec, bytes: Vec<u8>) -> Cid {
        let cid = Cid::of(codec, HashKind::Blake3, &bytes);
        self.0.insert(cid, bytes);
        cid
    }

    fn node(&mut self, links: &[Link<'_>], data: &[u8]) -> Cid {
        let links = links.iter().map(|&(name, cid, tsize)| OutLink { cid, name, tsize });
        self.put(Codec::DagPb, encode_node(links, data))
    }

    fn dir(&mut self, links: &[Link<'_>]) -> Cid {
        self.node(links, &unixfs::DIRECTORY)
    }

    /// A file node with honest sizes.
    fn file(&mut self, links: &[(Cid, u64)]) -> Cid {
        let total = links.iter().map(|link| link.1).sum();
        let sizes: Vec<u64> = links.iter().map(|link| link.1).collect();
        self.file_that_says(links, total, &sizes)
    }

    fn file_that_says(&mut self, links: &[(Cid, u64)], filesize: u64, blocksizes: &[u64]) -> Cid {
        let mut data = Vec::new();
        put_varint(&mut data, 1, 2);
        put_varint(&mut data, 3, filesize);
        for &size in blocksizes {
            put_varint(&mut data, 4, size);
        }
        let links: Vec<Link<'_>> = links.iter().map(|&(cid, size)| (&b""[..], cid, size)).collect();
        self.node(&links, &data)
    }

    /// A node of any type, with this in its data field.
    fn other(&mut self, kind: u64, inner: &[u8], links: &[Link<'_>]) -> Cid {
        let mut data = Vec::new();
        put_varint(&mut data, 1, kind);
        put_bytes(&mut data, 2, inner);
        self.node(links, &data)
    }

    fn read(&self, root: Cid) -> Result<Skeleton, SkeletonError> {
        self.read_within(root, Limits::DEFAULT)
    }

    fn read_within(&self, root: Cid, limits: Limits) -> Result<Skeleton, SkeletonError> {
        let mut reader = SkeletonReader::new(root, limits);
        while let [cid] = reader.wanted(1)[..] {
            reader.add(&cid, &self.0[&cid])?;
        }
        reader.finish()
    }
}

/// A leaf that is nowhere: nothing but its CID matters to a skeleton.
fn leaf(text: &str) -> Cid {
    Cid::of(Codec::Raw, HashKind::Blake3, text.as_bytes())
}

fn empty_leaf() -> Cid {
    leaf("")
}

/// Asserts that reading fails as it should, and that a player can read why.
macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {{
        let error = $result.expect_err("it must be refused");
        assert!(matches!(error, $pattern), "{error:?}");
        let text = error.to_string();
        assert!(text.len() > 20 && !text.contains(|c: char| c.is_control()), "{text:?}");
    }};
}
use assert_refused;

#[test]
fn blocks_are_wanted_breadth_first_and_once() {
    let mut dag = Dag::default();
    let deep = dag.dir(&[]);
    let twice = dag.dir(&[(b"deep", deep, 0)]);
    let root = dag.dir(&[(b"a", twice, 0), (b"b", twice, 0), (b"c", leaf("c"), 1)]);
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);

    assert_eq!(reader.wanted(10), [root]);
    assert_eq!(reader.wanted(10), []);
    assert_eq!(reader.add(&root, &dag.0[&root]).expect("good"), Added::Skeleton);
    assert_eq!(reader.add(&root, &dag.0[&root]).expect("good"), Added::Unwanted);
    assert_eq!(
        reader.add(&deep, &dag.0[&deep]).expect("not known to be needed yet"),
        Added::Unwanted
    );
    assert_eq!((reader.wanted(10), reader.missing()), (vec![twice], 1));
    reader.add(&twice, &dag.0[&twice]).expect("good");
    assert!(!reader.is_complete());
    // Added without having been named: it is not named afterwards.
    reader.add(&deep, &dag.0[&deep]).expect("good");
    assert_eq!(reader.wanted(10), []);
    assert!(reader.is_complete());

    let content = reader.finish().expect("complete").content;
    assert_eq!(content.node_cids().collect::<Vec<_>>(), [root, twice, deep]);
    assert_eq!(content.dirs().len(), 4, "a, a/deep, b, b/deep");
    let bytes: usize = content.node_cids().map(|cid| dag.0[&cid].len()).sum();
    assert_eq!(content.skeleton_bytes(), bytes as u64);
}

#[test]
fn finishing_early_says_what_is_missing() {
    let root = Dag::default().dir(&[]);
    assert_refused!(
        SkeletonReader::new(root, Limits::DEFAULT).finish(),
        SkeletonError::Incomplete(1)
    );
}

#[test]
fn a_block_over_two_mebibytes_is_refused_before_it_is_parsed() {
    let root = Dag::default().dir(&[]);
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    let block = vec![0; crate::format::MAX_BLOCK_LEN + 1];
    assert_refused!(reader.add(&root, &block), SkeletonError::BlockTooLong { .. });
}

#[test]
fn nodes_and_bytes_of_a_skeleton_are_bounded() {
    let mut dag = Dag::default();
    let folders: Vec<(String, Cid)> = (0..5)
        .map(|i| (i.to_string(), dag.dir(&[(i.to_string().as_bytes(), leaf("x"), 1)])))
        .collect();
    let links: Vec<Link<'_>> = folders.iter().map(|(name, cid)| (name.as_bytes(), *cid, 0)).collect();
    let root = dag.dir(&links);
    let bytes: u64 = dag.0.values().map(|block| block.len() as u64).sum();

    dag.read_within(
        root,
        Limits {
            nodes: 6,
            skeleton_bytes: bytes,
            ..Limits::DEFAULT
        },
    )
    .expect("at the bounds");
    assert_refused!(
        dag.read_within(
            root,
            Limits {
                nodes: 5,
                ..Limits::DEFAULT
            }
        ),
        SkeletonError::TooLarge { .. }
    );
    let less = Limits {
        skeleton_bytes: bytes - 1,
        ..Limits::DEFAULT
    };
    assert_refused!(dag.read_within(root, less), SkeletonError::TooLarge { .. });
}

#[test]
fn cids_that_prove_nothing_or_mean_nothing_are_refused() {
    let digest = [7; 32];
    let with = |head: &[u8], digest: &[u8]| [head, digest].concat();
    let refused = [
        with(&[1, 0x55, 0x00, 4], b"data"),   // identity
        with(&[1, 0x71, 0x12, 32], &digest),  // dag-cbor
        with(&[1, 0x55, 0x13, 32], &digest),  // sha2-512 cut to 256 bits
        with(&[1, 0x55, 0x12, 20], &[7; 20]), // a cut digest
        with(&[1, 0x55, 0x12, 32], &[7; 33]), // bytes behind it
        vec![],
    ];
    for cid in refused {
        let mut link = Vec::new();
        put_bytes(&mut link, 1, &cid);
        put_bytes(&mut link, 2, b"name");
        put_varint(&mut link, 3, 1);
        let mut block = Vec::new();
        put_bytes(&mut block, 2, &link);
        put_bytes(&mut block, 1, &unixfs::DIRECTORY);
        let mut dag = Dag::default();
        let root = dag.put(Codec::DagPb, block);
        assert_refused!(dag.read(root), SkeletonError::Link { .. });
    }
}

#[test]
fn symbolic_links_are_left_out_and_never_the_root() {
    let mut dag = Dag::default();
    let link = dag.other(4, b"/etc/passwd", &[]);
    let root = dag.dir(&[(b"evil", link, 0), (b"good", leaf("x"), 1)]);
    let content = dag.read(root).expect("without the link").content;
    assert_eq!(content.files().len(), 1);
    assert_eq!(
        content.skipped().map(|path| path.to_string()).collect::<Vec<_>>(),
        ["evil"]
    );
    assert_refused!(dag.read(link), SkeletonError::WrongKind { .. });
    let metadata = dag.other(3, b"", &[]);
    assert_refused!(dag.read(metadata), SkeletonError::Malformed { .. });
}
