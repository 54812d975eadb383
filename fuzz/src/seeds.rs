//! Inputs made from real structures: what the kept corpora begin with.
//!
//! They are the same in every run, so that a change of a format shows as a change of the corpora.

use std::collections::HashMap;

use bytes::Bytes;
use modswarm_protocol::format::{
    Cid, Codec, ContentBuilder, HashKind, Leaf, Limits, Link, Manifest, Name, SkeletonReader, build_pack,
};
use modswarm_protocol::wire::{
    BulkHeader, CloseReason, Encoding, Extension, Handle, Have, HaveMap, Hello, KnownPeer, Message, NetworkId,
    RejectReason, Rejection, RequestId, Run, StreamKind, What,
};
use modswarm_store::fuzzing;

use super::{
    engine::{self, Fact, Step},
    input::put_block,
    skeleton::{self, Flags},
};

/// All of them: target, file name, bytes.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let named = |target: &'static str, seeds: Vec<Vec<u8>>| {
        let seeds = seeds.into_iter().enumerate();
        seeds.map(move |(at, bytes)| (target, format!("seed-{at:02}"), bytes))
    };
    let mut all = Vec::new();
    all.extend(named("block", blocks()));
    all.extend(named("skeleton", skeletons()));
    all.extend(named("manifest", manifests()));
    all.extend(named("link", links()));
    all.extend(named("wire", wires()));
    all.extend(named("engine", engines()));
    all.extend(named("records", fuzzing::record_seeds()));
    all.extend(named("place", fuzzing::place_seeds()));
    all.extend(named("choice", fuzzing::choice_seeds()));
    all.extend(named("segment", fuzzing::segment_seeds()));
    all.extend(named("home", homes()));
    all
}

fn leaf(hash: HashKind, text: &str) -> Leaf {
    Leaf {
        cid: Cid::of(Codec::Raw, hash, text.as_bytes()),
        len: text.len() as u32,
    }
}

/// A pack's blocks, the root first.
struct Dag {
    root: Cid,
    blocks: Vec<(Cid, Bytes)>,
}

fn dag(hash: HashKind, files: &[(&str, usize)]) -> Dag {
    let mut builder = ContentBuilder::new(hash);
    builder
        .add_dir("empty/inside".parse().expect("a path"))
        .expect("no clash");
    for (path, leaves) in files {
        // Leaves repeat within a file and across files.
        let leaves = (0..*leaves).map(|at| leaf(hash, &format!("{}", at % 7)));
        builder
            .add_file(path.parse().expect("a path"), leaves)
            .expect("no clash");
    }
    let built = builder.finish().expect("small");
    let manifest = manifest(built.cid, true).to_bytes().expect("small");
    let pack = build_pack(&built, &manifest, Some(b"a signature"));
    let blocks = pack.blocks.iter().chain(built.nodes.iter().rev()).cloned().collect();
    Dag { root: pack.cid, blocks }
}

fn manifest(content: Cid, full: bool) -> Manifest {
    let mut manifest = Manifest::new(content, Name::new("Skins").expect("a name"));
    if full {
        manifest.description = Some("Two lines,\nof which this is one.".into());
        manifest.creator = Some("someone".into());
        manifest.game = Some("a game".into());
        manifest.tags = vec!["red".into(), "blue".into()];
        manifest.version = Some("1.2".into());
        manifest.previous = Some(content);
        manifest.created = Some(1_750_000_000);
        manifest.chunker = "fastcdc2020-131072".parse().ok();
        manifest.exec = vec!["tools/run.sh".into()];
    }
    manifest
}

/// More entries than a plain folder holds are too many for a corpus: a large folder is made by hand.
fn dags() -> Vec<Dag> {
    vec![
        dag(HashKind::Blake3, &[]),
        dag(
            HashKind::Blake3,
            &[("a.pak", 1), ("zero", 0), ("sub/b.pak", 3), ("sub/deeper/c.ucas", 12)],
        ),
        dag(
            HashKind::Sha2_256,
            &[("a.pak", 2), ("Skin v1.2_9999999_P.pak", 1), ("файл/日本語", 2)],
        ),
    ]
}

