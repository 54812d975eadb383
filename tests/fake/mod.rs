//! A stand-in for the node behind the control server.

use std::sync::{Arc, Mutex};

use modswarm::{
    api::{
        AdjustRequest, Collected, Complete, Diff, DiffRequest, Failure, FailureKind, ForgiveRequest, Forgiven,
        GcRequest, GetEvent, GetRequest, LimitRequest, Limits, ListRequest, Listing, MoveRequest, Moved, NetworkKind,
        PackStatus, PeerShare, PeerStatus, PinRequest, RemoveRequest, Removed, ShareEvent, ShareRequest, Shared, Stage,
        Status, VerifyEvent, VerifyRequest,
    },
    control::{API_VERSION, Backend, HolderInfo},
};
use modswarm_protocol::{Cid, Codec, HashKind};
use modswarm_store::HomeLock;
use tokio::sync::{mpsc, watch};

/// A backend that shares at once, and counts the gets that were cancelled.
///
/// What a get does is told by the end of its target: `fast` completes at once, `taken` finds files in the way, `begun` shows its
/// plan and gets no further, and all others find nobody.
#[derive(Clone)]
pub(crate) struct Fake {
    _lock: Arc<HomeLock>,
    pub(crate) cancelled: watch::Sender<usize>,
    pub(crate) removed: Arc<Mutex<Vec<RemoveRequest>>>,
}

impl Fake {
    pub(crate) fn new(lock: HomeLock) -> Self {
        Self {
            _lock: Arc::new(lock),
            cancelled: watch::channel(0).0,
            removed: Arc::default(),
        }
    }
}

pub(crate) fn cid() -> Cid {
    Cid::of(Codec::Raw, HashKind::Blake3, b"a mod")
}

fn progress() -> GetEvent {
    GetEvent::Progress {
        stage: Stage::LookingForPeers,
        bytes_done: 0,
        bytes_total: 0,
        rate: 0,
        eta: None,
        peers: 0,
    }
}

fn plan(request: &GetRequest) -> GetEvent {
    GetEvent::Plan {
        pack: Some(cid()),
        content: cid(),
        name: "a mod".to_owned(),
        path: request.output.join("a mod"),
        files: 1,
        bytes: 5,
        bytes_here: 0,
        disk_free: None,
        renamed: Vec::new(),
        kept: Vec::new(),
    }
}

fn complete(request: GetRequest) -> Complete {
    Complete {
        pack: Some(cid()),
        content: cid(),
        path: request.output.join("a mod"),
        files: 1,
        bytes: 5,
        seconds: 0.5,
        bytes_fetched: 5,
        bytes_reused: 0,
        bytes_skeleton: 7,
        bytes_wasted: 0,
        renamed: Vec::new(),
        removed: Vec::new(),
        kept: Vec::new(),
        set_aside: Vec::new(),
        peers: vec![PeerShare {
            peer_id: "you".to_owned(),
            addr: "/ip4/127.0.0.1/tcp/1".to_owned(),
            bytes: 5,
        }],
    }
}

pub(crate) fn unsupported() -> Failure {
    Failure::new(FailureKind::NotFound, "the fake has none", "ask another")
}

impl Backend for Fake {
    fn share(&self, request: ShareRequest) -> mpsc::Receiver<ShareEvent> {
        let (sender, receiver) = mpsc::channel(4);
        let shared = Shared {
            pack: cid(),
            content: cid(),
            link: request.path.to_string_lossy().into_owned(),
            files: 1,
            bytes: 5,
            blocks: 1,
            peer_id: "me".to_owned(),
            addrs: Vec::new(),
        };
        sender.try_send(ShareEvent::Ready(shared)).unwrap();
        receiver
    }

