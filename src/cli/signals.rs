//! Ctrl-C and its like: the first asks, the second insists.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use modswarm::api::FailureKind;
use tokio_util::sync::CancellationToken;

/// What the process has reached, which decides its exit code when it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing that would be lost has begun.
    Before,
    /// Something is under way whose progress is kept.
    Underway,
    /// The job is done; it goes on for others.
    Seeding,
}

impl Phase {
    /// The exit code of a process that is stopped here.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Before => FailureKind::Cancelled.exit_code(),
            Self::Underway => FailureKind::Interrupted.exit_code(),
            Self::Seeding => 0,
        }
    }
}

/// The wish to stop; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    stop: CancellationToken,
    exit_code: Arc<AtomicU8>,
}

impl Signals {
    /// Listens for SIGINT and SIGTERM (Ctrl-C and Ctrl-Break on Windows) from now on. Within a Tokio runtime.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub(crate) fn listen() -> io::Result<Self> {
        let signals = Self {
            stop: CancellationToken::new(),
            exit_code: Arc::new(AtomicU8::new(Phase::Before.exit_code())),
        };
        let mut source = Source::new()?;
        let listener = signals.clone();
        tokio::spawn(async move {
            source.next().await;
            listener.stop.cancel();
            source.next().await;
            // What is verified and written is found again: a kill is no worse.
            std::process::exit(i32::from(listener.exit_code.load(Ordering::Relaxed)));
        });
        Ok(signals)
    }

    /// Says what has been reached.
    pub(crate) fn enter(&self, phase: Phase) {
        self.exit_code.store(phase.exit_code(), Ordering::Relaxed);
    }

    /// Waits until the process is to stop.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Source {
    interrupt: tokio::signal::windows::CtrlC,
    terminate: tokio::signal::windows::CtrlBreak,
}

#[cfg(windows)]
impl Source {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
            terminate: tokio::signal::windows::ctrl_break()?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_how_far_it_was() {
        assert_eq!(Phase::Before.exit_code(), 130);
        assert_eq!(Phase::Underway.exit_code(), 7);
        assert_eq!(Phase::Seeding.exit_code(), 0);
    }
}