fn blocks() -> Vec<Vec<u8>> {
    let dags = dags();
    let nodes = dags
        .iter()
        .flat_map(|dag| &dag.blocks)
        .filter(|(cid, _)| cid.codec() == Codec::DagPb);
    let mut blocks: Vec<Vec<u8>> = nodes.map(|(_, bytes)| bytes.to_vec()).collect();
    blocks.push(shard());
    // Foreign: a file that carries its bytes, a symbolic link, a leaf of old tools, block sizes packed.
    blocks.push(b"\x0a\x0b\x08\x02\x12\x05bytes\x18\x05".to_vec());
    blocks.push(b"\x0a\x0a\x08\x04\x12\x06/etc/x".to_vec());
    blocks.push(b"\x0a\x08\x08\x00\x12\x02hi\x18\x02".to_vec());
    blocks.push(b"\x0a\x08\x08\x02\x18\x00\x22\x02\x01\x02".to_vec());
    blocks.sort();
    blocks.dedup();
    blocks
}

/// A part of a large folder with one entry, as its hash places it.
fn shard() -> Vec<u8> {
    // Read back to find the position at which it is accepted.
    let make = |position: u8| {
        let leaf = leaf(HashKind::Blake3, "leaf");
        let mut bits = [0_u8; 32];
        bits[31 - usize::from(position) / 8] = 1 << (position % 8);
        let zeros = bits.iter().take_while(|byte| **byte == 0).count();
        let bits = &bits[zeros..];
        let name = format!("{position:02X}entry");
        let mut link = vec![0x0a, 36];
        link.extend_from_slice(&leaf.cid.to_bytes());
        link.extend_from_slice(&[0x12, name.len() as u8]);
        link.extend_from_slice(name.as_bytes());
        link.extend_from_slice(&[0x18, 4]);
        let mut data = vec![0x08, 5, 0x12, bits.len() as u8];
        data.extend_from_slice(bits);
        data.extend_from_slice(&[0x28, 0x22, 0x30, 0x80, 0x02]);
        [&[0x12, link.len() as u8][..], &link, &[0x0a, data.len() as u8], &data].concat()
    };
    let accepted = |bytes: &Vec<u8>| {
        let root = Cid::of(Codec::DagPb, HashKind::Blake3, bytes);
        let mut reader = SkeletonReader::of_content(root, Limits::DEFAULT);
        reader.add(&root, bytes).is_ok() && reader.finish().is_ok()
    };
    (0..=255).map(make).find(accepted).expect("one position is right")
}

/// The blocks of a pack in the form that the target reads: each known by its place.
fn skeleton_input(flags: u8, dag: &Dag) -> Vec<u8> {
    let mut names: HashMap<Cid, Cid> = HashMap::new();
    for (at, (cid, _)) in dag.blocks.iter().enumerate() {
        names.insert(*cid, skeleton::name(cid.codec(), at as u8));
    }
    let mut out = vec![flags];
    for (cid, bytes) in &dag.blocks {
        let mut bytes = bytes.to_vec();
        if cid.codec() == Codec::DagPb {
            for at in 0..bytes.len().saturating_sub(Cid::BINARY_LEN - 1) {
                let place = at..at + Cid::BINARY_LEN;
                if let Some(name) = Cid::from_bytes(&bytes[place.clone()])
                    .ok()
                    .and_then(|cid| names.get(&cid))
                {
                    bytes[place].copy_from_slice(&name.to_bytes());
                }
            }
        } else {
            // pack.json says which content it is for.
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            for (cid, name) in &names {
                text = text.replace(&cid.to_string(), &name.to_string());
            }
            bytes = text.into_bytes();
        }
        put_block(&mut out, &bytes);
    }
    out
}

