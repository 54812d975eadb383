//! The sockets of one session: a control stream both ways, and a bulk stream each way.
//!
//! Tasks move bytes and nothing else: what a message means is the engine's affair, and hashing and disk run on the block pool.
//! Every channel is bounded; a peer that does not read is left.

mod bulk;
mod control;
mod pace;
mod throttle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use libp2p::{PeerId, Stream, swarm::ConnectionId};
use modswarm_protocol::{
    engine::ConnId,
    wire::{Handle, Message, StreamKind, limits::MAX_OPENED_LEN},
};
use tokio::{sync::mpsc, task::AbortHandle};

pub(super) use bulk::Serve;
pub(super) use throttle::UploadLimits;

use self::throttle::{PeerPace, Throttles};
use super::{
    blocks::BlockPool,
    facts::{Input, SessionError},
    swap::InboundStream,
};

/// Control messages that wait for a peer to read; beyond, the peer is too slow to talk to.
const CONTROL_QUEUE: usize = 8192;
/// Bytes of them: have-maps are large.
const CONTROL_QUEUE_BYTES: usize = 2 * MAX_OPENED_LEN;
/// How long a peer may take for the first byte of a stream.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(20);

/// A session's ends of its tasks' channels. Dropping it ends the tasks.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    control: mpsc::Sender<Vec<u8>>,
    /// Bytes that wait in `control`.
    queued: Arc<AtomicUsize>,
    serve: mpsc::Sender<Serve>,
    serve_queue: Option<mpsc::Receiver<Serve>>,
    pace: PeerPace,
    /// Whether the stream for our blocks has been asked for.
    pub(super) bulk_requested: bool,
    /// Whether the peer has opened the stream for its blocks.
    pub(super) bulk_accepted: bool,
    tasks: Vec<AbortHandle>,
}

impl Session {
    /// Starts the control tasks over `stream`.
    pub(super) fn start(
        conn: ConnId,
        peer: PeerId,
        connection: ConnectionId,
        stream: ControlStream,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let (control, outgoing) = mpsc::channel(CONTROL_QUEUE);
        let (serve, serve_queue) = mpsc::channel(bulk::SERVE_QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let outgoing = control::Outgoing::new(outgoing, Arc::clone(&queued));
        let task = tokio::spawn(async move {
            let error = control::run(conn, stream, outgoing, inputs.clone()).await;
            let _ = inputs.send(Input::SessionEnded { conn, error }).await;
        });
        Self {
            peer,
            connection,
            control,
            queued,
            serve,
            serve_queue: Some(serve_queue),
            pace: PeerPace::new(),
            bulk_requested: false,
            bulk_accepted: false,
            tasks: vec![task.abort_handle()],
        }
    }

    /// Queues a message; false if the peer has not read the last ones.
    pub(super) fn send(&self, message: &Message) -> bool {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        let len = frame.len();
        if self.queued.load(Ordering::Relaxed) + len > CONTROL_QUEUE_BYTES {
            return false;
        }
        self.queued.fetch_add(len, Ordering::Relaxed);
        self.control.try_send(frame).is_ok()
    }

    /// Queues a block to read and send; false if more are queued than the engine allows a peer.
    pub(super) fn serve(&self, serve: Serve) -> bool {
        self.serve.try_send(serve).is_ok()
    }

    /// Blocks of one handle of the peer, or all of them, are to leave at no more than `rate` bytes a second.
    pub(super) fn set_pace(&self, handle: Option<Handle>, rate: Option<u64>) {
        match handle {
            Some(handle) => self.pace.set_own_rate(handle, rate),
            None => self.pace.set_rate(rate),
        }
    }

    /// Takes what the bulk writer will need once its stream is open.
    pub(super) fn take_serve_queue(&mut self) -> Option<mpsc::Receiver<Serve>> {
        self.serve_queue.take()
    }

    /// Starts sending blocks over `stream`.
    pub(super) fn start_bulk_writer(
        &mut self,
        conn: ConnId,
        stream: Stream,
        queue: mpsc::Receiver<Serve>,
        pool: BlockPool,
        limits: UploadLimits,
        inputs: mpsc::Sender<Input>,
    ) {
        let pace = self.pace.clone();
        let task = tokio::spawn(async move {
            let error = bulk::write(stream, queue, pool, Throttles { limits, pace }, inputs.clone()).await;
            let _ = inputs.send(Input::SessionEnded { conn, error }).await;
        });
        self.tasks.push(task.abort_handle());
    }

    /// Starts reading the peer's blocks from `stream`.
    pub(super) fn start_bulk_reader(
        &mut self,
        conn: ConnId,
        stream: InboundStream,
        pool: BlockPool,
        inputs: mpsc::Sender<Input>,
    ) {
        self.bulk_accepted = true;
        let task = tokio::spawn(async move {
            let error = bulk::read(conn, stream, pool, inputs.clone()).await;
            let _ = inputs.send(Input::SessionEnded { conn, error }).await;
        });
        self.tasks.push(task.abort_handle());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A control stream, opened by either side.
#[derive(Debug)]
pub(super) enum ControlStream {
    /// By us: its kind is still to be said.
    Outbound(Stream),
    /// By the peer: its kind has been read.
    Inbound(InboundStream),
}

/// Reads the first byte of a stream that a peer opened.
pub(super) async fn read_kind(stream: &mut Stream) -> Result<StreamKind, SessionError> {
    use futures::AsyncReadExt as _;
    let mut first = [0; 1];
    tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.read_exact(&mut first))
        .await
        .map_err(|_| SessionError::NothingSaid)??;
    StreamKind::from_byte(first[0]).ok_or_else(|| SessionError::StreamKind(first[0]))
}
