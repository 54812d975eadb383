//! The one thread that writes the index.
//!
//! Two kinds of work come to it. A *job* is a transaction that its caller waits for. A *pending* is something (a download) that has
//! gathered writes to users' files: within [`INTERVAL`], or at a flush, the writer lets each pending sync its files, apply its rows, and commits them all
//! together. Those who write pieces therefore never wait for a disk to sync, and the index never says what the disk does not hold.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{backend::Backend, error::IndexError};

/// Between the first unsynced write and its commit.
const INTERVAL: Duration = Duration::from_secs(1);
/// Jobs that wait; a caller beyond waits to hand its job over.
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(&mut Connection, &dyn Backend) + Send>;

/// Something whose writes are committed in batches.
pub(crate) trait Pending: Send + Sync {
    /// Takes what was gathered, and makes its bytes durable. `None`: nothing to do.
    fn sync(&self) -> Result<(), IndexError>;
    /// Writes the rows of what [`Pending::sync`] took.
    fn apply(&self, tx: &Transaction<'_>) -> Result<(), IndexError>;
    /// Says how the commit went; after a failure what was taken is pending again.
    fn committed(&self, result: &Result<(), IndexError>);
}

enum Op {
    Job(Job),
    Pending(Arc<dyn Pending>),
    Flush(SyncSender<Result<(), IndexError>>, Option<Arc<dyn Pending>>),
    Stop,
}

/// A handle on the writer; dropping it commits what is pending and ends the thread.
pub(crate) struct Writer {
    ops: SyncSender<Op>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(crate) fn start(conn: Connection, backend: Arc<dyn Backend>) -> std::io::Result<Self> {
        let (ops, queue) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("modswarm-index".to_owned())
            .spawn(move || run(conn, &*backend, &queue))?;
        Ok(Self {
            ops,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `job` in a transaction of its own and waits. Durable when it returns `Ok`.
    pub(crate) fn run<T: Send + 'static, E: From<IndexError> + Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (reply, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |conn, backend| {
            let outcome = conn
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(|e| E::from(IndexError::from(e)))
                .and_then(|tx| {
                    let value = job(&tx)?;
                    commit_tx(tx, backend)?;
                    Ok(value)
                });
            let _ = reply.send(outcome);
        });
        self.send(Op::Job(job))?;
        result.recv().map_err(|_| IndexError::Closed)?
    }

    /// Runs `job` between transactions and waits: for statements that cannot run inside one.
    pub(crate) fn outside_transactions(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<(), IndexError> + Send + 'static,
    ) -> Result<(), IndexError> {
        let (reply, result) = mpsc::sync_channel(1);
        self.send(Op::Job(Box::new(move |conn, _| {
            let _ = reply.send(job(conn));
        })))?;
        result.recv().map_err(|_| IndexError::Closed)?
    }

    /// Says that `pending` has gathered something. To be called once until its next [`Pending::sync`].
    pub(crate) fn pending(&self, pending: Arc<dyn Pending>) -> Result<(), IndexError> {
        self.send(Op::Pending(pending))
    }

    /// Commits all that is pending, and waits.
    pub(crate) fn flush(&self) -> Result<(), IndexError> {
        self.flush_and_wait(None)
    }

    /// As [`Writer::flush`], where it matters to the caller only whether `pending` was committed: another's disk may be gone.
    pub(crate) fn flush_of(&self, pending: Arc<dyn Pending>) -> Result<(), IndexError> {
        self.flush_and_wait(Some(pending))
    }

    fn flush_and_wait(&self, of: Option<Arc<dyn Pending>>) -> Result<(), IndexError> {
        let (reply, result) = mpsc::sync_channel(1);
        self.send(Op::Flush(reply, of))?;
        result.recv().map_err(|_| IndexError::Closed)?
    }

    /// Flushes and ends the thread.
    pub(crate) fn close(&self) -> Result<(), IndexError> {
        let result = match self.flush() {
            Err(IndexError::Closed) => Ok(()),
            other => other,
        };
        let _ = self.ops.send(Op::Stop);
        self.join();
        result
    }

    fn send(&self, op: Op) -> Result<(), IndexError> {
        self.ops.send(op).map_err(|_| IndexError::Closed)
    }

    fn join(&self) {
        let thread = crate::lock(&self.thread).take();
        if let Some(thread) = thread
            // The last owner of the store may be a pending that the writer itself drops.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let on_writer = crate::lock(&self.thread)
            .as_ref()
            .is_none_or(|thread| thread.thread().id() == thread::current().id());
        if !on_writer {
            let _ = self.ops.send(Op::Stop);
            self.join();
        }
    }
}

fn run(mut conn: Connection, backend: &dyn Backend, queue: &Receiver<Op>) {
    let mut pending: Vec<Arc<dyn Pending>> = Vec::new();
    let mut due = Instant::now();
    loop {
        let op = if pending.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(due.saturating_duration_since(Instant::now()))
        };
        match op {
            Ok(Op::Job(job)) => job(&mut conn, backend),
            Ok(Op::Pending(p)) => {
                if pending.is_empty() {
                    due = Instant::now() + INTERVAL;
                }
                pending.push(p);
            }
            Ok(Op::Flush(reply, of)) => {
                let of = of.as_deref();
                let _ = reply.send(commit(&mut conn, backend, &mut pending, of));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Err(e) = commit(&mut conn, backend, &mut pending, None) {
                    tracing::warn!("the index could not be written, trying again: {e}");
                    due = Instant::now() + INTERVAL;
                }
            }
            Ok(Op::Stop) | Err(RecvTimeoutError::Disconnected) => {
                if let Err(e) = commit(&mut conn, backend, &mut pending, None) {
                    tracing::warn!("the index could not be written at the end: {e}");
                }
                return;
            }
        }
        // Under a stream of jobs the time-out would never fire.
        if !pending.is_empty() && Instant::now() >= due {
            let _ = commit(&mut conn, backend, &mut pending, None);
            due = Instant::now() + INTERVAL;
        }
    }
}

/// Commits all pending together that could be synced; the others, and after a failure all, stay pending. Gives the first error, or that of `of`.
fn commit(
    conn: &mut Connection,
    backend: &dyn Backend,
    pending: &mut Vec<Arc<dyn Pending>>,
    of: Option<&dyn Pending>,
) -> Result<(), IndexError> {
    if pending.is_empty() {
        return Ok(());
    }
    let synced: Vec<Result<(), IndexError>> = pending.iter().map(|p| p.sync()).collect();
    let ready = || pending.iter().zip(&synced).filter(|(_, synced)| synced.is_ok());
    let mut apply = || -> Result<(), IndexError> {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (p, _) in ready() {
            p.apply(&tx)?;
        }
        commit_tx(tx, backend)
    };
    let committed = match ready().next() {
        Some(_) => apply(),
        None => Ok(()),
    };
    let mut left = Vec::new();
    let mut outcome = committed.clone();
    for (p, synced) in std::mem::take(pending).into_iter().zip(synced) {
        let result = synced.and_then(|()| committed.clone());
        p.committed(&result);
        if let Err(e) = result {
            let asked = of.is_none_or(|of| std::ptr::addr_eq(of, Arc::as_ptr(&p)));
            if asked && outcome.is_ok() {
                outcome = Err(e);
            }
            left.push(p);
        }
    }
    *pending = left;
    outcome
}

fn commit_tx(tx: Transaction<'_>, backend: &dyn Backend) -> Result<(), IndexError> {
    backend
        .before_index_commit()
        .map_err(|e| IndexError::Other(format!("the index cannot be written: {e}")))?;
    Ok(tx.commit()?)
}
