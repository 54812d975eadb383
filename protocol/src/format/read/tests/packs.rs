use super::*;
use crate::format::{MAX_MANIFEST_LEN, Manifest, manifest::ManifestError};

struct Pack {
    dag: Dag,
    content: Cid,
}

impl Pack {
    fn new() -> Self {
        let mut dag = Dag::default();
        let content = dag.dir(&[(b"mod.pak", leaf("x"), 1)]);
        Self { dag, content }
    }

    fn manifest(&self) -> Manifest {
        Manifest::new(self.content, Name::new("My pack").expect("valid"))
    }

    fn root(&mut self, manifest: &[u8]) -> Cid {
        let cid = self.dag.put(Codec::Raw, manifest.to_vec());
        let extra = self.dag.dir(&[(b"unknown", leaf("y"), 1)]);
        self.dag.dir(&[
            (b"content", self.content, 9),
            (b"extra", extra, 1),
            (b"pack.json", cid, manifest.len() as u64),
        ])
    }
}

#[test]
fn entries_that_are_not_known_are_not_even_asked_for() {
    let mut pack = Pack::new();
    let bytes = pack.manifest().to_bytes().expect("small");
    let root = pack.root(&bytes);
    let mut reader = SkeletonReader::new(root, Limits::DEFAULT);
    assert_eq!((reader.content_cid(), reader.manifest()), (None, None));
    reader.add(&root, &pack.dag.0[&root]).expect("good");
    // pack.json and content/; the root was added without having been named.
    assert_eq!(reader.wanted(10).len(), 2);
}

#[test]
fn a_pack_is_read_with_its_exact_bytes() {
    let mut pack = Pack::new();
    let mut bytes = pack.manifest().to_bytes().expect("small");
    bytes.extend(b"  \n");
    let root = pack.root(&bytes);
    let skeleton = pack.dag.read(root).expect("good");
    let head = skeleton.pack.expect("a pack");
    assert_eq!((head.manifest, &head.manifest_bytes[..]), (pack.manifest(), &bytes[..]));
    assert!(root.verifies(&head.root_bytes) && head.manifest_cid.verifies(&head.manifest_bytes));
    assert_eq!(
        (skeleton.content.cid(), skeleton.content.node_cids().collect()),
        (pack.content, vec![pack.content])
    );
}

#[test]
fn a_head_alone_is_read_without_its_content() {
    let mut pack = Pack::new();
    let bytes = pack.manifest().to_bytes().expect("small");
    let root = pack.root(&bytes);
    pack.dag.0.remove(&pack.content);
    let block = |without: Option<Cid>| {
        let dag = &pack.dag;
        move |cid: &Cid| {
            let held = dag.0.get(cid).filter(|_| Some(*cid) != without);
            Ok::<_, ()>(held.map(|bytes| bytes::Bytes::copy_from_slice(bytes)))
        }
    };
    let head = PackHead::read(&root, block(None)).expect("no error").expect("a pack");
    assert_eq!((head.manifest, &head.manifest_bytes[..]), (pack.manifest(), &bytes[..]));
    // One of its blocks is not here; it is no pack; the blocks cannot be read.
    for without in [root, head.manifest_cid] {
        assert!(PackHead::read(&root, block(Some(without))).expect("no error").is_none());
    }
    let manifest = head.manifest_cid;
    assert!(PackHead::read(&manifest, block(None)).expect("no error").is_none());
    assert!(PackHead::read(&root, |_| Err::<Option<bytes::Bytes>, _>(())).is_err());
    // It speaks of another content than the one beside it.
    let other = Manifest::new(leaf("z"), Name::new("My pack").expect("valid"));
    let root = pack.root(&other.to_bytes().expect("small"));
    let read = PackHead::read(&root, |cid| Ok::<_, ()>(pack.dag.0.get(cid).cloned().map(Into::into)));
    assert!(read.expect("no error").is_none());
}

#[test]
fn a_folder_that_only_looks_like_a_pack_is_a_folder() {
    for bytes in [&b"{\"name\": \"my npm package\"}"[..], b"not json", b""] {
        let mut pack = Pack::new();
        let root = pack.root(bytes);
        let skeleton = pack.dag.read(root);
        let skeleton = skeleton.expect("good");
        assert!(skeleton.pack.is_none());
        assert_eq!(
            skeleton.content.files().len(),
            3,
            "content/mod.pak, extra/unknown, pack.json"
        );
    }
    // A pack's folder, named as a content, is not taken for the pack.
    let mut pack = Pack::new();
    let bytes = pack.manifest().to_bytes().expect("small");
    let root = pack.root(&bytes);
    let mut reader = SkeletonReader::of_content(root, Limits::DEFAULT);
    while let [cid] = reader.wanted(1)[..] {
        reader.add(&cid, &pack.dag.0[&cid]).expect("good");
    }
    assert_eq!(reader.finish().expect("good").content.files().len(), 3);
}

#[test]
fn a_pack_that_contradicts_itself_is_refused() {
    let mut pack = Pack::new();
    let other = Manifest {
        content: leaf("another"),
        ..pack.manifest()
    };
    let root = pack.root(&other.to_bytes().expect("small"));
    assert_refused!(pack.dag.read(root), SkeletonError::OtherContent { .. });

    // The content must be a folder.
    let file = pack.dag.file(&[(leaf("x"), 1), (leaf("y"), 1)]);
    pack.content = file;
    let root = pack.root(&pack.manifest().to_bytes().expect("small"));
    assert_refused!(pack.dag.read(root), SkeletonError::WrongKind { .. });
}

#[test]
fn a_manifest_from_the_future_asks_for_a_newer_program() {
    let mut pack = Pack::new();
    let root = pack.root(b"{\"modswarm\": 2, \"content\": {\"new\": true}}");
    assert_refused!(pack.dag.read(root), SkeletonError::Manifest(ManifestError::Newer(2)));
}

#[test]
fn a_manifest_longer_than_it_says_is_refused() {
    let mut pack = Pack::new();
    let mut bytes = pack.manifest().to_bytes().expect("small");
    bytes.resize(MAX_MANIFEST_LEN + 1, b' ');
    let manifest = pack.dag.put(Codec::Raw, bytes);
    let root = pack
        .dag
        .dir(&[(b"content", pack.content, 9), (b"pack.json", manifest, 100)]);
    assert_refused!(pack.dag.read(root), SkeletonError::Manifest(ManifestError::TooLong(_)));
}
