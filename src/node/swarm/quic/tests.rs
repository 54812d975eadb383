//! Two transports on this machine.

use futures::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, future::poll_fn};
use libp2p::core::muxing::StreamMuxer as _;

use super::{congestion::Far, *};

fn made() -> (Quic, PeerId) {
    let key = Keypair::generate_ed25519();
    (Quic::new(&key, Weights::default()).unwrap(), key.public().to_peer_id())
}

async fn listening(quic: &mut Quic) -> Multiaddr {
    let anywhere = "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap();
    quic.listen_on(ListenerId::next(), anywhere).unwrap();
    match poll_fn(|cx| Pin::new(&mut *quic).poll(cx)).await {
        TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
        other => panic!("{other:?}"),
    }
}

/// Drives `quic` until somebody has come in.
async fn incoming(quic: &mut Quic) -> Connecting {
    loop {
        if let TransportEvent::Incoming { upgrade, .. } = poll_fn(|cx| Pin::new(&mut *quic).poll(cx)).await {
            return upgrade;
        }
    }
}

/// Connects `a` to `b`: what each of them has of it, and who the other is.
async fn connected(a: &mut Quic, b: &mut Quic) -> ((PeerId, Connection), (PeerId, Connection)) {
    let addr = listening(b).await;
    let dial = a.dial(addr, opts(Endpoint::Dialer, PortUse::Reuse)).unwrap();
    let (dialled, came) = tokio::join!(dial, async { incoming(b).await.await });
    (dialled.unwrap(), came.unwrap())
}

fn opts(role: Endpoint, port_use: PortUse) -> DialOpts {
    DialOpts { role, port_use }
}

#[test]
fn only_quic_addresses_are_dialled() {
    let peer = PeerId::random();
    let parse = |text: &str| socket_addr(&text.parse().unwrap());
    let addr: SocketAddr = "192.0.2.1:7".parse().unwrap();
    assert_eq!(parse("/ip4/192.0.2.1/udp/7/quic-v1"), Some((addr, None)));
    assert_eq!(
        parse(&format!("/ip4/192.0.2.1/udp/7/quic-v1/p2p/{peer}")),
        Some((addr, Some(peer)))
    );
    for other in [
        "/ip4/192.0.2.1/udp/7".to_owned(),
        "/ip4/192.0.2.1/tcp/7".to_owned(),
        "/dns/example.org/udp/7/quic-v1".to_owned(),
        "/ip4/192.0.2.1/udp/7/quic-v1/webtransport".to_owned(),
        format!("/ip4/192.0.2.1/udp/7/quic-v1/p2p/{peer}/p2p-circuit"),
    ] {
        assert_eq!(parse(&other), None, "{other}");
    }
    assert_eq!(multiaddr(addr).to_string(), "/ip4/192.0.2.1/udp/7/quic-v1");
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is_and_talk() {
    let ((mut a, a_id), (mut b, b_id)) = (made(), made());
    let ((peer_of_a, mut from_a), (peer_of_b, mut from_b)) = connected(&mut a, &mut b).await;
    assert_eq!((peer_of_a, peer_of_b), (b_id, a_id));

    let sent: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let talk = async {
        let mut stream = poll_fn(|cx| Pin::new(&mut from_a).poll_outbound(cx)).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.close().await.unwrap();
        stream
    };
    let listen = async {
        let mut stream = poll_fn(|cx| Pin::new(&mut from_b).poll_inbound(cx)).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got
    };
    let (_kept, got) = tokio::join!(talk, listen);
    assert_eq!(got, sent);
    poll_fn(|cx| Pin::new(&mut from_a).poll_close(cx)).await.unwrap();
    assert!(poll_fn(|cx| Pin::new(&mut from_b).poll_inbound(cx)).await.is_err());
}

#[tokio::test]
async fn who_lets_go_of_a_stream_after_its_last_word_is_heard_out() {
    let ((mut a, _), (mut b, _)) = (made(), made());
    let ((_, mut from_a), (_, mut from_b)) = connected(&mut a, &mut b).await;
    let mut stream = poll_fn(|cx| Pin::new(&mut from_a).poll_outbound(cx)).await.unwrap();
    stream.write_all(b"this needs no answer").await.unwrap();
    drop(stream);

    let mut stream = poll_fn(|cx| Pin::new(&mut from_b).poll_inbound(cx)).await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"this needs no answer");
    // As to agree to a protocol.
    stream.write_all(b"well").await.unwrap();
    stream.close().await.unwrap();
}

