//! The format against arbitrary trees and arbitrary bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use modswarm_protocol::format::{
    BuiltContent, ChunkerProfile, Cid, Codec, Content, ContentBuilder, HashKind, Leaf, Limits, Manifest, PackPath,
    Part, Skeleton, SkeletonError, SkeletonReader, Target, build_pack,
};
use proptest::{collection, prelude::*};

/// Files by path, folders beside them.
#[derive(Clone, Debug)]
struct Tree {
    files: BTreeMap<PackPath, Vec<u8>>,
    dirs: Vec<PackPath>,
}

fn paths() -> impl Strategy<Value = PackPath> {
    // Few letters, so that folders are shared; some of them sort in surprising ways.
    let name = "[ab .~\\-日é]{1,3}".prop_filter_map("a name", |text| {
        let name = modswarm_protocol::format::Name::normalised(&text).ok()?;
        Some(name.as_str().to_owned())
    });
    collection::vec(name, 1..4).prop_map(|names| PackPath::new(&names.join("/")).expect("made of names"))
}

fn trees() -> impl Strategy<Value = Tree> {
    let bytes = prop_oneof![
        collection::vec(any::<u8>(), 0..40),
        // Repetitive, so that leaves repeat within and across files.
        (0_u8..3, 0_usize..9000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (
        collection::btree_map(paths(), bytes, 0..12),
        collection::vec(paths(), 0..4),
    )
        .prop_map(|(all, dirs)| {
            // A path cannot be both a file and a folder.
            let mut files: BTreeMap<PackPath, Vec<u8>> = BTreeMap::new();
            for (path, bytes) in all {
                if !above(&path).any(|folder| files.contains_key(&folder)) {
                    files.insert(path, bytes);
                }
            }
            let dirs = dirs
                .into_iter()
                .filter(|dir| !files.contains_key(dir) && !above(dir).any(|folder| files.contains_key(&folder)));
            Tree {
                dirs: dirs.collect(),
                files,
            }
        })
}

fn above(path: &PackPath) -> impl Iterator<Item = PackPath> {
    std::iter::successors(path.parent(), PackPath::parent)
}

const PROFILE: ChunkerProfile = ChunkerProfile::Fixed { size: 4 };

fn build(tree: &Tree, hash: HashKind, backwards: bool) -> BuiltContent {
    let mut builder = ContentBuilder::new(hash);
    let mut files: Vec<_> = tree.files.iter().collect();
    if backwards {
        files.reverse();
    }
    for dir in &tree.dirs {
        builder.add_dir(dir.clone()).expect("no clash");
    }
    for (path, bytes) in files {
        let leaf = |chunk: &[u8]| Leaf {
            cid: Cid::of(Codec::Raw, hash, chunk),
            len: chunk.len() as u32,
        };
        builder
            .add_file(path.clone(), PROFILE.chunks(bytes).map(leaf))
            .expect("no clash");
    }
    builder.finish().expect("within bounds")
}

fn read(root: Cid, blocks: &BTreeMap<Cid, Bytes>, batch: usize) -> Result<Skeleton, SkeletonError> {
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    loop {
        let wanted = reader.wanted(batch);
        if wanted.is_empty() {
            return reader.finish();
        }
        for cid in wanted.iter().rev() {
            if let Some(bytes) = blocks.get(cid) {
                reader.add(cid, bytes)?;
            }
        }
    }
}

/// What anyone would do with a content: join the leaves.
fn assemble(content: &Content, leaves: &BTreeMap<Cid, Vec<u8>>) -> BTreeMap<PackPath, Vec<u8>> {
    let file = |file: modswarm_protocol::format::File<'_>| {
        let parts = file.parts().map(|part| match part {
            Part::Piece(index) => leaves[&content.map().leaf(index).cid].clone(),
            Part::Node { .. } => panic!("nothing foreign here"),
        });
        (file.path(), parts.collect::<Vec<_>>().concat())
    };
    content.files().map(file).collect()
}

proptest! {
    #[test]
    fn any_tree_reads_back_the_same(tree in trees(), batch in 1_usize..5) {
        let built = build(&tree, HashKind::Blake3, false);
        prop_assert_eq!(build(&tree, HashKind::Blake3, true).cid, built.cid, "the order of adding does not matter");

        let manifest = Manifest::new(built.cid, "pack".parse().expect("a name")).to_bytes().expect("small");
        let pack = build_pack(&built, &manifest, None);
        let blocks: BTreeMap<Cid, Bytes> = built.nodes.iter().chain(&pack.blocks).cloned().collect();
        let skeleton = read(pack.cid, &blocks, batch).expect("own blocks");
        prop_assert!(skeleton.pack.is_some());
        prop_assert_eq!(&*skeleton.content, &built.content);

        let leaves: BTreeMap<Cid, Vec<u8>> = tree
            .files
            .values()
            .flat_map(|bytes| PROFILE.chunks(bytes))
            .map(|chunk| (Cid::of(Codec::Raw, HashKind::Blake3, chunk), chunk.to_vec()))
            .collect();
        let content = skeleton.content;
        prop_assert_eq!(content.map().len() as usize, leaves.len(), "each distinct leaf is one piece");
        prop_assert_eq!(assemble(&content, &leaves), tree.files.clone());
        prop_assert_eq!(content.bytes(), tree.files.values().map(|bytes| bytes.len() as u64).sum::<u64>());

        let mut dirs: Vec<PackPath> = tree.files.keys().chain(&tree.dirs).flat_map(above).chain(tree.dirs.clone()).collect();
        dirs.sort();
        dirs.dedup();
        let mut found = content.dirs().collect::<Vec<_>>();
        found.sort();
        prop_assert_eq!(found, dirs);
    }

    /// The piece map is what a slow walk gives: files in order, leaves in order, each once.
    #[test]
    fn pieces_are_numbered_by_first_occurrence(tree in trees()) {
        let content = build(&tree, HashKind::Sha2_256, false).content;
        let mut slow: Vec<Cid> = Vec::new();
        for file in content.files() {
            for chunk in PROFILE.chunks(&tree.files[&file.path()]) {
                let cid = Cid::of(Codec::Raw, HashKind::Sha2_256, chunk);
                if !slow.contains(&cid) {
                    slow.push(cid);
                }
            }
        }
        prop_assert_eq!(content.map().iter().map(|(_, leaf)| leaf.cid).collect::<Vec<_>>(), slow);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in collection::vec(any::<u8>(), 0..300)) {
        let root = Cid::of(Codec::DagPb, HashKind::Blake3, &bytes);
        let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
        let _ = reader.add(&root, &bytes);
        let _ = reader.finish();
        let _ = Manifest::from_bytes(&bytes);
        let _ = Target::parse(&String::from_utf8_lossy(&bytes));
    }

    /// Bytes that look almost like a node reach deeper than arbitrary ones.
    #[test]
    fn damaged_nodes_never_panic(tree in trees(), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bits in 1_u8..) {
        let built = build(&tree, HashKind::Blake3, false);
        let (_, bytes) = which.get(&built.nodes);
        let mut bytes = bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let root = Cid::of(Codec::DagPb, HashKind::Blake3, &bytes);
        let mut blocks: BTreeMap<Cid, Bytes> = built.nodes.iter().cloned().collect();
        blocks.insert(root, bytes.into());
        // Whatever is read must at least be consistent in itself.
        if let Ok(skeleton) = read(root, &blocks, 1) {
            for file in skeleton.content.files() {
                let sum: u64 = file.spans().map(|span| u64::from(span.len)).sum();
                prop_assert_eq!(sum, file.size());
            }
        }
    }

    #[test]
    fn links_of_any_text_never_panic(text in "(modswarm:|ipfs://|https://|/ipfs/)?[a-z0-9:/?&=%.#-]{0,60}") {
        let _ = Target::parse(&text);
    }
}
