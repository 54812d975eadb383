//! The node: libp2p, discovery, and the actor that drives the engine.

use std::path::PathBuf;

use libp2p::Multiaddr;
use tokio::sync::mpsc;

use crate::api::{
    Failure, GetEvent, GetRequest, ListRequest, Listing, NetworkKind, PackStatus, PeerStatus, RemoveRequest, Removed,
    ShareEvent, ShareRequest, Status,
};

/// How to start a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The home folder. The caller holds its lock.
    pub home: PathBuf,
    /// Addresses to listen on; empty: the network's defaults.
    pub listen: Vec<Multiaddr>,
    /// Peers to bootstrap from, beside the network's own.
    pub bootstrap: Vec<Multiaddr>,
    /// The network.
    pub network: NetworkKind,
    /// Bytes a second; none: unlimited.
    pub upload_limit: Option<u64>,
    /// Bytes a second; none: unlimited.
    pub download_limit: Option<u64>,
}

/// A handle on a running node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// When the home or the network cannot be used.
    pub async fn start(_config: NodeConfig) -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Shares a folder. Dropping the receiver before [`ShareEvent::Ready`] cancels.
    pub fn share(&self, _request: ShareRequest) -> mpsc::Receiver<ShareEvent> {
        mpsc::channel(1).1
    }

    /// Fetches a pack. Dropping the receiver before [`GetEvent::Complete`] stops it with progress kept.
    pub fn get(&self, _request: GetRequest) -> mpsc::Receiver<GetEvent> {
        mpsc::channel(1).1
    }

    /// Lists the files of a pack.
    ///
    /// # Errors
    /// As [`Node::get`].
    pub async fn list(&self, _request: ListRequest) -> Result<Listing, Failure> {
        unreachable!()
    }

    /// The node and its packs.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn status(&self) -> Result<Status, Failure> {
        unreachable!()
    }

    /// Connected peers.
    ///
    /// # Errors
    /// When the node has ended.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        unreachable!()
    }

    /// One pack of the home, by link, CID, name or path.
    ///
    /// # Errors
    /// When there is no such pack.
    pub async fn info(&self, _target: String) -> Result<PackStatus, Failure> {
        unreachable!()
    }

    /// Forgets a pack.
    ///
    /// # Errors
    /// When there is no such pack, or its files cannot be deleted.
    pub async fn remove(&self, _request: RemoveRequest) -> Result<Removed, Failure> {
        unreachable!()
    }

    /// Ends the node; what was verified is durable when this returns.
    pub async fn shutdown(&self) {}
}
