//! `modswarm store rebuild`: the index anew, without a node.

use modswarm::{
    api::{Failure, FailureKind, ShareEvent, Stage},
    node::rebuild_failure,
};
use modswarm_store::{
    Differing, HomeLock, Observer, PackRecord, Progress, Rebuilt, Stage as StoreStage, Store, StoreOptions,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    progress::{Meter, Snapshot},
    session::{Context, Followed, cancelled},
    text::{self, escaped},
};

/// Reports that wait to be shown.
const QUEUE: usize = 16;

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let home = context.settings.places.home.clone();
    if !home.exists() {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("there is no home at `{}`", home.display()),
            "name another with --home DIR",
        ));
    }
    let lock = HomeLock::try_acquire(&home)
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Failure::new(
                FailureKind::Failed,
                format!("{error}{}", cause.unwrap_or_default()),
                "see who may write there, or use another home with --home DIR",
            )
        })?
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Failed,
                "another modswarm process uses this home",
                "end it (Ctrl-C in its terminal), then run this again",
            )
        })?;
    let (sender, mut events) = mpsc::channel(QUEUE);
    let cancel = CancellationToken::new();
    let reports = Reports(sender, cancel.clone());
    let mut work = tokio::task::spawn_blocking(move || {
        let (store, rebuilt) = Store::rebuild(lock, StoreOptions::default(), &reports)?;
        store.close()?;
        Ok::<Rebuilt, modswarm_store::RebuildError>(rebuilt)
    });
    let mut meter = Meter::new(&context.ui);
    let followed = context
        .follow(&mut events, &mut meter, |event, meter| {
            if let Some(snapshot) = Snapshot::of_share(&event) {
                meter.update(snapshot, &event);
            }
            None::<Result<(), Failure>>
        })
        .await;
    if matches!(followed, Followed::Stopped) {
        cancel.cancel();
    }
    let ended = (&mut work).await;
    meter.clear();
    let rebuilt = match ended {
        Ok(Ok(rebuilt)) => rebuilt,
        Ok(Err(modswarm_store::RebuildError::Cancelled)) => return Err(cancelled()),
        Ok(Err(error)) => return Err(rebuild_failure(error, &home)),
        Err(error) => {
            return Err(Failure::new(
                FailureKind::Failed,
                format!("a part of the program failed: {error}"),
                "this is a defect: please report it",
            ));
        }
    };
    if context.ui.json() {
        context.ui.json_result(&Report::of(&rebuilt));
    } else {
        context.ui.result(&shown(&rebuilt));
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    put_aside: &'a [std::path::PathBuf],
    restored: Vec<Pack<'a>>,
    differing: Vec<Differs<'a>>,
    left: Vec<Pack<'a>>,
    unreadable: &'a [std::path::PathBuf],
}

#[derive(Serialize)]
struct Pack<'a> {
    pack: Option<modswarm_protocol::Cid>,
    content: modswarm_protocol::Cid,
    name: &'a str,
    path: &'a std::path::Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Differs<'a> {
    pack: Option<modswarm_protocol::Cid>,
    content: modswarm_protocol::Cid,
    name: &'a str,
    missing: u64,
    changed: u64,
    choice_lost: bool,
}

/// The packs that came back with some of their files missing or changed, with their records.
fn differing(rebuilt: &Rebuilt) -> impl Iterator<Item = (&Differing, &PackRecord)> {
    let records = &rebuilt.restored;
    let with_record = |differs: &'_ Differing| records.iter().find(|record| record.id == differs.id);
    rebuilt
        .differing
        .iter()
        .filter_map(move |differs| Some((differs, with_record(differs)?)))
}

impl<'a> Report<'a> {
    fn of(rebuilt: &'a Rebuilt) -> Self {
        Self {
            put_aside: &rebuilt.put_aside,
            restored: rebuilt
                .restored
                .iter()
                .map(|record| Pack {
                    pack: record.pack,
                    content: record.content,
                    name: &record.name,
                    path: &record.path,
                    reason: None,
                })
                .collect(),
            differing: differing(rebuilt)
                .map(|(differs, record)| Differs {
                    pack: record.pack,
                    content: record.content,
                    name: &record.name,
                    missing: differs.missing,
                    changed: differs.changed,
                    choice_lost: differs.choice_lost,
                })
                .collect(),
            left: rebuilt
                .left
                .iter()
                .map(|left| Pack {
                    pack: left.pack,
                    content: left.content,
                    name: &left.name,
                    path: &left.path,
                    reason: Some(&left.reason),
                })
                .collect(),
            unreadable: &rebuilt.unreadable,
        }
    }
}

