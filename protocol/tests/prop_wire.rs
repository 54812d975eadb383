//! The codec: what is written is read again, and arbitrary bytes neither panic nor take memory beyond their bounds.

use modswarm_protocol::format::{Cid, Codec, HashKind, PieceSet};
use modswarm_protocol::wire::limits::{
    MAX_BULK_HEADER_LEN, MAX_CIDS, MAX_FRAME_LEN, MAX_HELLO_LEN, MAX_OPENED_LEN, MAX_PAYLOAD_LEN, MAX_PEER_ADDR_LEN,
    MAX_PEER_ADDRS, MAX_PEER_ID_LEN, MAX_PEERS, MAX_PEERS_LEN, MAX_PIECES, MAX_RUNS, MAX_SKELETON_NODES,
};
use modswarm_protocol::wire::{
    BulkHeader, CloseReason, DecodeError, Encoding, Extension, Handle, Have, HaveMap, Hello, KnownPeer, Message,
    NetworkId, RejectReason, Rejection, RequestId, Run, StreamKind, What, runs_of, split_frame,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn cid() -> impl Strategy<Value = Cid> {
    (any::<bool>(), any::<bool>(), any::<[u8; 32]>()).prop_map(|(raw, blake3, digest)| {
        let codec = if raw { Codec::Raw } else { Codec::DagPb };
        let hash = if blake3 { HashKind::Blake3 } else { HashKind::Sha2_256 };
        Cid::new(codec, hash, digest)
    })
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    vec((0..2000u32, 1..500u32), 0..200).prop_map(|gaps| {
        let mut end = 0;
        let mut run = |(gap, len)| {
            let run = Run { start: end + gap, len };
            end = run.end();
            run
        };
        gaps.into_iter().map(&mut run).collect()
    })
}

fn have() -> impl Strategy<Value = Have> {
    prop_oneof![
        Just(Have::None),
        Just(Have::All),
        runs().prop_map(|runs| Have::Map(HaveMap::Runs(runs))),
        vec(any::<u8>(), 0..3000).prop_map(|bytes| Have::Map(HaveMap::Bits(bytes))),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let extensions = proptest::collection::btree_map("[a-z]{1,32}", vec(any::<u8>(), 0..64), 0..32);
    (any::<[u8; 32]>(), "[a-zé/.0-9]{0,32}", extensions).prop_map(|(network, agent, extensions)| Hello {
        network: NetworkId(network),
        agent,
        extensions: extensions
            .into_iter()
            .map(|(name, value)| Extension { name, value })
            .collect(),
    })
}

fn peers() -> impl Strategy<Value = Vec<KnownPeer>> {
    let bytes = |max| vec(any::<u8>(), 1..=max).prop_map(Vec::into_boxed_slice);
    let peer = (
        bytes(MAX_PEER_ID_LEN),
        any::<u32>(),
        vec(bytes(MAX_PEER_ADDR_LEN), 0..=MAX_PEER_ADDRS),
    );
    let peer = peer.prop_map(|(id, flags, addrs)| KnownPeer { id, flags, addrs });
    vec(peer, 0..=MAX_PEERS)
}

fn message() -> impl Strategy<Value = Message> {
    let handle = || any::<u32>().prop_map(Handle);
    let request = || any::<u32>().prop_map(RequestId);
    let cids = || vec(cid(), 0..=MAX_CIDS);
    let rejection = prop_oneof![
        Just(Rejection::Open),
        runs().prop_map(Rejection::Pieces),
        (request(), vec(0..MAX_CIDS as u16, 0..=MAX_CIDS))
            .prop_map(|(request, positions)| Rejection::Blocks { request, positions }),
    ];
    let reject_reason = prop_oneof![
        Just(RejectReason::NotFound),
        Just(RejectReason::Choked),
        Just(RejectReason::Busy),
        Just(RejectReason::Released),
        (4..u32::MAX).prop_map(RejectReason::Other),
    ];
    let close_reason = prop_oneof![
        Just(CloseReason::Removed),
        Just(CloseReason::ShuttingDown),
        (2..u32::MAX).prop_map(CloseReason::Other),
    ];
    prop_oneof![
        hello().prop_map(Message::Hello),
        (handle(), cid()).prop_map(|(handle, root)| Message::Open { handle, root }),
        (handle(), have()).prop_map(|(handle, have)| Message::Opened { handle, have }),
        (handle(), rejection, reject_reason).prop_map(|(handle, what, reason)| Message::Rejected {
            handle,
            what,
            reason
        }),
        (handle(), request(), cids()).prop_map(|(handle, request, cids)| Message::WantNodes { handle, request, cids }),
        (handle(), request(), cids()).prop_map(|(handle, request, cids)| Message::WantSkeleton {
            handle,
            request,
            cids
        }),
        (handle(), request(), cids()).prop_map(|(handle, request, cids)| Message::RequestCids {
            handle,
            request,
            cids
        }),
        (handle(), runs()).prop_map(|(handle, runs)| Message::Request { handle, runs }),
        (handle(), runs()).prop_map(|(handle, runs)| Message::Cancel { handle, runs }),
        (handle(), runs()).prop_map(|(handle, runs)| Message::Release { handle, runs }),
        (handle(), runs()).prop_map(|(handle, runs)| Message::Have { handle, runs }),
        (handle(), runs()).prop_map(|(handle, runs)| Message::Lost { handle, runs }),
        (handle(), runs()).prop_map(|(handle, runs)| Message::Offer { handle, runs }),
        (proptest::option::of(handle()), any::<u32>()).prop_map(|(handle, rate)| Message::Pace { handle, rate }),
        handle().prop_map(|handle| Message::Close { handle }),
        (handle(), close_reason).prop_map(|(handle, reason)| Message::Closed { handle, reason }),
        (handle(), peers()).prop_map(|(handle, peers)| Message::Peers { handle, peers }),
        Just(Message::Choke),
        Just(Message::Unchoke),
    ]
}

fn header() -> impl Strategy<Value = BulkHeader> {
    let what = prop_oneof![
        any::<u32>().prop_map(What::Piece),
        (any::<u32>(), any::<u16>()).prop_map(|(request, position)| What::Block {
            request: RequestId(request),
            position
        }),
        (any::<u32>(), cid(), 0..MAX_SKELETON_NODES as u16).prop_map(|(request, cid, more)| What::Node {
            request: RequestId(request),
            cid,
            more
        }),
    ];
    let encoding = prop_oneof![Just(Encoding::Plain), (1..u32::MAX).prop_map(Encoding::Other)];
    (any::<u32>(), what, encoding, 1..=MAX_PAYLOAD_LEN).prop_map(|(handle, what, encoding, len)| BulkHeader {
        handle: Handle(handle),
        what,
        encoding,
        len,
    })
}

proptest! {
    #[test]
    fn messages_are_read_as_they_were_written(message in message(), tail in vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let len = bytes.len();
        bytes.extend(tail);
        let frame = split_frame(&bytes).expect("within bounds").expect("whole");
        prop_assert_eq!(frame.consumed, len);
        prop_assert_eq!(Message::decode(frame.message), Ok(Some(message)));
    }

    #[test]
    fn a_cut_message_is_not_taken_for_a_whole_one(message in message(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert_eq!(split_frame(&bytes), Ok(None));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..4000)) {
        if let Ok(Some(frame)) = split_frame(&bytes) {
            let _ = Message::decode(frame.message);
        }
        let _ = Message::decode(&bytes);
        if let Ok(Some((header, len))) = BulkHeader::decode(&bytes) {
            prop_assert!(len <= MAX_BULK_HEADER_LEN && header.len <= MAX_PAYLOAD_LEN);
        }
    }

    #[test]
    fn bodies_of_known_types_never_panic_and_stay_in_bounds(kind in 0..16u8, body in vec(any::<u8>(), 0..4000)) {
        let bytes = [&[kind], &body[..]].concat();
        match Message::decode(&bytes) {
            Ok(Some(Message::Request { runs, .. })) => prop_assert!(runs.iter().all(|run| run.end() <= MAX_PIECES)),
            Ok(Some(Message::WantNodes { cids, .. })) => prop_assert!(cids.len() <= MAX_CIDS),
            Ok(Some(Message::Peers { peers, .. })) => prop_assert!(peers.len() <= MAX_PEERS),
            Ok(Some(Message::Opened { have: Have::Map(map), .. })) => { let _ = map.to_set(1000); }
            _ => {}
        }
    }

    #[test]
    fn headers_are_read_as_they_were_written(header in header(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        prop_assert!(bytes.len() <= MAX_BULK_HEADER_LEN);
        prop_assert_eq!(BulkHeader::decode(&bytes), Ok(Some((header, bytes.len()))));
        bytes.truncate(cut.index(bytes.len()));
        prop_assert_eq!(BulkHeader::decode(&bytes), Ok(None));
    }

    #[test]
    fn have_maps_come_back_and_are_short(bits in vec(any::<bool>(), 1..3000), sparse in any::<bool>()) {
        let mut set = PieceSet::repeat(false, bits.len());
        for (i, bit) in bits.iter().enumerate() {
            set.set(i, *bit && (!sparse || i % 97 == 0));
        }
        let have = Have::of(&set);
        let mut bytes = Vec::new();
        Message::Opened { handle: Handle(1), have: have.clone() }.encode(&mut bytes);
        prop_assert!(bytes.len() <= set.len().div_ceil(8) + 8, "longer than a bitmap: {}", bytes.len());
        let back = match have {
            Have::None => PieceSet::repeat(false, set.len()),
            Have::All => PieceSet::repeat(true, set.len()),
            Have::Map(map) => {
                prop_assert!(!set[set.len() - 1] || map.to_set(set.len() as u32 - 1).is_none(), "a map of more pieces passed");
                map.to_set(set.len() as u32).expect("same length")
            }
        };
        prop_assert_eq!(back, set);
    }

    #[test]
    fn runs_hold_each_piece_once(mut pieces in vec(0..500u32, 0..300)) {
        let runs = runs_of(pieces.clone());
        pieces.sort_unstable();
        pieces.dedup();
        prop_assert_eq!(runs.iter().flat_map(|run| run.pieces()).collect::<Vec<_>>(), pieces);
        prop_assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].start), "runs touch");
    }
}