#[tokio::test]
async fn messages_do_not_wait_behind_blocks() {
    let ((mut a, _), (mut b, _)) = (made(), made());
    let ((_, mut from_a), _from_b) = connected(&mut a, &mut b).await;
    from_a.pretend(Far::allowing(60_000));
    let mut blocks = poll_fn(|cx| Pin::new(&mut from_a).poll_outbound(cx)).await.unwrap();
    let mut messages = poll_fn(|cx| Pin::new(&mut from_a).poll_outbound(cx)).await.unwrap();
    // Nothing is awaited from here on: nothing goes out in between.
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = |stream: &mut connection::Stream, bytes: &[u8]| {
        let mut sum = 0;
        while let Poll::Ready(n) = Pin::new(&mut *stream).poll_write(&mut cx, bytes) {
            sum += n.unwrap();
        }
        sum
    };
    let (block, message) = (vec![0; 1 << 20], [0; 1000]);
    assert_eq!(
        taken(&mut blocks, &block),
        60_000,
        "twice as much waits as may be on its way"
    );
    let beyond = taken(&mut messages, &message);
    assert!((60_000..=64 * 1024).contains(&beyond), "{beyond}");
    assert_eq!(taken(&mut blocks, &block), 0);
}

#[tokio::test]
async fn dials_leave_from_the_port_that_is_listened_on_unless_asked_otherwise() {
    let ((mut a, _), (mut b, _)) = (made(), made());
    let (ours, theirs) = (listening(&mut a).await, listening(&mut b).await);
    for (port_use, same) in [(PortUse::Reuse, true), (PortUse::New, false)] {
        let dial = a.dial(theirs.clone(), opts(Endpoint::Dialer, port_use)).unwrap();
        let (dialled, came) = tokio::join!(dial, async {
            let incoming = incoming(&mut b).await;
            let remote = multiaddr(incoming.remote());
            incoming.await.map(|_| remote)
        });
        dialled.unwrap();
        assert_eq!(came.unwrap() == ours, same, "{port_use:?}");
    }
}

#[tokio::test]
async fn who_punches_gets_the_connection_that_comes_from_there() {
    let ((mut a, a_id), (mut b, b_id)) = (made(), made());
    let (ours, theirs) = (listening(&mut a).await, listening(&mut b).await);
    let punch = opts(Endpoint::Listener, PortUse::New);
    let waiting = b.dial(ours.clone().with(Protocol::P2p(a_id)), punch).unwrap();
    let again = b.dial(ours, punch);
    assert!(matches!(again, Err(TransportError::Other(Error::AlreadyPunching(_)))));
    let dial = a.dial(theirs, opts(Endpoint::Dialer, PortUse::Reuse)).unwrap();
    let drive = async {
        loop {
            let event = poll_fn(|cx| Pin::new(&mut b).poll(cx)).await;
            assert!(!matches!(event, TransportEvent::Incoming { .. }), "{event:?}");
        }
    };
    let both = async { tokio::join!(waiting, dial) };
    let (waited, dialled) = tokio::select! {
        both = both => both,
        () = drive => unreachable!(),
    };
    assert_eq!((waited.unwrap().0, dialled.unwrap().0), (a_id, b_id));
}

#[tokio::test]
async fn a_listener_that_is_removed_says_so_and_ends() {
    let (mut quic, _) = made();
    let anywhere = "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap();
    let id = ListenerId::next();
    quic.listen_on(id, anywhere).unwrap();
    assert!(quic.remove_listener(id));
    assert!(!quic.remove_listener(ListenerId::next()));
    loop {
        match poll_fn(|cx| Pin::new(&mut quic).poll(cx)).await {
            TransportEvent::NewAddress { .. } => {}
            TransportEvent::ListenerClosed { listener_id, reason } => {
                assert_eq!(listener_id, id);
                break reason.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_quic_address_is_left_to_other_transports() {
    let (mut quic, _) = made();
    let tcp: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let dial = quic.dial(tcp.clone(), opts(Endpoint::Dialer, PortUse::Reuse));
    assert!(matches!(dial, Err(TransportError::MultiaddrNotSupported(_))));
    let listen = quic.listen_on(ListenerId::next(), tcp);
    assert!(matches!(listen, Err(TransportError::MultiaddrNotSupported(_))));
}
