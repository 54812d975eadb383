//! Progress on standard error: a bar, plain lines, JSON lines, or nothing.
//!
//! [`Meter`] is told what is known ([`Meter::update`]) and that time passes ([`Meter::tick`]); what it says about it is made by
//! pure functions below, from a [`Snapshot`] and how long nothing has moved.

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use modswarm::api::{GetEvent, ShareEvent, Stage, VerifyEvent};
use serde::Serialize;

use super::{
    output::{Shown, Ui},
    text,
};

/// How often the screen is drawn anew and JSON is written at most: a few times a second.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How often plain mode writes a line.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// How long nobody is found before the user is told that the search goes on.
pub(crate) const STILL_LOOKING_AFTER: Duration = Duration::from_secs(8);

/// How long nothing arrives before the user is told.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Below this many columns there is no room for a bar beside the figures.
const WIDE: u16 = 90;

/// What is known of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    stage: Stage,
    bytes_done: u64,
    bytes_total: u64,
    files: Option<(u64, u64)>,
    rate: Option<u64>,
    eta: Option<u64>,
    peers: Option<u64>,
}

impl Snapshot {
    /// Of a share's progress; none for other events.
    pub(crate) fn of_share(event: &ShareEvent) -> Option<Self> {
        match *event {
            ShareEvent::Progress {
                stage,
                bytes_done,
                bytes_total,
                files_done,
                files_total,
            } => Some(Self {
                stage,
                bytes_done,
                bytes_total,
                files: Some((files_done, files_total)),
                rate: None,
                eta: None,
                peers: None,
            }),
            _ => None,
        }
    }

    /// Of a verification's progress; none for other events.
    pub(crate) fn of_verify(event: &VerifyEvent) -> Option<Self> {
        match *event {
            VerifyEvent::Progress {
                repairing,
                bytes_done,
                bytes_total,
                files_done,
                files_total,
                ..
            } => Some(Self {
                stage: if repairing {
                    Stage::Downloading
                } else {
                    Stage::Verifying
                },
                bytes_done,
                bytes_total,
                files: (!repairing).then_some((files_done, files_total)),
                rate: None,
                eta: None,
                peers: None,
            }),
            _ => None,
        }
    }

    /// Whether it waits for a first peer.
    fn searches(&self) -> bool {
        matches!(self.stage, Stage::LookingForPeers | Stage::Connecting)
    }

    /// Of a get's progress; none for other events.
    pub(crate) fn of_get(event: &GetEvent) -> Option<Self> {
        match *event {
            GetEvent::Progress {
                stage,
                bytes_done,
                bytes_total,
                rate,
                eta,
                peers,
            } => Some(Self {
                stage,
                bytes_done,
                bytes_total,
                files: None,
                rate: Some(rate),
                eta,
                peers: Some(peers),
            }),
            _ => None,
        }
    }
}

/// Shows the progress of one job.
#[derive(Debug)]
pub(crate) struct Meter {
    ui: Ui,
    bar: Option<ProgressBar>,
    has_bytes: bool,
    now: Option<Snapshot>,
    stage_since: Instant,
    moved_at: Instant,
    /// When a plain or JSON line was written, and what it said is happening.
    written: Option<(Instant, &'static str)>,
}

impl Meter {
    pub(crate) fn new(ui: &Ui) -> Self {
        Self {
            ui: ui.clone(),
            bar: None,
            has_bytes: false,
            now: None,
            stage_since: Instant::now(),
            moved_at: Instant::now(),
            written: None,
        }
    }

    /// The last thing known, as `52 % (1.2 GB of 2.3 GB)`; none before there is something.
    pub(crate) fn kept(&self) -> Option<String> {
        let now = self.now.filter(|now| now.bytes_total > 0)?;
        Some(format!(
            "{} % ({} of {})",
            text::percent(now.bytes_done, now.bytes_total),
            text::bytes(now.bytes_done),
            text::bytes(now.bytes_total)
        ))
    }