/// A frame's head that announces `len` bytes of a type.
fn head(len: u32, kind: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = len;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.push(kind);
    bytes
}

#[test]
fn frames_over_their_type_s_bound_are_refused_by_their_head() {
    for (kind, max) in [
        (0, MAX_HELLO_LEN),
        (2, MAX_OPENED_LEN),
        (5, MAX_FRAME_LEN),
        (14, MAX_PEERS_LEN),
        (99, MAX_FRAME_LEN),
    ] {
        assert_eq!(
            split_frame(&head(max as u32, kind)),
            Ok(None),
            "type {kind} at its bound"
        );
        let over = head(max as u32 + 1, kind);
        let over = split_frame(&over);
        assert!(
            matches!(over, Err(DecodeError::FrameTooLong { .. })),
            "type {kind}: {over:?}"
        );
    }
    let huge = head(u32::MAX, 2);
    let huge = split_frame(&huge);
    assert!(matches!(huge, Err(DecodeError::FrameTooLong { .. })), "{huge:?}");
}

#[test]
fn endless_and_padded_varints_are_refused() {
    assert_eq!(split_frame(&[0x80; 5]), Err(DecodeError::Varint));
    assert_eq!(split_frame(&[0x80, 0x80]), Ok(None));
    assert_eq!(split_frame(&[0x82, 0x00, 12]), Err(DecodeError::Varint));
    assert_eq!(BulkHeader::decode(&[0xff; 30]), Err(DecodeError::Varint));
}

