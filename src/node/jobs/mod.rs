//! What a request does, from its first look at the store to its last event. Jobs wait; the actor never does.

mod diff;
mod failures;
mod get;
mod list;
mod share;
mod skeleton;
mod verify;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use modswarm_protocol::{
    engine::PickOrder,
    format::{PieceSet, Skeleton, Target},
};
use tokio::sync::{mpsc, oneshot};

pub(super) use diff::run as diff;
pub use failures::rebuild_failure;
pub(super) use failures::{index_failure, open_failure, remove_failure, task_failure};
pub(super) use get::run as get;
pub(super) use list::run as list;
pub(super) use share::{link_of, run as share};
pub(super) use verify::run as verify;

use super::{
    Inner,
    actor::{Command, TransferEvent, TransferView},
    facts::Nodes,
};
use crate::api::{Failure, FailureKind};

/// Events of one transfer that wait for its job: more than the nodes that it asks for at a time and those of a skeleton that comes whole.
const TRANSFER_QUEUE: usize = 1024;
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// How often a job looks whether another one that fetches the same has ended.
const BUSY_INTERVAL: Duration = Duration::from_millis(500);

/// Set when the one who asked has gone away; long blocking work looks at it.
#[derive(Clone, Debug, Default)]
struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the flag when dropped: however the job ends, its blocking work ends with it.
    fn guard(&self) -> CancelGuard {
        CancelGuard(self.clone())
    }
}

struct CancelGuard(CancelFlag);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// A transfer that a job drives. Dropping it ends the fetching; what is served goes on being served.
struct Drive {
    node: Arc<Inner>,
    transfer: modswarm_protocol::engine::TransferId,
    events: mpsc::Receiver<TransferEvent>,
    order: PickOrder,
    /// Pieces that go before all others.
    first: Option<PieceSet>,
}

impl Drive {
    /// Begins; nothing if another job fetches the same.
    async fn begin(
        node: &Arc<Inner>,
        target: &Target,
        peers: Vec<(PeerId, Multiaddr)>,
    ) -> Result<Option<Self>, Failure> {
        let (sink, events) = mpsc::channel(TRANSFER_QUEUE);
        let (reply, answer) = oneshot::channel();
        node.send(Command::Begin {
            root: target.root,
            content: target.content,
            peers,
            sink,
            reply,
        })
        .await?;
        let transfer = answer.await.map_err(|_| node_ended())?;
        Ok(transfer.map(|transfer| Self {
            node: Arc::clone(node),
            transfer,
            events,
            order: PickOrder::default(),
            first: None,
        }))
    }

    async fn view(&self) -> Result<Option<TransferView>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.node
            .send(Command::Transfer {
                transfer: self.transfer,
                reply,
            })
            .await?;
        answer.await.map_err(|_| node_ended())
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let node = Arc::clone(&self.node);
        let transfer = self.transfer;
        // The queue may be full for a moment, and dropping cannot wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = node.send(Command::End { transfer }).await;
            });
        }
    }
}

pub(super) fn node_ended() -> Failure {
    Failure::new(
        FailureKind::Interrupted,
        "the node has ended",
        "run the same command again: it goes on from what is here",
    )
}

/// Reads what the user pasted, and the peers that were named.
fn parse_target(text: &str, peers: &[String]) -> Result<(Target, Vec<(PeerId, Multiaddr)>), Failure> {
    let target = Target::parse(text).map_err(|error| Failure {
        kind: FailureKind::Usage,
        message: causes(&error),
        help: None,
    })?;
    if target.is_expired(unix_seconds()) {
        return Err(Failure::new(
            FailureKind::Usage,
            "this link has expired",
            "ask whoever shared the pack for a new one",
        ));
    }
    let mut named = Vec::new();
    for text in peers {
        let peer = text.parse().ok().as_ref().and_then(super::peers::split_peer);
        named.push(peer.ok_or_else(|| {
            Failure::new(
                FailureKind::Usage,
                format!("{text:?} is not the address of a peer"),
                "write it as `modswarm status` shows it, like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…",
            )
        })?);
    }
    named.extend(target.addrs.iter().filter_map(super::peers::split_peer));
    Ok((target, named))
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// An error with its causes, as one sentence.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// All that may be served as nodes of a skeleton.
fn nodes_of(skeleton: &Skeleton) -> Nodes {
    let Some(head) = &skeleton.pack else {
        return Nodes::new(&skeleton.content, &[], 0);
    };
    let mut heads = vec![skeleton.root, head.manifest_cid];
    let mut bytes = head.root_bytes.len() + head.manifest_bytes.len();
    if let Some((cid, sig)) = &head.sig {
        heads.push(*cid);
        bytes += sig.len();
    }
    Nodes::new(&skeleton.content, &heads, bytes as u64)
}
