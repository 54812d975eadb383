//! A peer that says that it has everything and sends wrong bytes for it. A libp2p node of its own, in a thread of the test.

#![allow(unreachable_pub, reason = "a module of a test")]

use std::{collections::HashMap, thread, time::Duration};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    multiaddr::Protocol,
    noise,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tls, yamux,
};
use libp2p_stream::Control;
use modswarm_protocol::{
    Cid,
    wire::{
        self, BulkHeader, Encoding, Handle, Have, Hello, Message, NetworkId, PROTOCOL, RejectReason, Rejection,
        StreamKind, What,
    },
};
use tokio::sync::{mpsc, oneshot};

/// How long a greeting may take to be answered or refused.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a node answered a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// With its own.
    Answered,
    /// It closed the connection.
    Refused,
}

type Greet = (Multiaddr, oneshot::Sender<Greeting>);

/// The liar; its node ends with the test's process.
pub struct Liar {
    pub peer_id: String,
    /// Where it listens, with its peer ID.
    pub addr: String,
    greetings: mpsc::UnboundedSender<Greet>,
}

impl Liar {
    /// Lies about the content `content`, all of whose pieces are `piece_len` long.
    pub fn start(content: &str, piece_len: u32) -> Self {
        let content: Cid = content.parse().expect("a CID");
        let (greetings, to_greet) = mpsc::unbounded_channel();
        let (ready, started) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime")
                .block_on(run(content, piece_len, ready, to_greet));
        });
        let (peer, addr): (PeerId, Multiaddr) = started.recv_timeout(PATIENCE).expect("it listens");
        Self {
            peer_id: peer.to_string(),
            addr: addr.to_string(),
            greetings,
        }
    }

    /// Dials a node and begins a session.
    pub fn greet(&self, addr: &str) -> Greeting {
        let (reply, answer) = oneshot::channel();
        let addr = addr.parse().expect("an address");
        self.greetings.send((addr, reply)).expect("the liar runs");
        answer.blocking_recv().expect("the liar runs")
    }
}

async fn run(
    content: Cid,
    piece_len: u32,
    ready: std::sync::mpsc::Sender<(PeerId, Multiaddr)>,
    mut to_greet: mpsc::UnboundedReceiver<Greet>,
) {
    let mut swarm = swarm();
    let local = *swarm.local_peer_id();
    let mut control = swarm.behaviour().new_control();
    let mut streams = control
        .accept(StreamProtocol::new(PROTOCOL))
        .expect("nobody else accepts");
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
        .expect("loopback");
    let mut greeting: HashMap<ConnectionId, oneshot::Sender<Greeting>> = HashMap::new();
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    let _ = ready.send((local, address.with(Protocol::P2p(local))));
                }
                SwarmEvent::ConnectionEstablished { peer_id: peer, connection_id, .. } => {
                    let Some(reply) = greeting.remove(&connection_id) else { continue };
                    let control = control.clone();
                    tokio::spawn(async move {
                        let greeting = tokio::time::timeout(PATIENCE, greet(control, peer)).await;
                        let _ = reply.send(greeting.expect("an answer or an end in time"));
                    });
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    // Who refuses does so once it knows who is there; an address that leads nowhere is a defect of the test.
                    assert!(!greeting.contains_key(&connection_id), "no connection: {error}");
                }
                _ => {}
            },
            Some((peer, stream)) = streams.next() => {
                let control = control.clone();
                tokio::spawn(async move { serve(stream, peer, control, content, piece_len).await });
            }
            Some((addr, reply)) = to_greet.recv() => {
                let Some(Protocol::P2p(peer)) = addr.iter().last() else { panic!("{addr} names no peer") };
                let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![addr]).build();
                greeting.insert(dial.connection_id(), reply);
                swarm.dial(dial).expect("nothing forbids it");
            }
        }
    }
}

fn swarm() -> Swarm<libp2p_stream::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )
        .expect("TCP")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

fn hello() -> Message {
    Message::Hello(Hello {
        network: NetworkId::PRIVATE,
        agent: "liar".to_owned(),
        extensions: Vec::new(),
    })
}

async fn say(stream: &mut Stream, message: Message) -> std::io::Result<()> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// The next message that is known here; none when the stream ends.
async fn hear(stream: &mut Stream, buffer: &mut Vec<u8>) -> Option<Message> {
    loop {
        while let Some(frame) = wire::split_frame(buffer).expect("a node of ours sends whole frames") {
            let message = Message::decode(frame.message).expect("and messages");
            let used = frame.consumed;
            buffer.drain(..used);
            if message.is_some() {
                return message;
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

async fn greet(mut control: Control, peer: PeerId) -> Greeting {
    let Ok(mut stream) = control.open_stream(peer, StreamProtocol::new(PROTOCOL)).await else {
        return Greeting::Refused;
    };
    let said = async {
        stream.write_all(&[StreamKind::Control.to_byte()]).await?;
        say(&mut stream, hello()).await
    };
    if said.await.is_err() {
        return Greeting::Refused;
    }
    match hear(&mut stream, &mut Vec::new()).await {
        Some(Message::Hello(_)) => Greeting::Answered,
        Some(other) => panic!("{other:?} before a greeting"),
        None => Greeting::Refused,
    }
}

/// Answers the node that has opened a stream, until it goes.
async fn serve(mut stream: Stream, peer: PeerId, mut control: Control, content: Cid, piece_len: u32) {
    let mut kind = [0; 1];
    if stream.read_exact(&mut kind).await.is_err() || kind[0] != StreamKind::Control.to_byte() {
        return;
    }
    let Ok(mut bulk) = control.open_stream(peer, StreamProtocol::new(PROTOCOL)).await else {
        return;
    };
    let mut buffer = Vec::new();
    let opened = async {
        bulk.write_all(&[StreamKind::Bulk.to_byte()]).await?;
        say(&mut stream, hello()).await?;
        say(&mut stream, Message::Unchoke).await
    };
    if opened.await.is_err() {
        return;
    }
    while let Some(message) = hear(&mut stream, &mut buffer).await {
        let answered = match message {
            Message::Open { handle, root } if root == content => {
                say(
                    &mut stream,
                    Message::Opened {
                        handle,
                        have: Have::All,
                    },
                )
                .await
            }
            Message::Open { handle, .. } => say(&mut stream, not_found(handle, Rejection::Open)).await,
            Message::WantNodes { handle, request, cids } | Message::RequestCids { handle, request, cids } => {
                let positions = (0..cids.len() as u16).collect();
                say(&mut stream, not_found(handle, Rejection::Blocks { request, positions })).await
            }
            Message::Request { handle, runs } => {
                let pieces = runs.iter().flat_map(|run| run.pieces());
                let blocks = pieces
                    .flat_map(|piece| lie(handle, piece, piece_len))
                    .collect::<Vec<u8>>();
                match bulk.write_all(&blocks).await {
                    Ok(()) => bulk.flush().await,
                    Err(error) => Err(error),
                }
            }
            _ => Ok(()),
        };
        if answered.is_err() {
            return;
        }
    }
}

fn not_found(handle: Handle, what: Rejection) -> Message {
    Message::Rejected {
        handle,
        what,
        reason: RejectReason::NotFound,
    }
}

/// A block of the right length, and of nothing else that is right.
fn lie(handle: Handle, piece: u32, len: u32) -> Vec<u8> {
    let mut block = Vec::new();
    let header = BulkHeader {
        handle,
        what: What::Piece(piece),
        encoding: Encoding::Plain,
        len,
    };
    header.encode(&mut block);
    block.resize(block.len() + len as usize, 0x55);
    block
}
