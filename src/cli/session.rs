//! How a command comes to a node, here or in the process that holds the home, and follows a job there.

use std::{fs::OpenOptions, future, io::ErrorKind, time::Duration};

use modswarm::{
    api::{
        AdjustRequest, Collected, Diff, DiffRequest, Failure, FailureKind, ForgiveRequest, Forgiven, GcRequest,
        GetEvent, GetRequest, LimitRequest, Limits, ListRequest, Listing, MoveRequest, Moved, PackStatus, PeerStatus,
        PinRequest, RemoveRequest, Removed, ShareEvent, ShareRequest, Status, VerifyEvent, VerifyRequest,
    },
    config::{Rate, Settings, UploadLimit},
    control::{self, API_VERSION, CallError, Client, Holder, HolderInfo, Joined, Transport},
    node::{Node, NodeConfig},
};
use modswarm_store::HomeLock;
use tokio::sync::mpsc;

use super::{
    differences,
    output::{Shown, Ui},
    progress::{Meter, TICK},
    signals::Signals,
    text,
};

/// A file in the home whose being there says that the user was told about uploads.
const NOTICE_MARKER: &str = "upload-notice-shown";

/// How often a seeding process looks at how it goes, and a client at whether its holder is still there.
const SEED_TICK: Duration = Duration::from_secs(2);

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) ui: Ui,
    pub(crate) signals: Signals,
}

/// What a command needs a node for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Peers: the node listens and dials, and other processes may ask it.
    Network,
    /// The index only.
    Index,
}

/// The way to a node.
#[derive(Debug)]
pub(crate) enum Session {
    /// In this process.
    Holder(Holder<Node>),
    /// In the process that holds the home.
    Client(Client),
}

/// How following a job ended.
#[derive(Debug)]
pub(crate) enum Followed<T> {
    Done(T),
    Failed(Failure),
    /// The holder is gone, and the job is not done.
    Lost,
    /// The user wants to stop.
    Stopped,
}

/// How seeding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeded {
    Stopped,
    Lost,
}

impl Context {
    /// Comes to a node: becomes the holder of the home, or a client of who is.
    pub(crate) async fn join(&self, need: Need) -> Result<Session, Failure> {
        let transport = (need == Need::Network).then(Transport::default);
        let joined = control::join(
            &self.settings.places.home,
            transport,
            |lock| self.start(lock, need),
            || {
                self.ui
                    .note("Another modswarm process is starting or ending; waiting for it …")
            },
        );
        let joined = tokio::select! {
            biased;
            () = self.signals.stopped() => return Err(cancelled()),
            joined = joined => joined?,
        };
        match joined {
            Joined::Holder(holder) => {
                if let Some(problem) = holder.problem() {
                    self.ui.warning(&format!(
                        "other modswarm processes can't be answered while this one runs ({problem}); they will wait for its end"
                    ));
                }
                Ok(Session::Holder(holder))
            }
            Joined::Client(client) => {
                if need == Need::Network {
                    for warning in differences::checked(&self.settings, client.holder())? {
                        self.ui.warning(&warning);
                    }
                }
                Ok(Session::Client(client))
            }
        }
    }

    async fn start(&self, lock: HomeLock, need: Need) -> Result<(Node, HolderInfo), Failure> {
        let options = &self.settings.options;
        let config = NodeConfig {
            listen: options.listen.clone(),
            bootstrap: options.bootstrap.clone(),
            network: self.settings.network(),
            upload_limit: self.settings.upload_limit().bytes_per_second(),
            download_limit: self.settings.download_limit().bytes_per_second(),
            upload_auto: self.settings.upload_limit() == UploadLimit::Auto,
            limit_lan: self.settings.limit_lan(),
            max_active: self.settings.max_active(),
            quota: self.settings.quota(),
            min_free: self.settings.min_free(),
            offline: need != Need::Network,
        };
        let info = HolderInfo {
            api: API_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            network: config.network,
            listen: config.listen.iter().map(ToString::to_string).collect(),
            bootstrap: config.bootstrap.iter().map(ToString::to_string).collect(),
            upload_limit: config.upload_limit,
            download_limit: config.download_limit,
            upload_auto: config.upload_auto,
        };
        Ok((Node::start(lock, config).await?, info))
    }