fn skeletons() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for dag in dags() {
        assert_eq!(dag.blocks[0].0, dag.root);
        seeds.push(skeleton_input(0, &dag));
        // The content alone: without the pack's root, pack.json and pack.sig.
        let content = Dag {
            root: dag.blocks[3].0,
            blocks: dag.blocks[3..].to_vec(),
        };
        seeds.push(skeleton_input(Flags::CONTENT | Flags::UNASKED, &content));
    }
    for seed in &seeds {
        let skeleton = skeleton::read(seed).expect("what was built can be read");
        assert_eq!(skeleton.pack.is_some(), seed[0] & Flags::CONTENT == 0);
    }
    let alone = |flags: u8, blocks: &[&[u8]]| {
        let mut out = vec![flags];
        blocks.iter().for_each(|bytes| put_block(&mut out, bytes));
        out
    };
    seeds.push(alone(Flags::RAW | Flags::NAMED, &[b"one leaf"]));
    seeds.push(alone(0, &[&shard()]));
    // A folder in itself, and a file in itself, as if their hashes collided.
    let own = skeleton::name(Codec::DagPb, 0).to_bytes();
    let link = [&[0x0a, 36][..], &own, b"\x12\x01x\x18\x01"].concat();
    let folder = [&[0x12, link.len() as u8][..], &link, b"\x0a\x02\x08\x01"].concat();
    seeds.push(alone(0, &[&folder]));
    let link = [&[0x0a, 36][..], &own, b"\x12\x00\x18\x01"].concat();
    let file = [
        &[0x12, link.len() as u8][..],
        &link,
        b"\x0a\x06\x08\x02\x18\x05\x20\x05",
    ]
    .concat();
    seeds.push(alone(Flags::NAMED, &[&file]));
    seeds
}

fn manifests() -> Vec<Vec<u8>> {
    let content = Cid::of(Codec::DagPb, HashKind::Blake3, b"content");
    let mut seeds: Vec<Vec<u8>> = [false, true]
        .map(|full| manifest(content, full).to_bytes().expect("small"))
        .into();
    let text =
        format!("{{\"modswarm\":1,\"content\":\"{content}\",\"name\":\"x\",\"chunker\":\"of later\",\"more\":[[[]]]}}");
    seeds.push(text.into_bytes());
    seeds
}

fn links() -> Vec<Vec<u8>> {
    let cid = |codec, hash| Cid::of(codec, hash, b"content");
    let pack = cid(Codec::DagPb, HashKind::Blake3);
    let link = Link {
        pack,
        content: Some(cid(Codec::DagPb, HashKind::Sha2_256)),
        name: Name::new("Skins & more").ok(),
        addrs: [
            "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5",
            "/ip6/2001:db8::1/udp/4001/quic-v1",
            "/dns4/example.org/tcp/443/tls/ws",
        ]
        .map(|addr| addr.parse().expect("an address"))
        .into(),
        expires: Some(1_900_000_000),
    };
    let text = [
        link.to_string(),
        pack.to_string(),
        format!("ipfs://{pack}/"),
        format!("/ipfs/{pack}?filename=a%20b"),
        format!("https://gateway.example/ipfs/{pack}#x"),
        format!("https://{pack}.ipfs.gateway.example/"),
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG".to_owned(),
        format!("<MODSWARM:{pack}?n=..%2F&n=%ff&x=18446744073709551615>"),
        "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567".to_owned(),
        "eyJjb2RlIjoiMTIzNDU2Nzg5MCJ9".to_owned(),
        "mods/Skin v1.2_9999999_P.pak".to_owned(),
        "e\u{301}/CON.txt".to_owned(),
    ];
    let mut seeds: Vec<Vec<u8>> = text.into_iter().map(String::into_bytes).collect();
    seeds.push(pack.to_bytes().to_vec());
    seeds
}

