//! Becoming the holder of a home, or a client of who is.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use modswarm_store::HomeLock;

use super::{Backend, CallError, Client, HolderInfo, Transport, server::Server};
use crate::api::{Failure, FailureKind};

/// How long a home may be locked by a process that does not answer: it is starting (an index being rebuilt takes its time) or
/// ending.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long one waits before the user is told.
const QUIET_WAIT: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What a process has become.
#[derive(Debug)]
pub enum Joined<B> {
    /// It holds the home.
    Holder(Holder<B>),
    /// Another one does.
    Client(Client),
}

/// A home that is held: the backend and the control server before it.
#[derive(Debug)]
pub struct Holder<B> {
    backend: B,
    server: Option<Server>,
    problem: Option<String>,
}

impl<B: Backend> Holder<B> {
    /// What does the work.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Why other processes cannot ask this one, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Gives the home up: clients learn that they must look for another holder, then the backend ends. What was verified is
    /// durable when this returns.
    pub async fn close(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
        self.backend.shutdown().await;
    }
}

/// Makes this process the holder of `home`, or a client of who is.
///
/// Safe to be called by many processes at once: one of them gets the lock, and the others wait until it answers. With the lock,
/// `start` makes the backend, which keeps the lock for as long as it lives; without `transport` nobody is served, for a backend
/// that is needed for a moment only. `waiting` is called once if it takes some seconds.
/// Cancel safe, apart from `start` itself.
///
/// # Errors
/// Those of `start`; when the home cannot be made; when a process holds it that does not answer for [`MAX_WAIT`], or answers in
/// another version.
pub async fn join<B, F>(
    home: &Path,
    transport: Option<Transport>,
    start: impl FnOnce(HomeLock) -> F,
    waiting: impl FnOnce(),
) -> Result<Joined<B>, Failure>
where
    B: Backend,
    F: Future<Output = Result<(B, HolderInfo), Failure>>,
{
    let began = Instant::now();
    let mut waiting = Some(waiting);
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(lock) = lock(home)? {
            let home = lock.home().to_owned();
            let (backend, info) = start(lock).await?;
            let (server, problem) = match transport {
                None => (None, None),
                Some(transport) => match Server::start(backend.clone(), info, &home, transport).await {
                    Ok(server) => (Some(server), None),
                    Err(error) => (None, Some(error.to_string())),
                },
            };
            return Ok(Joined::Holder(Holder {
                backend,
                server,
                problem,
            }));
        }
        match Client::connect(home).await {
            Ok(client) => return Ok(Joined::Client(client)),
            Err(CallError::Failed(failure)) => return Err(failure),
            Err(CallError::Lost) => {}
        }
        if began.elapsed() >= MAX_WAIT {
            return Err(Failure::new(
                FailureKind::Failed,
                format!(
                    "another modswarm process holds the home {} and does not answer",
                    home.display()
                ),
                "end that process, or use another home with --home DIR",
            ));
        }
        if began.elapsed() >= QUIET_WAIT
            && let Some(waiting) = waiting.take()
        {
            waiting();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Takes the lock of `home`, if nobody has it.
fn lock(home: &Path) -> Result<Option<HomeLock>, Failure> {
    HomeLock::try_acquire(home).map_err(|error| {
        if home.exists() && !home.is_dir() {
            return Failure::new(
                FailureKind::Usage,
                format!("the home `{}` is a file, not a folder", home.display()),
                "name a folder with --home DIR; it is made if it is not there",
            );
        }
        let cause = std::error::Error::source(&error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        Failure::new(
            FailureKind::Failed,
            format!("{error}{cause}"),
            "see who may write there, or use another home with --home DIR",
        )
    })
}
