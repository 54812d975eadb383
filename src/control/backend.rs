//! What the control server serves: the node, or a stand-in in tests.

use std::future::Future;

use tokio::sync::mpsc;

use crate::{
    api::{
        AdjustRequest, Collected, Diff, DiffRequest, Failure, ForgiveRequest, Forgiven, GcRequest, GetEvent,
        GetRequest, LimitRequest, Limits, ListRequest, Listing, MoveRequest, Moved, PackStatus, PeerStatus, PinRequest,
        RemoveRequest, Removed, ShareEvent, ShareRequest, Status, VerifyEvent, VerifyRequest,
    },
    node::Node,
};

/// What can be asked of a node; the methods are those of [`Node`], with the same promises.
pub trait Backend: Clone + Send + Sync + 'static {
    /// See [`Node::share`].
    fn share(&self, request: ShareRequest) -> mpsc::Receiver<ShareEvent>;
    /// See [`Node::get`].
    fn get(&self, request: GetRequest) -> mpsc::Receiver<GetEvent>;
    /// See [`Node::list`]. Dropping the future stops it.
    fn list(&self, request: ListRequest) -> impl Future<Output = Result<Listing, Failure>> + Send;
    /// See [`Node::diff`]. Dropping the future stops it.
    fn diff(&self, request: DiffRequest) -> impl Future<Output = Result<Diff, Failure>> + Send;
    /// See [`Node::status`].
    fn status(&self) -> impl Future<Output = Result<Status, Failure>> + Send;
    /// See [`Node::peers`].
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, Failure>> + Send;
    /// See [`Node::known_peers`].
    fn known_peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, Failure>> + Send;
    /// See [`Node::forgive`].
    fn forgive(&self, request: ForgiveRequest) -> impl Future<Output = Result<Forgiven, Failure>> + Send;
    /// See [`Node::info`].
    fn info(&self, target: String) -> impl Future<Output = Result<PackStatus, Failure>> + Send;
    /// See [`Node::remove`].
    fn remove(&self, request: RemoveRequest) -> impl Future<Output = Result<Removed, Failure>> + Send;
    /// See [`Node::verify`].
    fn verify(&self, request: VerifyRequest) -> mpsc::Receiver<VerifyEvent>;
    /// See [`Node::relocate`].
    fn relocate(&self, request: MoveRequest) -> impl Future<Output = Result<Moved, Failure>> + Send;
    /// See [`Node::pin`].
    fn pin(&self, request: PinRequest) -> impl Future<Output = Result<PackStatus, Failure>> + Send;
    /// See [`Node::collect`].
    fn collect(&self, request: GcRequest) -> impl Future<Output = Result<Collected, Failure>> + Send;
    /// See [`Node::limit`].
    fn limit(&self, request: LimitRequest) -> impl Future<Output = Result<Limits, Failure>> + Send;
    /// See [`Node::adjust`].
    fn adjust(&self, request: AdjustRequest) -> impl Future<Output = Result<Vec<PackStatus>, Failure>> + Send;
    /// See [`Node::shutdown`].
    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}

impl Backend for Node {
    fn share(&self, request: ShareRequest) -> mpsc::Receiver<ShareEvent> {
        Self::share(self, request)
    }

    fn get(&self, request: GetRequest) -> mpsc::Receiver<GetEvent> {
        Self::get(self, request)
    }

    fn list(&self, request: ListRequest) -> impl Future<Output = Result<Listing, Failure>> + Send {
        Self::list(self, request)
    }

    fn diff(&self, request: DiffRequest) -> impl Future<Output = Result<Diff, Failure>> + Send {
        Self::diff(self, request)
    }

    fn status(&self) -> impl Future<Output = Result<Status, Failure>> + Send {
        Self::status(self)
    }

    fn peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, Failure>> + Send {
        Self::peers(self)
    }

    fn known_peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, Failure>> + Send {
        Self::known_peers(self)
    }

    fn forgive(&self, request: ForgiveRequest) -> impl Future<Output = Result<Forgiven, Failure>> + Send {
        Self::forgive(self, request)
    }

    fn info(&self, target: String) -> impl Future<Output = Result<PackStatus, Failure>> + Send {
        Self::info(self, target)
    }

    fn remove(&self, request: RemoveRequest) -> impl Future<Output = Result<Removed, Failure>> + Send {
        Self::remove(self, request)
    }

    fn verify(&self, request: VerifyRequest) -> mpsc::Receiver<VerifyEvent> {
        Self::verify(self, request)
    }

    fn relocate(&self, request: MoveRequest) -> impl Future<Output = Result<Moved, Failure>> + Send {
        Self::relocate(self, request)
    }

    fn pin(&self, request: PinRequest) -> impl Future<Output = Result<PackStatus, Failure>> + Send {
        Self::pin(self, request)
    }

    fn collect(&self, request: GcRequest) -> impl Future<Output = Result<Collected, Failure>> + Send {
        Self::collect(self, request)
    }

    fn limit(&self, request: LimitRequest) -> impl Future<Output = Result<Limits, Failure>> + Send {
        Self::limit(self, request)
    }

    fn adjust(&self, request: AdjustRequest) -> impl Future<Output = Result<Vec<PackStatus>, Failure>> + Send {
        Self::adjust(self, request)
    }

    fn shutdown(&self) -> impl Future<Output = ()> + Send {
        Self::shutdown(self)
    }
}