/// One message of each kind.
fn messages() -> Vec<Message> {
    let (fetched, map) = engine::content(0);
    let (seeded, _) = engine::content(1);
    let handle = Handle(0);
    let runs = vec![Run { start: 0, len: 3 }, Run { start: 9, len: 1 }];
    let cids = map.iter().take(3).map(|(_, leaf)| leaf.cid).collect::<Vec<_>>();
    let extension = Extension {
        name: "zstd".into(),
        value: vec![3],
    };
    vec![
        Message::Hello(Hello {
            network: NetworkId::PUBLIC,
            agent: "modswarm/0.1.0".into(),
            extensions: vec![extension],
        }),
        Message::Open { handle, root: fetched },
        Message::Open {
            handle: Handle(1),
            root: seeded,
        },
        Message::Opened {
            handle,
            have: Have::None,
        },
        Message::Opened {
            handle,
            have: Have::All,
        },
        Message::Opened {
            handle,
            have: Have::Map(HaveMap::Bits(vec![0x55; 8])),
        },
        Message::Opened {
            handle,
            have: Have::Map(HaveMap::Runs(runs.clone())),
        },
        Message::Unchoke,
        Message::Request {
            handle: Handle(1),
            runs: runs.clone(),
        },
        Message::RequestCids {
            handle: Handle(1),
            request: RequestId(4),
            cids: cids.clone(),
        },
        Message::WantNodes {
            handle,
            request: RequestId(5),
            cids: cids.clone(),
        },
        Message::WantSkeleton {
            handle,
            request: RequestId(6),
            cids,
        },
        Message::Cancel {
            handle: Handle(1),
            runs: runs.clone(),
        },
        Message::Release {
            handle: Handle(1),
            runs: runs.clone(),
        },
        Message::Pace {
            handle: None,
            rate: 200_000,
        },
        Message::Pace {
            handle: Some(Handle(1)),
            rate: 0,
        },
        Message::Have {
            handle,
            runs: runs.clone(),
        },
        Message::Lost {
            handle,
            runs: runs.clone(),
        },
        Message::Offer {
            handle,
            runs: runs.clone(),
        },
        Message::Rejected {
            handle,
            what: Rejection::Open,
            reason: RejectReason::NotFound,
        },
        Message::Rejected {
            handle,
            what: Rejection::Pieces(runs),
            reason: RejectReason::Busy,
        },
        Message::Rejected {
            handle,
            what: Rejection::Blocks {
                request: RequestId(5),
                positions: vec![0, 2],
            },
            reason: RejectReason::Other(9),
        },
        Message::Choke,
        Message::Closed {
            handle,
            reason: CloseReason::Removed,
        },
        Message::Close { handle: Handle(1) },
        Message::Peers {
            handle,
            peers: vec![KnownPeer {
                id: [&[0, 36, 8, 1, 18, 32][..], &[7; 32]].concat().into(),
                flags: KnownPeer::SEED,
                addrs: vec![[4, 127, 0, 0, 1, 6, 0x1f, 0x90].into()],
            }],
        },
    ]
}

fn header(what: What) -> BulkHeader {
    BulkHeader {
        handle: Handle(0),
        what,
        encoding: Encoding::Plain,
        len: engine::LEN,
    }
}

fn headers() -> [BulkHeader; 3] {
    [
        header(What::Piece(5)),
        header(What::Block {
            request: RequestId(5),
            position: 1,
        }),
        header(What::Node {
            request: RequestId(6),
            cid: Cid::of(Codec::DagPb, HashKind::Blake3, b"node"),
            more: 3,
        }),
    ]
}

fn wires() -> Vec<Vec<u8>> {
    let mut all = vec![StreamKind::Control.to_byte()];
    messages().iter().for_each(|message| message.encode(&mut all));
    let mut seeds = vec![all];
    for message in messages() {
        let mut seed = vec![StreamKind::Control.to_byte()];
        message.encode(&mut seed);
        seeds.push(seed);
    }
    for header in headers() {
        let mut seed = vec![StreamKind::Bulk.to_byte()];
        header.encode(&mut seed);
        seeds.push(seed);
    }
    seeds
}

fn say(out: &mut Vec<u8>, slot: u8, message: &Message) {
    out.push(slot << 4 | Step::SAY);
    message.encode(out);
}