fn shown(rebuilt: &Rebuilt) -> String {
    let mut lines = vec![format!(
        "The index is new; {} as before.",
        match rebuilt.restored.len() - rebuilt.differing.len() {
            1 => "1 pack is".to_owned(),
            n => format!("{n} packs are"),
        }
    )];
    for (differs, record) in differing(rebuilt) {
        lines.push(differs_line(differs, record));
    }
    for left in &rebuilt.left {
        let path = escaped(&left.path.to_string_lossy());
        let pack = left.pack.unwrap_or(left.content);
        let mend = if left.copied {
            format!(
                "its copy is kept. To have it back, fetch its list of files with modswarm ls {pack}, then run modswarm gc; to give it up: modswarm rm {pack}"
            )
        } else if left.shared {
            format!("to share it as it is now: modswarm share '{path}'")
        } else {
            let some = match left.chosen {
                true => ", with --only PATTERN or --keep-mine as before: some of its files were left out or kept",
                false => "",
            };
            format!(
                "to go on with it: modswarm get {pack} -o '{}'{some}",
                escaped(&left.path.parent().unwrap_or(&left.path).to_string_lossy())
            )
        };
        lines.push(format!(
            "{} at {path} is not: {}; {mend}",
            escaped(&left.name),
            escaped(&left.reason)
        ));
    }
    for path in &rebuilt.unreadable {
        lines.push(format!(
            "{} makes no sense and was passed over.",
            escaped(&path.to_string_lossy())
        ));
    }
    if let Some(aside) = rebuilt.put_aside.last() {
        lines.push(format!(
            "The old index is {}; delete it when all is well.",
            escaped(&aside.to_string_lossy())
        ));
    }
    if !rebuilt.left.is_empty() {
        lines.push(format!(
            "What is in those folders is checked and not fetched again ({}).",
            text::count(rebuilt.left.len() as u64, "pack")
        ));
    }
    lines.join("\n")
}

/// What to know of a pack that came back with other files than it had.
fn differs_line(differs: &Differing, record: &PackRecord) -> String {
    let pack = record.pack.unwrap_or(record.content);
    let mut found = Vec::new();
    if differs.changed > 0 {
        let lost = if differs.choice_lost {
            " (also those in whose places you kept your own: the list of them is lost)"
        } else {
            ""
        };
        found.push(format!(
            "{} not as the pack has {}{lost}",
            match differs.changed {
                1 => "1 file is".to_owned(),
                files => format!("{files} files are"),
            },
            if differs.changed == 1 { "it" } else { "them" }
        ));
    }
    if differs.missing > 0 {
        let lost = if differs.choice_lost {
            " (also those that you left out)"
        } else {
            ""
        };
        found.push(format!("{} missing{lost}", text::count(differs.missing, "file")));
    }
    if found.is_empty() {
        found.push("the list of files that you kept or left out is lost".to_owned());
    }
    format!(
        "{} is back with what is there of it: {}. Nothing was changed; `modswarm verify {pack}` names them.",
        escaped(&record.name),
        found.join(", ")
    )
}

struct Reports(mpsc::Sender<ShareEvent>, CancellationToken);

impl Observer for Reports {
    fn progress(&self, progress: Progress) {
        let stage = match progress.stage {
            StoreStage::Scanning => Stage::Scanning,
            StoreStage::Indexing => Stage::Indexing,
            _ => Stage::Hashing,
        };
        let _ = self.0.try_send(ShareEvent::Progress {
            stage,
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            files_done: progress.files_done,
            files_total: progress.files_total,
        });
    }

    fn cancelled(&self) -> bool {
        self.1.is_cancelled()
    }
}
