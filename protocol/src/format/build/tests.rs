use super::*;
use crate::format::{ChunkerProfile, Manifest, Name, Part, Skeleton};

fn leaves(hash: HashKind, profile: ChunkerProfile, data: &[u8]) -> Vec<Leaf> {
    let leaf = |chunk: &[u8]| Leaf {
        cid: Cid::of(Codec::Raw, hash, chunk),
        len: chunk.len() as u32,
    };
    profile.chunks(data).map(leaf).collect()
}

fn path(text: &str) -> PackPath {
    PackPath::new(text).expect("a valid path")
}

fn read(root: Cid, blocks: &[(Cid, Bytes)]) -> Skeleton {
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    loop {
        let wanted = reader.wanted(2);
        if wanted.is_empty() {
            return reader.finish().expect("own blocks");
        }
        for cid in wanted {
            let (_, bytes) = blocks
                .iter()
                .find(|(known, _)| *known == cid)
                .expect("a block that was built");
            reader.add(&cid, bytes).expect("own block");
        }
    }
}

#[test]
fn what_is_built_reads_back_the_same() {
    let profile = ChunkerProfile::Fixed { size: 4 };
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    builder
        .add_file(path("z/b.pak"), leaves(HashKind::Blake3, profile, b"aaaabbbbaaaac"))
        .expect("fits");
    builder.add_file(path("empty.txt"), []).expect("fits");
    builder.add_dir(path("z/nothing here")).expect("fits");
    builder
        .add_file(path("a.pak"), leaves(HashKind::Blake3, profile, b"bbbb"))
        .expect("fits");
    let built = builder.finish().expect("fits");

    let manifest = Manifest::new(built.cid, Name::new("My pack").expect("a valid name"));
    let pack = build_pack(&built, &manifest.to_bytes().expect("small"), Some(b"sig"));
    let mut blocks = built.nodes.clone();
    blocks.extend(pack.blocks.iter().cloned());

    let skeleton = read(pack.cid, &blocks);
    let head = skeleton.pack.expect("it is a pack");
    assert_eq!(head.manifest, manifest);
    assert_eq!(head.sig.expect("signed").1, &b"sig"[..]);
    assert_eq!(*skeleton.content, built.content);
    assert_eq!(*read(built.cid, &blocks).content, built.content);

    let content = skeleton.content;
    let paths: Vec<String> = content.files().map(|file| file.path().to_string()).collect();
    assert_eq!(paths, ["a.pak", "empty.txt", "z/b.pak"]);
    assert_eq!(content.dirs().collect::<Vec<_>>(), [path("z"), path("z/nothing here")]);
    assert_eq!(content.map().len(), 3, "bbbb, aaaa, c");
    let last = content.file(2);
    let pieces: Vec<u32> = last
        .parts()
        .map(|part| match part {
            Part::Piece(index) => index.get(),
            Part::Node { .. } => panic!("nothing foreign here"),
        })
        .collect();
    assert_eq!(pieces, [1, 0, 1, 2]);
    assert_eq!((last.size(), last.spans().last().expect("four parts").offset), (13, 12));
}

#[test]
fn a_path_cannot_be_both_file_and_folder() {
    let mut builder = ContentBuilder::new(HashKind::Blake3);
    builder.add_file(path("a"), []).expect("new");
    assert_eq!(builder.add_file(path("a"), []), Err(BuildError::Clash(path("a"))));
    assert_eq!(builder.add_file(path("a/b"), []), Err(BuildError::Clash(path("a/b"))));
    assert_eq!(builder.add_dir(path("a")), Err(BuildError::Clash(path("a"))));
    builder.add_dir(path("d")).expect("new");
    builder.add_dir(path("d")).expect("a folder may be added again");
    assert_eq!(builder.add_file(path("d"), []), Err(BuildError::Clash(path("d"))));
}

#[test]
fn files_are_known_by_the_cids_that_the_builder_gave() {
    for hash in [HashKind::Blake3, HashKind::Sha2_256] {
        let mut builder = ContentBuilder::new(hash);
        let mut add = |name: &str, bytes: &[u8]| {
            let leaves = leaves(hash, ChunkerProfile::fixed(4).expect("a size"), bytes);
            (bytes.len() as u64, builder.add_file(path(name), leaves).expect("new"))
        };
        let expected = [
            add("a/empty", b""),
            add("a/many", b"aaaabbbbaaaac"),
            add("b/one", b"aaaa"),
            add("c/none", b""),
            add("d/the same", b"aaaabbbbaaaac"),
        ];
        let content = builder.finish().expect("fits").content;
        let found: Vec<_> = content.files().map(|file| (file.size(), file.cid())).collect();
        assert_eq!(found, expected);
        for (number, file) in content.files().enumerate() {
            let parts = file.part_numbers();
            assert!(parts.into_iter().all(|part| content.file_of_part(part) == number));
        }
        assert_eq!(content.file_of_part(content.part_total()), 5);
    }
}