    /// Takes what is known now, and shows it as soon as it is due. `event` is what JSON mode writes.
    pub(crate) fn update(&mut self, snapshot: Snapshot, event: &impl Serialize) {
        let clock = Instant::now();
        // A node goes to and fro between looking and dialling: to the user that is one search.
        if self
            .now
            .is_none_or(|old| old.stage != snapshot.stage && !(old.searches() && snapshot.searches()))
        {
            self.stage_since = clock;
            self.moved_at = clock;
        }
        if self.now.is_none_or(|old| old.bytes_done != snapshot.bytes_done) {
            self.moved_at = clock;
        }
        self.now = Some(snapshot);
        if self.ui.shown() == Shown::Json
            && self.is_due(clock, stage_text(snapshot.stage), TICK)
            && let Ok(line) = serde_json::to_string(event)
        {
            self.ui.err_line(&line);
        }
        self.tick();
    }

    /// Shows what time alone changes.
    pub(crate) fn tick(&mut self) {
        let Some(now) = self.now else { return };
        let clock = Instant::now();
        let situation = situation(&now, clock - self.stage_since, clock - self.moved_at);
        match self.ui.shown() {
            Shown::Bar => self.draw(&now, situation),
            Shown::Plain if self.is_due(clock, situation.what, PLAIN_EVERY) => {
                self.ui
                    .err_line(&join(&[situation.what.to_owned(), situation.remark, amounts(&now)]));
            }
            Shown::Plain | Shown::Json | Shown::Nothing => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            self.ui.bars().remove(&bar);
        }
    }

    /// Shows a line that replaces the bar, on a terminal only.
    pub(crate) fn spin(&mut self, message: String) {
        if self.ui.shown() == Shown::Bar {
            self.bar(false).set_message(message);
        }
    }

    /// Whether a line is due: what was not said yet is said soon, the same again after `every`.
    fn is_due(&mut self, clock: Instant, what: &'static str, every: Duration) -> bool {
        let due = match self.written {
            Some((at, said)) if said == what => clock - at >= every,
            Some((at, _)) => clock - at >= every.min(Duration::from_secs(1)),
            None => true,
        };
        if due {
            self.written = Some((clock, what));
        }
        due
    }

    fn draw(&mut self, now: &Snapshot, situation: Situation) {
        let has_bytes = now.bytes_total > 0;
        let bar = self.bar(has_bytes);
        if has_bytes {
            bar.set_length(now.bytes_total);
            bar.set_position(now.bytes_done.min(now.bytes_total));
            bar.set_prefix(situation.what);
            bar.set_message(join(&[situation.remark, amounts(now)]));
        } else {
            bar.set_message(join(&[situation.what.to_owned(), situation.remark, amounts(now)]));
        }
    }

    /// The bar, made anew when it changes between a spinner and a bar with a length.
    fn bar(&mut self, has_bytes: bool) -> &ProgressBar {
        if self.has_bytes != has_bytes {
            self.clear();
            self.has_bytes = has_bytes;
        }
        self.bar.get_or_insert_with(|| {
            let narrow = Term::stderr().size_checked().is_some_and(|(_, columns)| columns < WIDE);
            let template = match (has_bytes, narrow) {
                (false, _) => "{spinner} {wide_msg}",
                (true, true) => "{spinner} {prefix}, {wide_msg}",
                (true, false) => "{spinner} {prefix} [{bar:24}] {wide_msg}",
            };
            let style = ProgressStyle::with_template(template)
                .expect("the templates are constants")
                .progress_chars("=> ");
            let bar = if has_bytes {
                ProgressBar::new(1)
            } else {
                ProgressBar::new_spinner()
            };
            let bar = self.ui.bars().add(bar.with_style(style));
            bar.enable_steady_tick(TICK);
            bar
        })
    }
}

/// The parts that say something, with commas between them.
fn join(parts: &[String]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
}

fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Scanning => "looking at the files",
        Stage::Hashing => "hashing",
        Stage::Indexing => "writing the index",
        Stage::Copying => "copying",
        Stage::LookingForPeers => "looking for peers",
        Stage::Connecting => "connecting",
        Stage::FetchingSkeleton => "fetching the list of files",
        Stage::Checking => "checking what is here already",
        Stage::Verifying => "verifying",
        Stage::Downloading => "downloading",
        Stage::Waiting => "waiting for peers",
        Stage::Queued => "waiting until fewer others are being downloaded",
        Stage::Paused => "paused",
        Stage::Finishing => "moving files into place",
    }
}