#[test]
fn lists_over_their_bounds_are_refused() {
    let cid = Cid::of(Codec::Raw, HashKind::Blake3, b"x");
    let decode = |message: Message| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Message::decode(split_frame(&bytes)?.expect("whole").message)
    };
    let wants = |count| Message::WantNodes {
        handle: Handle(0),
        request: RequestId(0),
        cids: vec![cid; count],
    };
    assert!(decode(wants(MAX_CIDS)).is_ok());
    assert_eq!(decode(wants(MAX_CIDS + 1)), Err(DecodeError::TooMany("content IDs")));
    let request = |count: usize| {
        let runs = (0..count as u32).map(|i| Run { start: 2 * i, len: 1 }).collect();
        Message::Request {
            handle: Handle(0),
            runs,
        }
    };
    assert!(decode(request(MAX_RUNS)).is_ok());
    assert_eq!(decode(request(MAX_RUNS + 1)), Err(DecodeError::TooMany("runs")));
    let peers = |peers, id, addrs, addr| Message::Peers {
        handle: Handle(u32::MAX),
        peers: vec![
            KnownPeer {
                id: vec![1; id].into(),
                flags: u32::MAX,
                addrs: vec![vec![2; addr].into(); addrs],
            };
            peers
        ],
    };
    let (id, addrs, addr) = (MAX_PEER_ID_LEN, MAX_PEER_ADDRS, MAX_PEER_ADDR_LEN);
    assert!(decode(peers(MAX_PEERS, id, addrs, addr)).is_ok(), "all at their bounds");
    assert_eq!(
        decode(peers(MAX_PEERS + 1, 1, 0, 0)),
        Err(DecodeError::TooMany("peers"))
    );
    assert_eq!(decode(peers(1, id + 1, 0, 0)), Err(DecodeError::TooMany("peer ID")));
    assert_eq!(decode(peers(1, 0, 1, 1)), Err(DecodeError::OutOfRange("peer ID")));
    assert_eq!(
        decode(peers(1, id, addrs + 1, 1)),
        Err(DecodeError::TooMany("addresses"))
    );
    assert_eq!(decode(peers(1, id, 1, addr + 1)), Err(DecodeError::TooMany("address")));
    assert_eq!(decode(peers(1, id, 1, 0)), Err(DecodeError::OutOfRange("address")));
    let far = Message::Have {
        handle: Handle(0),
        runs: vec![Run {
            start: MAX_PIECES,
            len: 1,
        }],
    };
    assert_eq!(decode(far), Err(DecodeError::OutOfRange("run")));
    let agent = Hello {
        network: NetworkId::PUBLIC,
        agent: "x".repeat(65),
        extensions: Vec::new(),
    };
    assert_eq!(decode(Message::Hello(agent)), Err(DecodeError::TooMany("agent")));
    let twice = Extension {
        name: "zstd".into(),
        value: Vec::new(),
    };
    let twice = Hello {
        network: NetworkId::PUBLIC,
        agent: String::new(),
        extensions: vec![twice.clone(), twice],
    };
    assert_eq!(
        decode(Message::Hello(twice)),
        Err(DecodeError::OutOfRange("extension named twice"))
    );
}