    fn get(&self, request: GetRequest) -> mpsc::Receiver<GetEvent> {
        let (sender, receiver) = mpsc::channel(4);
        sender.try_send(progress()).unwrap();
        let target = request.target.as_str();
        if target.ends_with("taken") {
            let failure = Failure::new(
                FailureKind::WouldOverwrite,
                "1 file is in the way: a.pak",
                "add --overwrite",
            );
            sender.try_send(GetEvent::Failed(failure)).unwrap();
            return receiver;
        }
        if target.ends_with("fast") || target.ends_with("begun") {
            sender.try_send(plan(&request)).unwrap();
        }
        if target.ends_with("fast") {
            sender.try_send(GetEvent::Complete(complete(request))).unwrap();
            return receiver;
        }
        let cancelled = self.cancelled.clone();
        tokio::spawn(async move {
            sender.closed().await;
            cancelled.send_modify(|count| *count += 1);
        });
        receiver
    }

    async fn list(&self, _: ListRequest) -> Result<Listing, Failure> {
        Err(unsupported())
    }

    async fn diff(&self, request: DiffRequest) -> Result<Diff, Failure> {
        Ok(Diff {
            from: None,
            to: cid(),
            name: Some(request.to),
            path: request.output,
            unchanged: 1,
            added: vec!["a.pak".to_owned()],
            changed: Vec::new(),
            removed: Vec::new(),
            renamed: Vec::new(),
            conflicts: Vec::new(),
            kept: Vec::new(),
            bytes_to_fetch: 5,
            disk_needed: 5,
            disk_change: 5,
            disk_free: None,
        })
    }

    async fn status(&self) -> Result<Status, Failure> {
        Ok(Status {
            peer_id: Some("me".to_owned()),
            addrs: Vec::new(),
            network: NetworkKind::Lan,
            upload_rate: 1,
            download_rate: 2,
            upload_limit: None,
            download_limit: Some(3),
            upload_auto: false,
            peers: 4,
            packs: Vec::new(),
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        Ok(Vec::new())
    }

    async fn known_peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        Ok(vec![PeerStatus {
            peer_id: "liar".to_owned(),
            banned_until: Some(7),
            ..PeerStatus::default()
        }])
    }

    async fn forgive(&self, request: ForgiveRequest) -> Result<Forgiven, Failure> {
        match request.peer_id {
            Some(_) => Err(unsupported()),
            None => Ok(Forgiven { peers: 1 }),
        }
    }

    async fn info(&self, _: String) -> Result<PackStatus, Failure> {
        Err(unsupported())
    }

    async fn remove(&self, request: RemoveRequest) -> Result<Removed, Failure> {
        self.removed.lock().unwrap().push(request);
        Err(unsupported())
    }

    fn verify(&self, _: VerifyRequest) -> mpsc::Receiver<VerifyEvent> {
        let (sender, receiver) = mpsc::channel(4);
        sender.try_send(VerifyEvent::Complete).unwrap();
        receiver
    }

    async fn relocate(&self, _: MoveRequest) -> Result<Moved, Failure> {
        Err(unsupported())
    }

    async fn pin(&self, _: PinRequest) -> Result<PackStatus, Failure> {
        Err(unsupported())
    }

    async fn limit(&self, request: LimitRequest) -> Result<Limits, Failure> {
        Ok(Limits {
            upload: request.upload.unwrap_or_default(),
            ..Limits::default()
        })
    }

    async fn adjust(&self, _: AdjustRequest) -> Result<Vec<PackStatus>, Failure> {
        Err(unsupported())
    }

    async fn collect(&self, _: GcRequest) -> Result<Collected, Failure> {
        Ok(Collected::default())
    }

    async fn shutdown(&self) {}
}

pub(crate) fn info() -> HolderInfo {
    HolderInfo {
        api: API_VERSION,
        version: "test".to_owned(),
        pid: std::process::id(),
        network: NetworkKind::Lan,
        listen: Vec::new(),
        bootstrap: Vec::new(),
        upload_limit: None,
        download_limit: Some(3),
        upload_auto: false,
    }
}