/// What is happening; and when nothing moves, what is waited for and how long already.
struct Situation {
    what: &'static str,
    remark: String,
}

fn situation(now: &Snapshot, in_stage: Duration, unmoved: Duration) -> Situation {
    let (what, remark) = match now.stage {
        _ if now.searches() && in_stage >= STILL_LOOKING_AFTER => (
            "nobody has it yet",
            format!("still looking ({})", text::duration(in_stage)),
        ),
        Stage::Downloading if unmoved >= STALLED_AFTER => (
            stage_text(now.stage),
            format!("nothing has arrived for {}", text::duration(unmoved)),
        ),
        Stage::Waiting if in_stage >= STALLED_AFTER => (
            stage_text(now.stage),
            format!("connected, but nobody sends yet ({})", text::duration(in_stage)),
        ),
        Stage::Paused => (stage_text(now.stage), "`modswarm resume` goes on".to_owned()),
        Stage::Connecting | Stage::FetchingSkeleton | Stage::Checking if unmoved >= STALLED_AFTER => {
            (stage_text(now.stage), format!("for {}", text::duration(in_stage)))
        }
        stage => (stage_text(stage), String::new()),
    };
    Situation { what, remark }
}

/// How much: percent, bytes, files, rate, time left, peers.
fn amounts(now: &Snapshot) -> String {
    let mut parts = Vec::new();
    if now.bytes_total > 0 {
        parts.push(format!("{} %", text::percent(now.bytes_done, now.bytes_total)));
        parts.push(format!(
            "{} of {}",
            text::bytes(now.bytes_done),
            text::bytes(now.bytes_total)
        ));
    }
    match now.files {
        Some((done, total)) if total > 0 => parts.push(format!("{done} of {}", text::count(total, "file"))),
        _ => {}
    }
    if let (Some(rate @ 1..), Stage::Downloading) = (now.rate, now.stage) {
        parts.push(text::rate(rate));
        if let Some(eta) = now.eta {
            parts.push(format!("{} left", text::duration(Duration::from_secs(eta))));
        }
    }
    match now.peers {
        Some(peers) if peers > 0 || now.bytes_total > 0 => parts.push(text::count(peers, "peer")),
        _ => {}
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(stage: Stage) -> Snapshot {
        Snapshot {
            stage,
            bytes_done: 0,
            bytes_total: 0,
            files: None,
            rate: Some(0),
            eta: None,
            peers: Some(0),
        }
    }

    fn said(now: &Snapshot, in_stage: u64, unmoved: u64) -> String {
        let situation = situation(now, Duration::from_secs(in_stage), Duration::from_secs(unmoved));
        join(&[situation.what.to_owned(), situation.remark])
    }

    #[test]
    fn a_search_without_result_says_so_within_ten_seconds() {
        let now = get(Stage::LookingForPeers);
        assert_eq!(
            said(&get(Stage::Connecting), 9, 1),
            "nobody has it yet, still looking (9 s)"
        );
        assert_eq!(said(&now, 1, 1), "looking for peers");
        assert!(STILL_LOOKING_AFTER + TICK < Duration::from_secs(10));
        assert_eq!(said(&now, 75, 75), "nobody has it yet, still looking (1 min 15 s)");
    }

    #[test]
    fn a_stall_says_for_how_long() {
        let now = get(Stage::Downloading);
        assert_eq!(said(&now, 60, 1), "downloading");
        assert_eq!(said(&now, 60, 7), "downloading, nothing has arrived for 7 s");
        assert_eq!(said(&get(Stage::Connecting), 6, 6), "connecting, for 6 s");
    }

    #[test]
    fn amounts_say_what_is_known() {
        let now = Snapshot {
            bytes_done: 1_200_000_000,
            bytes_total: 2_300_000_000,
            rate: Some(45_100_000),
            eta: Some(24),
            peers: Some(1),
            ..get(Stage::Downloading)
        };
        assert_eq!(amounts(&now), "52 %, 1.2 GB of 2.3 GB, 45.1 MB/s, 24 s left, 1 peer");
        assert_eq!(amounts(&get(Stage::LookingForPeers)), "");
    }
}
