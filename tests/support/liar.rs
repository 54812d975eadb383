//! A peer that says that it has everything and sends wrong bytes for it, for tests that wait: a raw peer with threads of its own.

#![allow(unreachable_pub, reason = "a module of a test")]

use modswarm_protocol::wire::{Message, StreamKind};
use tokio::runtime::Runtime;

use crate::rawpeer::{Deeds, RawPack, RawPeer, hello};

/// How a node answered a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// With its own.
    Answered,
    /// It closed the connection.
    Refused,
}

/// The liar; its node ends with it.
pub struct Liar {
    pub peer_id: String,
    /// Where it listens, with its peer ID.
    pub addr: String,
    peer: RawPeer,
    runtime: Runtime,
}

impl Liar {
    /// Lies about the content `content`, which has `pieces` pieces that are all `piece_len` long.
    pub fn start(content: &str, pieces: u32, piece_len: u32) -> Self {
        let forged = RawPack::forged(content.parse().expect("a CID"), pieces, piece_len);
        let runtime = Runtime::new().expect("a runtime");
        let mut peer = runtime.block_on(RawPeer::new());
        runtime.spawn(peer.seed(forged, Deeds::Honest));
        Self {
            peer_id: peer.id.to_string(),
            addr: peer.addr(),
            peer,
            runtime,
        }
    }

    /// Dials a node and begins a session.
    pub fn greet(&self, addr: &str) -> Greeting {
        self.runtime.block_on(async {
            // Who refuses does so once it knows who is there; an address that leads nowhere is a defect of the test.
            let node = self.peer.connect(addr).await;
            let Ok(mut control) = self.peer.open(node).await else {
                return Greeting::Refused;
            };
            if !control.write(&[StreamKind::Control.to_byte()]).await || !control.say(&hello()).await {
                return Greeting::Refused;
            }
            match control.next().await {
                Some(Message::Hello(_)) => Greeting::Answered,
                Some(other) => panic!("{other:?} before a greeting"),
                None => Greeting::Refused,
            }
        })
    }
}
