//! Whole skeletons: packs, folders and files made of blocks that say what they like of each other.
//!
//! Input: a byte of [flags](Flags), then blocks with their lengths before them; the first is the root. Blocks are known by [`name`]s that tell their place in the
//! input, not by hashes. So any block can be changed without losing those above it, and blocks can link to each other in circles, as if hashes had been
//! cut until they collide.

use std::collections::HashSet;

use modswarm_protocol::format::{
    Cid, Codec, Content, ContentBuilder, File, HashKind, Leaf, Limits, Name, PackPath, Part, Skeleton, SkeletonError,
    SkeletonReader,
};

use super::{assert_presentable, input::Input, memory};

/// What the first byte says.
pub struct Flags;

impl Flags {
    /// The root is known to be a content and no pack.
    pub const CONTENT: u8 = 1;
    /// The root is a raw leaf.
    pub const RAW: u8 = 2;
    /// The user has named the file.
    pub const NAMED: u8 = 4;
    /// Blocks arrive in the order of the input, wanted or not.
    pub const UNASKED: u8 = 8;
}

/// By what the block at `at` is known.
pub fn name(codec: Codec, at: u8) -> Cid {
    let mut digest = [0xa5; 32];
    digest[31] = at;
    Cid::new(codec, HashKind::Blake3, digest)
}

/// Small enough that what passes is quickly looked through.
pub const LIMITS: Limits = Limits {
    nodes: 200,
    skeleton_bytes: 256 << 10,
    entries: 2048,
    parts: 1 << 14,
    path_bytes: 128 << 10,
    depth: 20,
};

pub fn run(data: &[u8]) {
    // What the limits let a small input stand for: entries, parts and paths, each held a few times.
    memory::within(64 * data.len() + (4 << 20), || match read(data) {
        Ok(skeleton) => check(&skeleton),
        Err(e) => assert_presentable(&e, data.len()),
    });
}

pub fn read(data: &[u8]) -> Result<Skeleton, SkeletonError> {
    let mut input = Input(data);
    let flags = input.byte();
    let mut blocks = Vec::new();
    while !input.is_empty() && blocks.len() < 256 {
        blocks.push(input.block());
    }
    let codec = if flags & Flags::RAW == 0 {
        Codec::DagPb
    } else {
        Codec::Raw
    };
    let root = name(codec, 0);
    let mut reader = match flags & Flags::CONTENT {
        0 => SkeletonReader::new(root, LIMITS),
        _ => SkeletonReader::of_content(root, LIMITS),
    };
    if flags & Flags::NAMED != 0 {
        reader = reader.named(Name::new("the file").expect("a name"));
    }
    if flags & Flags::UNASKED != 0 {
        for (at, bytes) in blocks.iter().enumerate() {
            for codec in [Codec::DagPb, Codec::Raw] {
                reader.add(&name(codec, at as u8), bytes)?;
            }
        }
    }
    loop {
        let wanted = reader.wanted(3);
        if wanted.is_empty() {
            return reader.finish();
        }
        for cid in wanted {
            let at = cid.digest()[31];
            if let Some(bytes) = blocks.get(usize::from(at)).filter(|_| cid == name(cid.codec(), at)) {
                reader.add(&cid, bytes)?;
            }
        }
    }
}

fn check(skeleton: &Skeleton) {
    let content = &skeleton.content;
    if let Some(head) = &skeleton.pack {
        assert_eq!(head.manifest.content, content.cid());
    }
    check_bounds(content);
    check_paths(content);
    for file in content.files() {
        let mut end = 0;
        for span in file.spans() {
            assert!(span.len > 0 && span.offset == end);
            end += u64::from(span.len);
        }
        assert_eq!(end, file.size(), "{:?}", file.path());
    }
    check_rebuilt(content);
}