#[test]
fn unknown_types_are_skipped_and_known_ones_end_where_they_end() {
    assert_eq!(Message::decode(&[99, 1, 2, 3]), Ok(None));
    assert_eq!(Message::decode(&[12, 0]), Err(DecodeError::Trailing));
    assert_eq!(StreamKind::from_byte(0), None);
    for kind in [StreamKind::Control, StreamKind::Bulk] {
        assert_eq!(StreamKind::from_byte(kind.to_byte()), Some(kind));
    }
}

#[test]
fn bytes_are_as_the_protocol_page_draws_them() {
    let mut bytes = Vec::new();
    let root = Cid::new(Codec::DagPb, HashKind::Blake3, [7; 32]);
    Message::Open {
        handle: Handle(5),
        root,
    }
    .encode(&mut bytes);
    assert_eq!(bytes, [&[36, 1, 5, 0x70, 0x1e][..], &[7; 32]].concat());
    bytes.clear();
    let runs = vec![Run { start: 3, len: 3 }, Run { start: 9, len: 1 }];
    Message::Request {
        handle: Handle(1),
        runs,
    }
    .encode(&mut bytes);
    assert_eq!(bytes, [7, 5, 1, 2, 3, 2, 3, 0]);
    bytes.clear();
    let seed = KnownPeer {
        id: [7; 38].into(),
        flags: KnownPeer::SEED,
        addrs: vec![[4, 127, 0, 0, 1, 6, 0x1f, 0x90].into()],
    };
    Message::Peers {
        handle: Handle(5),
        peers: vec![seed],
    }
    .encode(&mut bytes);
    let tail = [1, 1, 8, 4, 127, 0, 0, 1, 6, 0x1f, 0x90];
    assert_eq!(bytes, [&[53, 14, 5, 1, 38][..], &[7; 38], &tail].concat());
}