    /// Says once in the life of a home that this machine will upload, within which limits, and how to change that.
    pub(crate) fn upload_notice(&self, session: &Session) {
        if self.ui.quiet() {
            return;
        }
        let marker = self.settings.places.home.join(NOTICE_MARKER);
        match OpenOptions::new().write(true).create_new(true).open(&marker) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return,
            // If it cannot be kept in mind, it is said again next time.
            _ => {}
        }
        let (upload, download) = match session {
            Session::Holder(_) => (self.settings.upload_limit(), self.settings.download_limit()),
            Session::Client(client) => {
                let holder = client.holder();
                (
                    differences::upload_limit(holder),
                    Rate::from_bytes_per_second(holder.download_limit),
                )
            }
        };
        self.ui.note(&format!(
            "While modswarm runs, this machine uploads what it shares, and what it has downloaded, to others who want it.\n\
             Limits now: upload {upload}, download {download}. To change them: --upload-limit 5MB/s, or the line\n\
             \x20 upload-limit = \"5MB/s\"\n\
             in {}. With `get --no-seed` it ends when the download is done.\n",
            self.settings.places.config_file.display()
        ));
    }

    /// Follows a job to its end. `on_event` gives the end, or none while it goes on.
    pub(crate) async fn follow<E, T>(
        &self,
        events: &mut mpsc::Receiver<E>,
        meter: &mut Meter,
        mut on_event: impl FnMut(E, &mut Meter) -> Option<Result<T, Failure>>,
    ) -> Followed<T> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.signals.stopped() => return Followed::Stopped,
                event = events.recv() => match event.map(|event| on_event(event, meter)) {
                    Some(None) => {}
                    Some(Some(Ok(done))) => return Followed::Done(done),
                    Some(Some(Err(failure))) => return Followed::Failed(failure),
                    None => return Followed::Lost,
                },
                _ = tick.tick() => meter.tick(),
            }
        }
    }

    /// Stays while the node seeds. `events` is the rest of the job's channel, whose end tells a client at once that its holder
    /// is gone; without it, that is found out within [`SEED_TICK`].
    pub(crate) async fn seed<E>(&self, session: &Session, mut events: Option<mpsc::Receiver<E>>) -> Seeded {
        let mut meter = Meter::new(&self.ui);
        let mut tick = tokio::time::interval(SEED_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let seeded = loop {
            let gone = async {
                match (session, &mut events) {
                    (Session::Client(_), Some(events)) => while events.recv().await.is_some() {},
                    _ => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.signals.stopped() => break Seeded::Stopped,
                () = gone => break Seeded::Lost,
                _ = tick.tick() => {}
            }
            if matches!(session, Session::Holder(_)) && self.ui.shown() != Shown::Bar {
                continue;
            }
            let status = tokio::select! {
                biased;
                () = self.signals.stopped() => break Seeded::Stopped,
                status = session.status() => status,
            };
            match status {
                Ok(status) => meter.spin(seeding(&status)),
                Err(CallError::Lost) => break Seeded::Lost,
                Err(CallError::Failed(_)) => {}
            }
        };
        meter.clear();
        seeded
    }

    /// Says who seeds now, and until when.
    pub(crate) fn say_who_seeds(&self, session: &Session) {
        match session {
            Session::Holder(_) => self.ui.note("Seeding until Ctrl-C."),
            Session::Client(client) => self.ui.note(&format!(
                "Seeding in the modswarm that was running already (process {}), which goes on when this one is stopped.",
                client.holder().pid
            )),
        }
    }

    /// What to do when a job's channel ended too soon: with a holder elsewhere, its work is taken over.
    pub(crate) fn take_over(&self, session: &Session) -> Result<(), Failure> {
        match session {
            Session::Client(_) => {
                self.ui
                    .note("The modswarm process that did the work has ended; this one goes on with it.");
                Ok(())
            }
            Session::Holder(_) => Err(Failure::new(
                FailureKind::Failed,
                "the node ended without saying why",
                "run the same command again, with --log debug to see more",
            )),
        }
    }
}

fn seeding(status: &Status) -> String {
    let sent: u64 = status.packs.iter().map(|pack| pack.bytes_uploaded).sum();
    let mut parts = vec![format!("seeding to {}", text::count(status.peers, "peer"))];
    if status.upload_rate > 0 {
        parts.push(format!("{} up", text::rate(status.upload_rate)));
    }
    if sent > 0 {
        parts.push(format!("{} sent", text::bytes(sent)));
    }
    parts.join(", ")
}

impl Session {
    pub(crate) async fn share(&self, request: &ShareRequest) -> Result<mpsc::Receiver<ShareEvent>, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().share(request.clone())),
            Self::Client(client) => client.share(request).await,
        }
    }

    pub(crate) async fn get(&self, request: &GetRequest) -> Result<mpsc::Receiver<GetEvent>, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().get(request.clone())),
            Self::Client(client) => client.get(request).await,
        }
    }

    pub(crate) async fn list(&self, request: &ListRequest) -> Result<Listing, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().list(request.clone()).await?),
            Self::Client(client) => client.list(request).await,
        }
    }

    pub(crate) async fn diff(&self, request: &DiffRequest) -> Result<Diff, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().diff(request.clone()).await?),
            Self::Client(client) => client.diff(request).await,
        }
    }

    pub(crate) async fn status(&self) -> Result<Status, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().status().await?),
            Self::Client(client) => client.status().await,
        }
    }

    pub(crate) async fn peers(&self) -> Result<Vec<PeerStatus>, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().peers().await?),
            Self::Client(client) => client.peers().await,
        }
    }

    pub(crate) async fn known_peers(&self) -> Result<Vec<PeerStatus>, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().known_peers().await?),
            Self::Client(client) => client.known_peers().await,
        }
    }

    pub(crate) async fn forgive(&self, request: &ForgiveRequest) -> Result<Forgiven, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().forgive(request.clone()).await?),
            Self::Client(client) => client.forgive(request).await,
        }
    }

    pub(crate) async fn info(&self, target: &str) -> Result<PackStatus, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().info(target.to_owned()).await?),
            Self::Client(client) => client.info(target.to_owned()).await,
        }
    }

    pub(crate) async fn remove(&self, request: &RemoveRequest) -> Result<Removed, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().remove(request.clone()).await?),
            Self::Client(client) => client.remove(request).await,
        }
    }

    pub(crate) async fn verify(&self, request: &VerifyRequest) -> Result<mpsc::Receiver<VerifyEvent>, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().verify(request.clone())),
            Self::Client(client) => client.verify(request).await,
        }
    }

    pub(crate) async fn relocate(&self, request: &MoveRequest) -> Result<Moved, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().relocate(request.clone()).await?),
            Self::Client(client) => client.relocate(request).await,
        }
    }

    pub(crate) async fn pin(&self, request: &PinRequest) -> Result<PackStatus, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().pin(request.clone()).await?),
            Self::Client(client) => client.pin(request).await,
        }
    }

    pub(crate) async fn collect(&self, request: &GcRequest) -> Result<Collected, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().collect(request.clone()).await?),
            Self::Client(client) => client.collect(request).await,
        }
    }

    pub(crate) async fn limit(&self, request: &LimitRequest) -> Result<Limits, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().limit(request.clone()).await?),
            Self::Client(client) => client.limit(request).await,
        }
    }

    pub(crate) async fn adjust(&self, request: &AdjustRequest) -> Result<Vec<PackStatus>, CallError> {
        match self {
            Self::Holder(holder) => Ok(holder.backend().adjust(request.clone()).await?),
            Self::Client(client) => client.adjust(request).await,
        }
    }

    /// Leaves: a holder gives the home up.
    pub(crate) async fn close(self) {
        if let Self::Holder(holder) = self {
            holder.close().await;
        }
    }
}

/// The failure of a command that was stopped before anything began.
pub(crate) fn cancelled() -> Failure {
    Failure {
        kind: FailureKind::Cancelled,
        message: "before anything began".to_owned(),
        help: None,
    }
}
