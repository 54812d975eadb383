//! Peers that hold to nothing, over real sockets: each offence ends its session, is named once, costs bounded memory, and harms nobody else.

#![cfg(unix)]

#[path = "support/rawpeer.rs"]
mod rawpeer;
mod support;

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use modswarm_protocol::{
    Cid,
    wire::{
        BulkHeader, Encoding, Handle, Have, HaveMap, Hello, Message, NetworkId, RejectReason, Rejection, RequestId,
        Run, StreamKind, What,
        limits::{
            MAX_FRAME_LEN, MAX_HANDLES, MAX_OPENED_LEN, MAX_PAYLOAD_LEN, MAX_QUEUED_CIDS, MAX_QUEUED_PIECES, MAX_RUNS,
        },
    },
};
use rawpeer::{Deeds, RawPack, RawPeer, Wire, hello, want};
use support::{Machine, PATIENCE, Process, Seed, share};

const LOG: [&str; 2] = ["--log", "modswarm=debug"];
/// What an attack may add to a node's peak of memory: generous, for allocators keep what was freed.
const MEMORY_KIB: u64 = 96 * 1024;
const PIECES: u32 = 120;
const PIECE_LEN: usize = 50_000;
const HANDLE: Handle = Handle(0);

/// Looks at `find` until it gives something.
async fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lines in which a node says that it parts with a peer.
fn partings(said: &str, peer: PeerId) -> Vec<String> {
    let peer = peer.to_string();
    said.lines()
        .filter(|line| {
            line.contains(&peer) && (line.contains("session ended") || line.contains("closing a connection"))
        })
        .map(str::to_owned)
        .collect()
}

/// Asserts that a node has parted with `peer`, or does so soon, for `reason`, or for one of several, parted by `|`.
async fn assert_left(node: &Process, peer: PeerId, reason: &str) {
    let said = until(&format!("{peer} is left: {reason}\n{}", node.said()), || {
        partings(&node.said(), peer).first().cloned()
    })
    .await;
    let fits = reason.split('|').any(|reason| said.contains(reason));
    assert!(fits, "not for {reason:?}: {said}");
}

/// Asserts that a node has said only once that it parts with `peer`.
fn assert_said_once(node: &Process, peer: PeerId) {
    let said = partings(&node.said(), peer);
    assert_eq!(said.len(), 1, "{said:#?}");
}