fn check_bounds(content: &Content) {
    let parts: usize = content.files().map(|file| file.part_count()).sum();
    assert!(parts as u64 <= LIMITS.parts);
    let entries = content.files().len() + content.dirs().len() + content.skipped().len();
    // A file as the root is no entry of anything.
    assert!(entries as u64 <= LIMITS.entries.max(1));
    assert!(content.skeleton_bytes() <= LIMITS.skeleton_bytes);
    assert!(content.node_cids().len() as u64 <= LIMITS.nodes);
    let mut seen = HashSet::new();
    for (_, leaf) in content.map().iter() {
        assert!(leaf.len > 0 && leaf.len as usize <= modswarm_protocol::format::MAX_BLOCK_LEN);
        assert!(leaf.cid.codec() == Codec::Raw && !leaf.cid.is_empty_leaf());
        assert!(seen.insert(leaf.cid), "a piece twice");
    }
}

/// Every path stays below the folder that it is put in, and no two are in each other's way.
fn check_paths(content: &Content) {
    let mut files = HashSet::new();
    let mut dirs: HashSet<PackPath> = HashSet::new();
    for dir in content.dirs() {
        assert_safe(&dir);
        assert!(
            dir.parent().is_none_or(|parent| dirs.contains(&parent)),
            "{dir:?} comes before its folder"
        );
        assert!(dirs.insert(dir.clone()), "{dir:?} twice");
        assert!(dir.names().count() <= LIMITS.depth as usize);
    }
    for path in content.files().map(File::path).chain(content.skipped()) {
        assert_safe(&path);
        assert!(
            path.parent().is_none_or(|parent| dirs.contains(&parent)),
            "{path:?} is in no folder"
        );
        assert!(!dirs.contains(&path) && files.insert(path.clone()), "{path:?} twice");
    }
}

pub fn assert_safe(path: &PackPath) {
    assert_eq!(PackPath::new(path.as_str()).as_ref(), Ok(path));
    let on_disk = std::path::Path::new(path.as_str());
    assert!(
        on_disk
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_))),
        "{path:?}"
    );
    assert_eq!(on_disk.components().count(), path.names().count(), "{path:?}");
    let unsafe_char = |c: char| c.is_control() || matches!(c, '\\' | '\0');
    assert!(
        !path.as_str().contains(unsafe_char) && !path.as_str().contains("//"),
        "{path:?}"
    );
}

/// The same files are built into one and the same DAG, however foreign the one was that they were read from.
fn check_rebuilt(content: &Content) {
    let all_blake3 = content
        .map()
        .iter()
        .all(|(_, leaf)| leaf.cid.hash() == HashKind::Blake3);
    if !all_blake3 || !content.carriers().is_empty() {
        return;
    }
    let built = rebuild(content);
    assert_eq!(facts(&built), facts(content));
    assert_eq!(rebuild(&built).cid(), built.cid());
}

fn leaves<'a>(content: &'a Content, file: File<'a>) -> impl Iterator<Item = Leaf> + 'a {
    file.parts().filter_map(|part| match part {
        Part::Piece(index) => Some(content.map().leaf(index)),
        Part::Node { .. } => None,
    })
}

fn rebuild(content: &Content) -> Content {
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    for dir in content.dirs() {
        builder.add_dir(dir).expect("folders do not clash");
    }
    for file in content.files() {
        builder
            .add_file(file.path(), leaves(content, file))
            .expect("files do not clash");
    }
    builder.finish().expect("what was accepted can be shared").content
}

type Facts = (Vec<(PackPath, u64, Vec<Cid>)>, Vec<PackPath>);

fn facts(content: &Content) -> Facts {
    let file = |file: File<'_>| {
        let cids = leaves(content, file).map(|leaf| leaf.cid).collect();
        (file.path(), file.size(), cids)
    };
    let mut files: Vec<_> = content.files().map(file).collect();
    files.sort_unstable();
    let mut dirs = content.dirs().collect::<Vec<_>>();
    dirs.sort_unstable();
    (files, dirs)
}
