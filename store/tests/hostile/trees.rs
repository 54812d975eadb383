//! Skeletons made to do harm, taken through the store as a get would: the nodes are put, and the download is begun.

use std::time::{Duration, Instant};

use bytes::Bytes;
use modswarm_protocol::{Cid, Codec, HashKind, format::Name};
use modswarm_store::{BeginError, Conflicts, DownloadSpec, Store, WriteError};

use super::{assert_helps, common::*, words};

/// Nodes written by hand, as nobody's encoder would.
#[derive(Default)]
struct Dag(Vec<(Cid, Bytes)>);

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3][..], &varint(value)].concat()
}

struct Link<'a> {
    name: &'a [u8],
    cid: Vec<u8>,
    size: u64,
}

impl Dag {
    fn put(&mut self, links: &[Link<'_>], data: &[u8]) -> Cid {
        let mut block = Vec::new();
        for link in links {
            let link = [field(1, &link.cid), field(2, link.name), number(3, link.size)].concat();
            block.extend(field(2, &link));
        }
        block.extend(field(1, data));
        let cid = Cid::of(Codec::DagPb, HashKind::Blake3, &block);
        self.0.push((cid, block.into()));
        cid
    }

    fn folder(&mut self, entries: &[(&[u8], Cid, u64)]) -> Cid {
        let links: Vec<Link<'_>> = entries.iter().map(|(name, cid, size)| link(name, cid, *size)).collect();
        self.put(&links, &number(1, 1))
    }

    /// A file of parts, each with the size that the file says of it.
    fn file(&mut self, parts: &[(Cid, u64)], said: u64) -> Cid {
        let links: Vec<Link<'_>> = parts.iter().map(|(cid, size)| link(b"", cid, *size)).collect();
        let sizes: Vec<u8> = parts.iter().flat_map(|(_, size)| number(4, *size)).collect();
        self.put(&links, &[number(1, 2), number(3, said), sizes].concat())
    }
}

fn link<'a>(name: &'a [u8], cid: &Cid, size: u64) -> Link<'a> {
    Link {
        name,
        cid: cid.to_bytes().to_vec(),
        size,
    }
}

fn leaf(bytes: &[u8]) -> Cid {
    Cid::of(Codec::Raw, HashKind::Blake3, bytes)
}

fn spec_of(content: Cid, place: &Place) -> DownloadSpec {
    DownloadSpec {
        pack: None,
        content,
        name: Name::new("Pack").unwrap(),
        destination: place.path("in/Pack"),
        selection: None,
        conflicts: Conflicts::TakeTheirs,
        network: NETWORK,
    }
}

fn begin(store: &Store, place: &Place, dag: &Dag, root: Cid) -> Result<modswarm_store::Download, BeginError> {
    store.put_nodes(&dag.0).unwrap();
    let began = Instant::now();
    let download = store.begin_download(&spec_of(root, place), &());
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it took {:?}",
        began.elapsed()
    );
    download
}

/// Nothing is begun, and what is said has `parts` in it.
#[track_caller]
fn assert_refused(dag: &Dag, root: Cid, parts: &[&str]) {
    let place = Place::new();
    let store = place.store("home");
    write(&place.path("in/mine"), b"mine");
    let refused = begin(&store, &place, dag, root).unwrap_err();
    assert!(matches!(refused, BeginError::Skeleton(_)), "{refused:?}");
    let text = words(&refused);
    assert_helps(&text, parts);
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    assert_eq!(tree(&place.path("in")).len(), 1, "something was written");
    assert!(store.packs().unwrap().is_empty());
    // The same home goes on with an honest pack.
    write(&place.path("p/f"), b"honest");
    let pack = share(&store, &place.path("p"));
    assert_readable(&store, &pack.content);
}

#[test]
fn names_that_leave_the_folder_or_deceive_are_refused() {
    let names: [(&[u8], &str); 12] = [
        (b"..", "points to another folder"),
        (b".", "points to another folder"),
        (b"", "empty"),
        (b"/etc/passwd", "not allowed"),
        (b"a/../../b", "not allowed"),
        (b"C:\\Windows\\x", "not allowed"),
        (b"..\\x", "not allowed"),
        (b"nul\0byte", "not allowed"),
        (b"line\nbreak", "not allowed"),
        (b"\x1b[2Jescape", "not allowed"),
        (b"\xff\xfe", "not valid UTF-8"),
        (&[b'x'; 800], "too long"),
    ];
    for (name, part) in names {
        println!("{:?}", String::from_utf8_lossy(name));
        let mut dag = Dag::default();
        let inner = dag.folder(&[(name, leaf(b"x"), 1)]);
        assert_refused(&dag, inner, &[part, "do harm", "share"]);
        let root = dag.folder(&[(b"deeper", inner, 0)]);
        assert_refused(&dag, root, &[part]);
    }
}

