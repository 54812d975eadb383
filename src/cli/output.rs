//! The two streams: results on standard output, everything else on standard error.
//!
//! All writing of this program goes through [`Ui`], so that a progress bar is never torn by a line, and a reader that went away
//! (`modswarm ls … | head`) is no panic.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::MultiProgress;
use modswarm::{
    api::{Failure, FailureKind},
    config::{ProgressMode, Settings},
};
use serde::Serialize;

use super::text::escaped_lines;

/// How progress is shown, after looking at the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Bar,
    Plain,
    Json,
    Nothing,
}

/// The terminal, or what stands in its place; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ui(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    json: bool,
    quiet: bool,
    shown: Shown,
    colors: bool,
    bars: MultiProgress,
    /// The first error of standard output, a reader that went away aside.
    broken: Mutex<Option<io::Error>>,
}

impl Ui {
    pub(crate) fn new(settings: &Settings) -> Self {
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let shown = match settings.progress() {
            _ if settings.quiet() => Shown::Nothing,
            ProgressMode::None => Shown::Nothing,
            ProgressMode::Plain => Shown::Plain,
            ProgressMode::Json => Shown::Json,
            ProgressMode::Auto if settings.json() => Shown::Nothing,
            ProgressMode::Auto if terminal => Shown::Bar,
            ProgressMode::Auto => Shown::Plain,
        };
        Self::with(settings.json(), settings.quiet(), shown, terminal && colors_wanted())
    }

    /// For what goes wrong before there are settings.
    pub(crate) fn early() -> Self {
        Self::with(
            false,
            false,
            Shown::Nothing,
            io::stderr().is_terminal() && colors_wanted(),
        )
    }

    fn with(json: bool, quiet: bool, shown: Shown, colors: bool) -> Self {
        Self(Arc::new(Inner {
            json,
            quiet,
            shown,
            colors,
            bars: MultiProgress::new(),
            broken: Mutex::new(None),
        }))
    }

    /// Whether results are JSON.
    pub(crate) fn json(&self) -> bool {
        self.0.json
    }

    pub(crate) fn quiet(&self) -> bool {
        self.0.quiet
    }

    pub(crate) fn shown(&self) -> Shown {
        self.0.shown
    }

    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.0.bars
    }

    /// Writes a result, one or more lines without the last line feed, for people. Names in it must have been escaped.
    pub(crate) fn result(&self, text: &str) {
        let written = self.0.bars.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.write_all(b"\n")?;
            out.flush()
        });
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let mut broken = self.0.broken.lock().unwrap_or_else(PoisonError::into_inner);
            broken.get_or_insert(error);
        }
    }

    /// Writes a result as one line of JSON.
    pub(crate) fn json_result(&self, value: &impl Serialize) {
        self.result(&serde_json::to_string(value).expect("our own types have string keys and no failing serializer"));
    }

    /// The failure of standard output, if there was one that the user must know (a full disk).
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        match self.0.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => Err(Failure::new(
                FailureKind::Failed,
                format!("the result could not be written to standard output: {error}"),
                "see where it is sent to, and whether there is room",
            )),
        }
    }

    /// Says something that is good to know, unless the user wants quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.0.quiet {
            self.err_line(&escaped_lines(text));
        }
    }

    /// Says that something is not as it should be, unless the user wants quiet.
    pub(crate) fn warning(&self, text: &str) {
        if !self.0.quiet {
            self.err_line(&format!("{} {}", self.paint("warning:", "33;1"), escaped_lines(text)));
        }
    }

    /// Says why nothing came of it, and what to do.
    pub(crate) fn failure(&self, failure: &Failure) {
        let stopped = matches!(failure.kind, FailureKind::Interrupted | FailureKind::Cancelled);
        let label = if stopped {
            self.paint("stopped:", "33;1")
        } else {
            self.paint("error:", "31;1")
        };
        self.err_line(&format!("{label} {}", escaped_lines(&failure.message)));
        if let Some(help) = &failure.help {
            self.err_line(&format!(" {} {}", self.paint("help:", "36;1"), escaped_lines(help)));
        }
    }

    /// Writes a line to standard error as it is.
    pub(crate) fn err_line(&self, line: &str) {
        // Nobody can be told when standard error is gone.
        let _ = self.0.bars.suspend(|| writeln!(io::stderr().lock(), "{line}"));
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.0.colors {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// <https://no-color.org>: set and not empty.
fn colors_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Where the log goes: standard error, around the bars.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(pub(crate) Ui);

impl Write for LogWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.0.bars.suspend(|| io::stderr().lock().write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