fn engines() -> Vec<Vec<u8>> {
    // A peer that we fetch from: opens, answers some requests rightly and one wrongly, goes.
    let mut fetch = vec![Step::CONNECT];
    let opened = Message::Opened {
        handle: Handle(0),
        have: Have::All,
    };
    say(&mut fetch, 0, &Message::Unchoke);
    say(&mut fetch, 0, &opened);
    for at in 0..6 {
        fetch.push(Step::ANSWER);
        fetch.extend_from_slice(&[Step::PROGRESS, 200, 0, Step::PROGRESS, 232, 3]);
        fetch.extend_from_slice(&[Step::VERDICT, 0, if at == 5 { 0 } else { 2 }]);
        fetch.extend_from_slice(&[Step::WAIT, 100, 0]);
    }
    fetch.push(Step::DISCONNECT);
    // A peer that fetches from us.
    let mut serve = vec![Step::CONNECT];
    let (seeded, _) = engine::content(1);
    let open = Message::Open {
        handle: Handle(1),
        root: seeded,
    };
    say(&mut serve, 0, &open);
    serve.extend_from_slice(&[Step::WAIT, 16, 39]);
    let request = Message::Request {
        handle: Handle(1),
        runs: vec![Run { start: 0, len: 40 }],
    };
    say(&mut serve, 0, &request);
    serve.extend_from_slice(&[Step::SERVED, 2, Step::SERVED, 1, Step::SERVED, 0, Step::WAIT, 255, 255]);
    // One of everything, from three peers, the last of whom says his own hello.
    let mut mixed = vec![Step::CONNECT, 1 << 4, 2 << 4 | Step::CONNECT_SILENT];
    for (at, message) in messages().iter().enumerate() {
        say(&mut mixed, (at % 3) as u8, message);
        say(&mut mixed, 2, message);
    }
    for header in headers() {
        mixed.push(Step::HEADER);
        header.encode(&mut mixed);
    }
    mixed.extend_from_slice(&[Step::LOSE, 3, Step::FIND, 3, Step::FIND, 4, Step::PAUSE, Step::RESUME]);
    mixed.extend_from_slice(&[Step::LIMIT, 1, 0, Step::WAIT, 255, 255, Step::WAIT, 255, 255]);
    // A peer that answers before we know the pieces, and opens what is not in memory.
    let mut early = vec![Step::CONNECT];
    early.extend_from_slice(&[Step::FACT, Fact::NODE, 1]);
    let opened = |have| Message::Opened {
        handle: Handle(1),
        have,
    };
    let runs = vec![Run { start: 3, len: 9 }];
    say(&mut early, 0, &opened(Have::Map(HaveMap::Runs(runs.clone()))));
    say(&mut early, 0, &Message::Unchoke);
    say(
        &mut early,
        0,
        &Message::Have {
            handle: Handle(1),
            runs,
        },
    );
    early.extend_from_slice(&[Step::FACT, Fact::PIECES, 0, Step::WAIT, 100, 0]);
    let (idle, _) = engine::content(engine::IDLE);
    for (handle, fact) in [(1, Fact::READ), (2, Fact::AWAY), (3, Fact::UNREAD)] {
        let handle = Handle(handle);
        say(&mut early, 0, &Message::Open { handle, root: idle });
        early.extend_from_slice(&[Step::FACT, fact, 0]);
        say(&mut early, 0, &Message::Close { handle });
        early.extend_from_slice(&[Step::FACT, Fact::AWAY, 0]);
    }
    early.extend_from_slice(&[
        Step::FACT,
        Fact::WANTED,
        3,
        Step::FACT,
        Fact::ANEW,
        0,
        Step::WAIT,
        255,
        255,
    ]);
    vec![fetch, serve, mixed, early]
}

/// One edit of a home's index for each table and column that numbers, texts or paths stand in.
fn homes() -> Vec<Vec<u8>> {
    let value = |value: &str| {
        let mut out = Vec::new();
        fuzzing::put_value(&mut out, &rusqlite::types::Value::Blob(value.as_bytes().to_vec()));
        out
    };
    let number = |value: i64| {
        let mut out = Vec::new();
        fuzzing::put_value(&mut out, &rusqlite::types::Value::Integer(value));
        out
    };
    let edit = |table: &str, row: u8, column: u8, value: Vec<u8>| {
        let table = fuzzing::TABLES.iter().position(|name| *name == table).unwrap_or(0);
        [&[table as u8, row, column][..], &value].concat()
    };
    vec![
        // More pieces than there are, fewer here than there were, and all of them.
        edit("packs", 1, 12, number(i64::from(u32::MAX))),
        edit("packs", 1, 13, number(0)),
        edit("packs", 2, 16, vec![0]),
        edit("packs", 3, 16, value("")),
        // Numbers of files that the content has not.
        edit("pack_files", 0, 1, number(4_000_000)),
        edit("kept", 0, 1, number(4_000_000)),
        edit("renames", 0, 2, number(4_000_000)),
        // Places outside.
        edit("files", 0, 2, value("../../outside/precious")),
        edit("packs", 3, 17, value("/tmp")),
        edit("stages", 0, 0, value("/tmp")),
        edit("moves", 0, 2, value("/")),
        edit("packs", 1, 6, value("/etc")),
        edit("leaves", 0, 3, number(i64::from(u32::MAX))),
        edit("leaves", 1, 2, number(-1)),
        edit("former", 0, 0, number(1)),
        edit("nodes", 0, 1, value("\x0a\x02\x08\x01")),
        edit("roots", 0, 1, value("relative")),
    ]
}