#[test]
fn names_that_are_one_on_a_disk_are_refused() {
    let twins: [(&[u8], &[u8]); 2] = [("é".as_bytes(), "e\u{301}".as_bytes()), (b"same", b"same")];
    for (one, other) in twins {
        let mut dag = Dag::default();
        let root = dag.folder(&[(one, leaf(b"x"), 1), (other, leaf(b"y"), 1)]);
        assert_refused(&dag, root, &["twice in one folder"]);
        // A file and a folder of one name.
        let mut dag = Dag::default();
        let folder = dag.folder(&[(b"f", leaf(b"x"), 1)]);
        let root = dag.folder(&[(one, folder, 1), (other, leaf(b"y"), 1)]);
        assert_refused(&dag, root, &["twice in one folder"]);
    }
}

/// Legal on some systems: there they are created as they are, on others they are refused by name.
#[test]
fn names_that_only_some_systems_know_stay_inside_the_destination() {
    let place = Place::new();
    let store = place.store("home");
    let names = [
        "CON",
        "nul.txt",
        "trailing.",
        "trailing ",
        "a:stream",
        "what?",
        "COM0",
        "\u{202e}kap.dlo",
    ];
    let mut dag = Dag::default();
    let entries: Vec<(&[u8], Cid, u64)> = names
        .iter()
        .map(|name| (name.as_bytes(), leaf(name.as_bytes()), name.len() as u64))
        .collect();
    let root = dag.folder(&entries);
    match begin(&store, &place, &dag, root) {
        Ok(download) => {
            let map = download.content().map().clone();
            for (index, found) in map.iter() {
                let bytes = names.iter().find(|name| leaf(name.as_bytes()) == found.cid).unwrap();
                download.write_piece(index, bytes.as_bytes()).unwrap();
            }
            download.finish().unwrap();
            let out = tree(&place.path("in"));
            assert_eq!(out.len(), names.len() + 1);
            for name in names {
                assert_eq!(out[&format!("Pack/{name}")].as_deref(), Some(name.as_bytes()));
            }
        }
        Err(refused) => {
            let BeginError::Blocked(_) = &refused else {
                panic!("{refused}")
            };
            assert_helps(&words(&refused), &["cannot be created on this system"]);
            assert!(!place.path("in").exists());
        }
    }
}

#[test]
fn a_folder_that_doubles_at_every_level_is_refused_at_once() {
    let mut dag = Dag::default();
    let mut folder = dag.folder(&[(b"a", leaf(b"x"), 1), (b"b", leaf(b"x"), 1)]);
    for _ in 0..60 {
        folder = dag.folder(&[(b"a", folder, 0), (b"b", folder, 0)]);
    }
    assert_refused(&dag, folder, &["too large", "in several packs"]);
}

#[test]
fn a_file_that_repeats_one_leaf_beyond_every_disk_is_refused_at_once() {
    let mut dag = Dag::default();
    let part = leaf(&[1; 100]);
    let (mut file, mut size) = (
        dag.file(&vec![(part, 2 << 20); 1000], 1000 * (2 << 20)),
        1000_u64 * (2 << 20),
    );
    for _ in 0..3 {
        file = dag.file(&vec![(file, size); 1000], 1000 * size);
        size *= 1000;
    }
    let root = dag.folder(&[(b"huge", file, size)]);
    assert_refused(&dag, root, &["too large"]);
}

#[test]
fn folders_nested_without_end_are_refused() {
    let mut dag = Dag::default();
    let mut folder = dag.folder(&[(b"f", leaf(b"x"), 1)]);
    for _ in 0..3000 {
        folder = dag.folder(&[(b"d", folder, 0)]);
    }
    assert_refused(&dag, folder, &["too large", "nested"]);
    let mut dag = Dag::default();
    let mut file = dag.file(&[(leaf(b"x"), 1)], 1);
    for _ in 0..40 {
        file = dag.file(&[(file, 1)], 1);
    }
    let root = dag.folder(&[(b"f", file, 1)]);
    assert_refused(&dag, root, &["nested", "shared again"]);
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let x = leaf(b"x");
    let mut dag = Dag::default();
    let root = dag.file(&[(x, 1), (leaf(b"yy"), 2)], 4);
    assert_refused(&dag, root, &["lies about sizes", "4"]);
    let mut dag = Dag::default();
    let part = dag.file(&[(x, 1)], 1);
    let root = dag.file(&[(part, 1 << 40)], 1 << 40);
    assert_refused(&dag, root, &["lies about sizes"]);
    // One leaf of two lengths.
    let mut dag = Dag::default();
    let root = dag.folder(&[(b"a", x, 1), (b"b", x, 2)]);
    assert_refused(&dag, root, &["lies about sizes"]);
    // No bytes where there must be some, and sums beyond every number.
    let mut dag = Dag::default();
    let root = dag.folder(&[(b"a", x, 0)]);
    assert_refused(&dag, root, &["lies about sizes"]);
    let mut dag = Dag::default();
    let (part, most) = (dag.file(&[(x, 1)], 1), u64::MAX);
    let root = dag.file(&[(part, most), (part, most)], most);
    assert_refused(&dag, root, &["more than any disk holds"]);
    let mut dag = Dag::default();
    let root = dag.folder(&[(b"a", x, 3 << 20)]);
    assert_refused(&dag, root, &["bytes long"]);
}