fn peak_kib(node: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A node that shares a pack while somebody honest gets it.
struct Attacked {
    seed: Seed,
    addr: String,
    content: Cid,
    pieces: u32,
    honest: Process,
    original: Arc<RawPack>,
    getter: Machine,
    peak_kib: u64,
    _sharer: Machine,
}

impl Attacked {
    async fn new() -> Self {
        tokio::task::spawn_blocking(|| {
            let [sharer, getter] = ["attacked", "honest"].map(Machine::new);
            let original = RawPack::new(7, PIECES, PIECE_LEN);
            original.write_to(&sharer.path("Pack"));
            let seed = share(
                &sharer,
                &sharer.path("Pack"),
                &[&LOG[..], &["--upload-limit", "3MiB/s"]].concat(),
            );
            let honest = getter.start(&["get", &seed.link, "--json", "--no-seed"]);
            honest.until_bytes(1);
            Self {
                addr: seed.ready["addrs"][0].as_str().expect("an address").to_owned(),
                content: seed.content.parse().expect("a CID"),
                pieces: seed.ready["blocks"].as_u64().expect("a number") as u32,
                peak_kib: peak_kib(&seed.process),
                seed,
                honest,
                original,
                getter,
                _sharer: sharer,
            }
        })
        .await
        .expect("no panic")
    }

    /// A peer with the pack's content open as [`HANDLE`].
    async fn opened(&self) -> (RawPeer, PeerId, Wire) {
        let raw = RawPeer::new().await;
        let (node, mut control) = raw.greet(&self.addr).await;
        control.say(&self.open(HANDLE)).await;
        let opened = control
            .until(|message| match message {
                Message::Opened { have, .. } => Some(have),
                _ => None,
            })
            .await;
        assert_eq!(opened, Some(Have::All));
        (raw, node, control)
    }

    fn open(&self, handle: Handle) -> Message {
        Message::Open {
            handle,
            root: self.content,
        }
    }

    /// Asserts that `offender` is left for `reason`, said once; that memory is bounded; and that the honest one gets everything.
    async fn stands(self, offender: PeerId, reason: &str) {
        self.stands_all(&[(offender, reason)]).await;
    }

    async fn stands_all(self, offenders: &[(PeerId, &str)]) {
        for (offender, reason) in offenders {
            assert_left(&self.seed.process, *offender, reason).await;
        }
        let peak = peak_kib(&self.seed.process);
        assert!(
            peak <= self.peak_kib + MEMORY_KIB,
            "from {} to {peak} KiB",
            self.peak_kib
        );
        let (honest, getter, original) = (self.honest, self.getter, self.original);
        let got = tokio::task::spawn_blocking(move || {
            let got = honest.finish();
            assert_eq!(got.code(), 0, "{}", got.said);
            assert!(std::fs::read(getter.path("Pack/raw.pak")).expect("a file") == original.file());
        });
        got.await.expect("the honest one gets everything");
        for (offender, _) in offenders {
            assert_said_once(&self.seed.process, *offender);
        }
    }
}

/// Messages of a greeted peer, each written in one go, for which it is left.
async fn offends_by(reason: &str, messages: impl FnOnce(&Attacked) -> Vec<Message>) {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let (_, mut control) = raw.greet(&node.addr).await;
    for message in messages(&node) {
        if !control.say(&message).await {
            break;
        }
    }
    control.ended().await;
    node.stands(raw.id, reason).await;
}

/// As [`offends_by`], with bytes.
async fn offends_with(reason: &str, bytes: Vec<u8>) {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let (_, mut control) = raw.greet(&node.addr).await;
    control.write(&bytes).await;
    control.ended().await;
    node.stands(raw.id, reason).await;
}

/// Bytes on a greeted peer's bulk stream.
async fn offends_in_bulk(reason: &str, bytes: Vec<u8>) {
    let node = Attacked::new().await;
    let (raw, id, mut control) = node.opened().await;
    let mut bulk = raw.open_as(id, StreamKind::Bulk).await;
    bulk.write(&bytes).await;
    control.ended().await;
    node.stands(raw.id, reason).await;
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn request(start: u32, len: u32) -> Message {
    Message::Request {
        handle: HANDLE,
        runs: vec![Run { start, len }],
    }
}

// The greeting.

#[tokio::test(flavor = "multi_thread")]
async fn a_message_before_the_greeting_is_out_of_order() {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let id = raw.connect(&node.addr).await;
    let mut control = raw.open_as(id, StreamKind::Control).await;
    control.say(&node.open(HANDLE)).await;
    control.ended().await;
    node.stands(raw.id, "messages out of order").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_greeting_is_out_of_order() {
    offends_by("messages out of order", |_| vec![hello()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_another_network_part() {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let id = raw.connect(&node.addr).await;
    let mut control = raw.open_as(id, StreamKind::Control).await;
    let stranger = Hello {
        network: NetworkId([9; 32]),
        agent: "raw/1".to_owned(),
        extensions: Vec::new(),
    };
    control.say(&Message::Hello(stranger)).await;
    control.ended().await;
    node.stands(raw.id, "is in another network").await;
}

// Frames.

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_every_bound_is_refused_by_its_length() {
    let mut bytes = varint(MAX_OPENED_LEN as u64 + 1);
    bytes.resize(1 << 20, 0);
    offends_with("is over the bound", bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_the_bound_of_its_type_is_refused_by_its_head() {
    // A request, and all that it announces.
    let mut bytes = varint(MAX_FRAME_LEN as u64 + 1);
    bytes.push(5);
    bytes.resize(MAX_FRAME_LEN, 0);
    offends_with("is over the bound", bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_varint_without_end_is_refused() {
    offends_with("varint too long", vec![0x80; 1 << 20]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_early_is_malformed() {
    offends_with("message ends early", vec![1, 5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_a_message_are_malformed() {
    // Choke, and a byte.
    offends_with("bytes follow the message", vec![2, 12, 0]).await;
}

// Handles and requests.

#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_do_not_exist_cannot_be_asked_for() {
    offends_by("speaks of pieces that do not exist", |node| {
        vec![node.open(HANDLE), request(node.pieces, 1)]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_opened_once() {
    offends_by("handle opened twice", |node| vec![node.open(HANDLE), node.open(HANDLE)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_are_counted() {
    offends_by("over the limit of handles", |node| {
        (0..=MAX_HANDLES as u32)
            .map(|handle| node.open(Handle(handle)))
            .collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_opened_has_nothing_to_tell() {
    let runs = vec![Run { start: 0, len: 1 }];
    offends_by("messages out of order", |_| {
        vec![Message::Have {
            handle: Handle(77),
            runs,
        }]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_wants_are_over_the_limit() {
    offends_by("over the limit of requested pieces", |node| {
        let all = request(0, node.pieces);
        let mut messages = vec![node.open(HANDLE)];
        // More than is queued and on its way together: nothing of it is read.
        messages.resize(2 + 2 * (MAX_QUEUED_PIECES / node.pieces) as usize, all);
        messages
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_content_ids_are_over_the_limit() {
    offends_by("over the limit of requested content IDs", |node| {
        let mut messages = vec![node.open(HANDLE)];
        // The root is small, and answered at once: asked for so often at once that answers cannot keep up.
        messages.extend((0..64 * MAX_QUEUED_CIDS as u32).map(|i| want(HANDLE, i, vec![node.content; 64])));
        messages
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_vain_are_answered_until_there_are_too_many() {
    let node = Attacked::new().await;
    // Nobody is choked until the slots are taken.
    let mut holders = Vec::new();
    let (raw, mut control) = loop {
        assert!(holders.len() < 64, "slots without end");
        let raw = RawPeer::new().await;
        let (_, mut control) = raw.greet(&node.addr).await;
        control.say(&node.open(HANDLE)).await;
        let mut unchoked = false;
        let opened = control.until(|message| {
            unchoked |= message == Message::Unchoke;
            matches!(message, Message::Opened { .. }).then_some(())
        });
        opened.await.expect("it is here");
        if !unchoked {
            break (raw, control);
        }
        holders.push((raw, control));
    };
    for _ in 0..3 {
        control.say(&request(0, 2)).await;
        let refused = control.until(|message| match message {
            Message::Rejected { what, reason, .. } => Some((what, reason)),
            _ => None,
        });
        let pieces = Rejection::Pieces(vec![Run { start: 0, len: 2 }]);
        assert_eq!(refused.await, Some((pieces, RejectReason::Choked)));
    }
    let mut frame = Vec::new();
    request(0, 2).encode(&mut frame);
    let flood = frame.repeat(64);
    while control.write(&flood).await {}
    control.ended().await;
    // Should it have got its slot meanwhile, so many are too many as well; and as it reads none of the refusals, these may be what is too much first.
    node.stands(raw.id, "over the limit of request|does not read its messages")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_opened_and_closed_without_end_are_too_many() {
    offends_by("over the limit of requests in vain", |node| {
        let cycle = |handle: u32| [node.open(Handle(handle)), Message::Close { handle: Handle(handle) }];
        (0..20_000).flat_map(cycle).collect()
    })
    .await;
}

// Blocks from a leecher.

fn block(what: What, encoding: Encoding, len: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    BulkHeader {
        handle: HANDLE,
        what,
        encoding,
        len,
    }
    .encode(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_nobody_asked_for_is_not_read() {
    let mut bytes = block(What::Piece(0), Encoding::Plain, MAX_PAYLOAD_LEN);
    bytes.resize(bytes.len() + MAX_PAYLOAD_LEN as usize, 1);
    offends_in_bulk("sent a block that was not asked for", bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_unknown_kind_is_malformed() {
    offends_in_bulk("kind of block out of range", vec![9; 100]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_over_the_bound_is_refused_by_its_header() {
    let mut bytes = block(What::Piece(0), Encoding::Plain, 1);
    bytes.pop();
    bytes.extend(varint(u64::from(MAX_PAYLOAD_LEN) + 1));
    offends_in_bulk("length of payload out of range", bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_header_without_end_is_refused() {
    let mut bytes = vec![0];
    bytes.resize(1 << 20, 0xff);
    offends_in_bulk("varint too long", bytes).await;
}

// Streams.

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_unknown_kind_ends_its_connection() {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let id = raw.connect(&node.addr).await;
    let mut stream = raw.open(id).await.expect("connected");
    stream.write(&[7]).await;
    stream.ended().await;
    node.stands(raw.id, "stream of unknown kind").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_one_control_stream() {
    let node = Attacked::new().await;
    let (raw, id, mut control) = node.opened().await;
    let _second = raw.open_as(id, StreamKind::Control).await;
    control.ended().await;
    node.stands(raw.id, "more streams than a session has").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_one_stream_of_blocks() {
    let node = Attacked::new().await;
    let (raw, id, mut control) = node.opened().await;
    let _first = raw.open_as(id, StreamKind::Bulk).await;
    let _second = raw.open_as(id, StreamKind::Bulk).await;
    control.ended().await;
    node.stands(raw.id, "more streams than a session has").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_by_the_thousand_end_their_connection() {
    let node = Attacked::new().await;
    let (raw, id, mut control) = node.opened().await;
    let mut open = Vec::new();
    for _ in 0..1000 {
        let Ok(stream) = raw.open(id).await else { break };
        open.push(stream);
    }
    control.ended().await;
    assert!(open.len() < 1000, "all of them were taken");
    node.stands(raw.id, "more streams than a session has").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_by_the_hundred_harm_nobody() {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let (_, mut control) = raw.greet(&node.addr).await;
    // Most are closed at once: a peer may have a few.
    for _ in 0..100 {
        let _ = raw.try_connect(&node.addr).await;
    }
    control.say(&hello()).await;
    control.ended().await;
    node.stands(raw.id, "messages out of order").await;
}

// Slowness: each is given some time, so they take it together.

/// Writes a byte each second for as long as it is taken.
async fn dribble(mut wire: Wire, bytes: Vec<u8>) {
    for byte in bytes {
        if !wire.write(&[byte]).await {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    wire.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_begins_and_does_not_go_on_is_left() {
    let node = Attacked::new().await;
    let addr = node.addr.clone();
    let mut offenders: Vec<(PeerId, &str)> = Vec::new();
    let mut slow = tokio::task::JoinSet::new();
    let mut peers = Vec::new();

    // A stream on which nothing is ever said.
    let raw = RawPeer::new().await;
    let id = raw.connect(&addr).await;
    let mut silent = raw.open(id).await.expect("connected");
    offenders.push((raw.id, "did not say what for"));
    slow.spawn(async move { silent.ended().await });
    peers.push(raw);

    // A control stream without a greeting.
    let raw = RawPeer::new().await;
    let id = raw.connect(&addr).await;
    let mut silent = raw.open_as(id, StreamKind::Control).await;
    offenders.push((raw.id, "handshake took too long"));
    slow.spawn(async move { silent.ended().await });
    peers.push(raw);

    // A greeting at a byte a second.
    let raw = RawPeer::new().await;
    let id = raw.connect(&addr).await;
    let wire = raw.open_as(id, StreamKind::Control).await;
    let mut greeting = Vec::new();
    hello().encode(&mut greeting);
    offenders.push((raw.id, "handshake took too long"));
    slow.spawn(dribble(wire, greeting));
    peers.push(raw);

    // A message of the greatest length announced, and then silence.
    let (raw, _, mut control) = node.opened().await;
    let mut head = varint(MAX_OPENED_LEN as u64);
    head.extend([2, 0, 2]);
    control.write(&head).await;
    offenders.push((raw.id, "began a message and did not go on"));
    slow.spawn(async move { control.ended().await });
    peers.push(raw);

    // A message at a byte a second.
    let (raw, _, mut control) = node.opened().await;
    let mut head = varint(MAX_FRAME_LEN as u64);
    head.push(5);
    control.write(&head).await;
    offenders.push((raw.id, "began a message and did not go on"));
    slow.spawn(dribble(control, vec![1; 300]));
    peers.push(raw);

    // A block's header that never ends.
    let (raw, id, mut control) = node.opened().await;
    let mut bulk = raw.open_as(id, StreamKind::Bulk).await;
    bulk.write(&[0]).await;
    offenders.push((raw.id, "began a block and did not go on"));
    slow.spawn(async move { control.ended().await });
    peers.push(raw);
    let _bulk = bulk;

    // Blocks asked for and not read.
    let (raw, _, mut control) = node.opened().await;
    let all = request(0, node.pieces);
    control.say(&all).await;
    offenders.push((raw.id, "does not read its blocks"));
    slow.spawn(async move { control.ended().await });
    peers.push(raw);

    // TCP, and not even that to say.
    let mut parts = addr.split('/').skip(2);
    let (host, port) = (parts.next().expect("an IP"), parts.nth(1).expect("a port"));
    let mut silent = tokio::net::TcpStream::connect(format!("{host}:{port}"))
        .await
        .expect("it listens");
    slow.spawn(async move {
        let mut bytes = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut bytes).await;
    });

    slow.join_all().await;
    node.stands_all(&offenders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_its_messages_is_left() {
    let node = Attacked::new().await;
    let raw = RawPeer::new().await;
    let (_, mut control) = raw.greet(&node.addr).await;
    // Each is answered at its own length, on a handle that was never opened.
    let runs = (0..MAX_RUNS as u32).map(|i| Run { start: 2 * i, len: 1 }).collect();
    let refused = Message::Request { handle: HANDLE, runs };
    while control.say(&refused).await {}
    node.stands(raw.id, "does not read its messages").await;
}

// Seeds that are none: the node is the one who gets.

/// A node that gets a pack from an honest seed and from another.
struct Getting {
    process: Process,
    machine: Machine,
    pack: Arc<RawPack>,
    other: RawPeer,
    honest: tokio::task::JoinHandle<()>,
    peak_kib: u64,
}

/// The other seed after it was asked for pieces.
struct Asked {
    control: Wire,
    bulk: Wire,
    handle: Handle,
    pieces: Vec<u32>,
}

impl Getting {
    async fn new() -> Self {
        let pack = RawPack::new(9, PIECES, PIECE_LEN);
        let (mut seed, other) = (RawPeer::new().await, RawPeer::new().await);
        let machine = Machine::new("getter");
        let process = machine.start(
            &[
                &["get", &pack.link(), "--json", "--download-limit", "2MiB/s"][..],
                &["--peer", &seed.addr(), "--peer", &other.addr()],
                &LOG,
            ]
            .concat(),
        );
        let served = Arc::clone(&pack);
        let honest = tokio::spawn(async move { seed.seed(served, Deeds::Honest).await });
        Self {
            peak_kib: peak_kib(&process),
            process,
            machine,
            pack,
            other,
            honest,
        }
    }

    /// Lets the other seed say that it has `have` of the content, whenever it is asked, until it is left; `then` is said after it.
    async fn tell(&mut self, have: Have, then: impl Fn(Handle) -> Vec<Message>) {
        let (_, mut control) = self.other.accept_session().await;
        while let Some(message) = control.next().await {
            match message {
                Message::Open { handle, root } if root == self.pack.content => {
                    let opened = Message::Opened {
                        handle,
                        have: have.clone(),
                    };
                    control.say(&opened).await;
                    for message in then(handle) {
                        control.say(&message).await;
                    }
                }
                Message::Open { handle, .. } => {
                    let (what, reason) = (Rejection::Open, RejectReason::NotFound);
                    control.say(&Message::Rejected { handle, what, reason }).await;
                }
                Message::WantNodes { handle, request, cids } => {
                    let positions = (0..cids.len() as u16).collect();
                    let (what, reason) = (Rejection::Blocks { request, positions }, RejectReason::NotFound);
                    control.say(&Message::Rejected { handle, what, reason }).await;
                }
                _ => {}
            }
        }
    }

    /// Lets the other seed say that it has everything until pieces are asked of it.
    async fn asked(&mut self) -> Asked {
        let (node, mut control) = self.other.accept_session().await;
        let mut bulk = self.other.open_as(node, StreamKind::Bulk).await;
        loop {
            match control.next().await.expect("it was honest so far") {
                Message::Open { handle, root } => {
                    let have = if root == self.pack.content {
                        Have::All
                    } else {
                        Have::None
                    };
                    control.say(&Message::Opened { handle, have }).await;
                    control.say(&Message::Unchoke).await;
                }
                Message::WantNodes { handle, request, cids } => {
                    for (cid, position) in cids.iter().zip(0..) {
                        let what = What::Block { request, position };
                        bulk.send_block(handle, what, &self.pack.blocks[cid]).await;
                    }
                }
                Message::Request { handle, runs } => {
                    let pieces = runs.iter().flat_map(|run| run.pieces()).collect();
                    return Asked {
                        control,
                        bulk,
                        handle,
                        pieces,
                    };
                }
                _ => {}
            }
        }
    }

    async fn stands(self, reason: &str) {
        assert_left(&self.process, self.other.id, reason).await;
        let peak = peak_kib(&self.process);
        assert!(
            peak <= self.peak_kib + MEMORY_KIB,
            "from {} to {peak} KiB",
            self.peak_kib
        );
        let (process, machine, pack) = (self.process, self.machine, self.pack);
        let process = tokio::task::spawn_blocking(move || {
            process.until_event("complete");
            assert!(std::fs::read(machine.path("Raw/raw.pak")).expect("a file") == pack.file());
            process
        });
        let process = process.await.expect("the honest one brings everything");
        assert_said_once(&process, self.other.id);
        self.honest.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_the_wrong_length_is_refused() {
    let mut node = Getting::new().await;
    let map = Have::Map(HaveMap::Bits(vec![0xff; PIECES as usize / 8 + 1]));
    node.tell(map, |_| Vec::new()).await;
    node.stands("speaks of pieces that do not exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_the_greatest_length_costs_its_length() {
    let mut node = Getting::new().await;
    let map = Have::Map(HaveMap::Bits(vec![0xff; MAX_OPENED_LEN - 64]));
    node.tell(map, |_| Vec::new()).await;
    node.stands("speaks of pieces that do not exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_pieces_that_do_not_exist_is_refused() {
    let mut node = Getting::new().await;
    node.tell(Have::None, |handle| {
        let runs = vec![Run { start: PIECES, len: 1 }];
        vec![Message::Have { handle, runs }]
    })
    .await;
    node.stands("speaks of pieces that do not exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_answered_once() {
    let mut node = Getting::new().await;
    let again = |handle| Message::Opened {
        handle,
        have: Have::None,
    };
    node.tell(Have::None, |handle| vec![again(handle)]).await;
    node.stands("messages out of order").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_changes_without_end_is_refused() {
    let mut node = Getting::new().await;
    node.tell(Have::None, |handle| {
        let runs = || vec![Run { start: 0, len: PIECES }];
        let change = |i: u32| match i % 2 {
            0 => Message::Have { handle, runs: runs() },
            _ => Message::Lost { handle, runs: runs() },
        };
        (0..1000).map(change).collect()
    })
    .await;
    node.stands("over the limit of changes to a have-map").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_of_the_wrong_length_is_refused() {
    let mut node = Getting::new().await;
    let mut asked = node.asked().await;
    let what = What::Piece(asked.pieces[0]);
    asked.bulk.send_block(asked.handle, what, &vec![0; PIECE_LEN - 1]).await;
    asked.control.ended().await;
    node.stands("wrong length or encoding").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_in_an_encoding_that_was_not_agreed_on_is_refused() {
    let mut node = Getting::new().await;
    let mut asked = node.asked().await;
    let header = BulkHeader {
        handle: asked.handle,
        what: What::Piece(asked.pieces[0]),
        encoding: Encoding::Other(7),
        len: PIECE_LEN as u32,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    asked.bulk.write(&bytes).await;
    asked.control.ended().await;
    node.stands("wrong length or encoding").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_was_not_asked_of_it_is_refused() {
    let mut node = Getting::new().await;
    let mut asked = node.asked().await;
    let other = (0..PIECES)
        .rev()
        .find(|piece| !asked.pieces.contains(piece))
        .expect("not all");
    let bytes = node.pack.blocks[&node.pack.leaves[other as usize].cid].clone();
    asked.bulk.send_block(asked.handle, What::Piece(other), &bytes).await;
    asked.control.ended().await;
    node.stands("sent a block that was not asked for").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_nothing_that_was_asked_is_refused() {
    let mut node = Getting::new().await;
    let mut asked = node.asked().await;
    let cid = node.pack.content;
    let request = RequestId(u32::MAX);
    let what = What::Node { request, cid, more: 0 };
    let bytes = node.pack.blocks[&cid].clone();
    asked.bulk.send_block(asked.handle, what, &bytes).await;
    asked.control.ended().await;
    node.stands("sent a block that was not asked for").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_ban_their_sender() {
    let mut node = Getting::new().await;
    let mut asked = node.asked().await;
    let what = What::Piece(asked.pieces[0]);
    asked.bulk.send_block(asked.handle, what, &[1; PIECE_LEN]).await;
    asked.control.ended().await;
    node.stands("is banned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_stops_halfway_is_left_and_comes_from_elsewhere() {
    let mut node = Getting::new().await;
    let mut asked = node.asked().await;
    let bytes = block_head(&asked, &[1; PIECE_LEN / 2]);
    asked.bulk.write(&bytes).await;
    asked.control.ended().await;
    node.stands("began a block and did not go on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_at_a_byte_a_second_is_left_and_comes_from_elsewhere() {
    let mut node = Getting::new().await;
    let asked = node.asked().await;
    let bytes = block_head(&asked, &[1; PIECE_LEN]);
    dribble(asked.bulk, bytes).await;
    node.stands("began a block and did not go on").await;
}

/// The first piece that was asked for, with as much of a payload as is given.
fn block_head(asked: &Asked, payload: &[u8]) -> Vec<u8> {
    let mut bytes = rawpeer::header(asked.handle, What::Piece(asked.pieces[0]), PIECE_LEN as u32);
    bytes.extend_from_slice(payload);
    bytes
}

/// The raw peers that other tests stand on are as good as real ones.
#[tokio::test(flavor = "multi_thread")]
async fn an_honest_raw_seed_and_an_honest_raw_leecher_are_served_and_believed() {
    let pack = RawPack::new(1, 40, PIECE_LEN);
    let mut seed = RawPeer::new().await;
    let addr = seed.addr();
    let served = Arc::clone(&pack);
    let seeding = tokio::spawn(async move { seed.seed(served, Deeds::Honest).await });
    let getter = Machine::new("getter");
    let args = ["get", &pack.link(), "--json", "--peer", &addr];
    let process = getter.start(&args);
    let (process, addr) = tokio::task::spawn_blocking(move || {
        process.until_event("complete");
        let status = getter.run(&["status", "--json"]).last_json();
        let addr = status["addrs"][0].as_str().expect("an address").to_owned();
        (process, (addr, getter))
    })
    .await
    .expect("the get completes");
    let mut raw = RawPeer::new().await;
    let (_, mut control) = raw.greet(&addr.0).await;
    let root = pack.content;
    control.say(&Message::Open { handle: HANDLE, root }).await;
    let unchoked = control.until(|message| (message == Message::Unchoke).then_some(()));
    unchoked.await.expect("there is a slot");
    control.say(&request(3, 2)).await;
    let (_, kind, mut bulk) = raw.accept().await;
    assert_eq!(kind, StreamKind::Bulk);
    for piece in [3, 4] {
        let (header, payload) = bulk.next_block().await.expect("a block");
        assert_eq!(header.what, What::Piece(piece));
        assert_eq!(payload, pack.blocks[&pack.leaves[piece as usize].cid]);
    }
    // What lies in the home of this one has a skeleton that comes whole.
    control
        .say(&Message::WantSkeleton {
            handle: HANDLE,
            request: RequestId(9),
            cids: vec![root],
        })
        .await;
    let mut nodes = pack.nodes();
    loop {
        let (header, payload) = bulk.next_block().await.expect("a block");
        let (cid, more) = match header.what {
            What::Block { position: 0, .. } => (root, None),
            What::Node { cid, more, .. } => (cid, Some(more)),
            other => panic!("{other:?}"),
        };
        assert_eq!(payload, pack.blocks[&cid]);
        nodes.retain(|node| *node != cid);
        if let Some(more) = more {
            assert_eq!(usize::from(more), nodes.len());
        }
        if nodes.is_empty() {
            break;
        }
    }
    seeding.abort();
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skeleton_that_comes_whole_and_in_any_order_is_read() {
    let pack = RawPack::new(2, 400, 1000);
    assert!(pack.nodes().len() > 3, "something lies below the folder");
    let mut seed = RawPeer::new().await;
    let addr = seed.addr();
    let served = Arc::clone(&pack);
    let seeding = tokio::spawn(async move { seed.seed(served, Deeds::HonestWhole).await });
    let getter = Machine::new("getter");
    let process = getter.start(&["get", &pack.link(), "--json", "--no-seed", "--peer", &addr]);
    tokio::task::spawn_blocking(move || {
        let got = process.finish();
        assert_eq!(got.code(), 0, "{}", got.said);
        assert!(std::fs::read(getter.path("Raw/raw.pak")).expect("a file") == pack.file());
    })
    .await
    .expect("the get completes");
    seeding.abort();
}