/// The author lied, the leaf is right: it is never written beyond what was said of it.
#[test]
fn a_leaf_of_another_length_than_its_folder_says_is_not_written() {
    let place = Place::new();
    let store = place.store("home");
    let mut dag = Dag::default();
    let root = dag.folder(&[(b"a", leaf(&[7; 5000]), 10), (b"b", leaf(b"b"), 1)]);
    let download = begin(&store, &place, &dag, root).unwrap();
    let index = download.content().map().index(0).unwrap();
    let refused = download.write_piece(index, &[7; 5000]).unwrap_err();
    assert!(
        matches!(
            refused,
            WriteError::Length {
                expected: 10,
                given: 5000
            }
        ),
        "{refused}"
    );
    assert!(!download.have().any());
    drop(download);
    let id = store.packs().unwrap()[0].id;
    store.remove_pack(id, true).unwrap();
    assert!(tree(&place.path("in")).is_empty());
}

#[test]
fn cids_that_prove_nothing_are_refused() {
    let refused: [(Vec<u8>, &str); 4] = [
        (b"\x01\x55\x00\x04data".to_vec(), "identity"),
        ([&[1, 0x55, 0x12, 20][..], &[7; 20]].concat(), "20 bytes instead of 32"),
        ([&[1, 0x55, 0x13, 32][..], &[7; 32]].concat(), "hash function"),
        ([&[1, 0x71, 0x12, 32][..], &[7; 32]].concat(), "not a file or a folder"),
    ];
    for (cid, part) in refused {
        let mut dag = Dag::default();
        let root = dag.put(
            &[Link {
                name: b"f",
                cid,
                size: 4,
            }],
            &number(1, 1),
        );
        let place = Place::new();
        let store = place.store("home");
        let text = words(&begin(&store, &place, &dag, root).unwrap_err());
        assert!(text.contains(part) && text.contains("cannot be fetched"), "{text}");
        assert!(!place.path("in").exists());
    }
}

/// A circle needs two blocks that hash to one digest. Nodes are hashed when they are read, so that even a home that somebody wrote one into is not led around in it.
#[test]
fn nodes_that_are_not_what_their_cids_say_are_not_there() {
    let place = Place::new();
    let store = place.store("home");
    let mut dag = Dag::default();
    let below = dag.folder(&[(b"f", leaf(b"x"), 1)]);
    let root = dag.folder(&[(b"d", below, 1)]);
    // In the place of what lies below: the root's own bytes.
    let (_, bytes) = dag.0.pop().unwrap();
    let circle = [(below, bytes.clone()), (root, bytes)];
    store.put_nodes(&circle).unwrap();
    let refused = store.begin_download(&spec_of(root, &place), &()).unwrap_err();
    assert!(matches!(refused, BeginError::UnknownContent(_)), "{refused}");
    assert_eq!(store.node(&below).unwrap(), None);
    assert!(!place.path("in").exists());
}

#[test]
fn symbolic_links_of_a_pack_are_left_out_and_said() {
    let place = Place::new();
    let store = place.store("home");
    let mut dag = Dag::default();
    let symlink = dag.put(&[], &[number(1, 4), field(2, b"/etc")].concat());
    let root = dag.folder(&[(b"evil", symlink, 1), (b"good", leaf(b"x"), 1)]);
    store.put_nodes(&dag.0).unwrap();
    let watch = Watch::default();
    let download = store.begin_download(&spec_of(root, &place), &watch).unwrap();
    assert_eq!(watch.warnings.lock().unwrap().len(), 1);
    let index = download.content().map().index(0).unwrap();
    download.write_piece(index, b"x").unwrap();
    download.finish().unwrap();
    let out = tree(&place.path("in/Pack"));
    assert_eq!(out.keys().collect::<Vec<_>>(), ["good"]);
}
