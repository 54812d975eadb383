//! Watching the files of the home's packs: what was edited, deleted, renamed or moved away is noticed at once where the system tells, and by looking
//! now and then where it does not (limits on watches, network drives, folders that are unmounted and come back).
//!
//! Nothing depends on it for being right: whatever is read is hashed before it is sent. It spares peers asking for what is gone, and brings back what is there again.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use modswarm_store::{PackId, PackRecord, PackState, Store, VerifyError};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::Notify, time::Instant};

use super::{Inner, actor::Command, packs};

/// How often it is looked which packs there are.
const LIST_INTERVAL: Duration = Duration::from_secs(5);
/// After this long without a change, what changed is looked at; programs write files in many steps.
const QUIET: Duration = Duration::from_millis(500);
/// Under changes that do not end, it is looked at all the same after this long.
const QUIET_MAX: Duration = Duration::from_secs(5);
/// Between two looks at a pack that cannot be watched.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks at one that is: systems drop events when there are too many.
const WATCHED_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// What the watcher's thread has seen: at most one entry for each pack's path.
#[derive(Debug, Default)]
struct Seen {
    roots: HashSet<PathBuf>,
    dirty: HashSet<PathBuf>,
    since: Option<Instant>,
    last: Option<Instant>,
}

#[derive(Debug, Default)]
struct Board {
    seen: Mutex<Seen>,
    changed: Notify,
}

impl Board {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: &Event) {
        let reading = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        if reading {
            return;
        }
        let mut seen = self.seen();
        let dirty: Vec<PathBuf> = if event.need_rescan() || event.paths.is_empty() {
            seen.roots.iter().cloned().collect()
        } else {
            let paths = event.paths.iter();
            paths.filter_map(|path| root_of(&seen.roots, path)).collect()
        };
        if dirty.is_empty() {
            return;
        }
        seen.dirty.extend(dirty);
        let now = Instant::now();
        seen.since.get_or_insert(now);
        seen.last = Some(now);
        drop(seen);
        self.changed.notify_one();
    }

    /// When what changed is to be looked at.
    fn due(&self) -> Option<Instant> {
        let seen = self.seen();
        Some((seen.last? + QUIET).min(seen.since? + QUIET_MAX))
    }

    fn take(&self) -> HashSet<PathBuf> {
        let mut seen = self.seen();
        (seen.since, seen.last) = (None, None);
        std::mem::take(&mut seen.dirty)
    }
}

fn root_of(roots: &HashSet<PathBuf>, path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|above| roots.get(above).cloned())
}

/// A pack's path, and when it is looked at without being told.
struct Place {
    watched: bool,
    next: Instant,
}

/// Runs as long as the node lives.
pub(super) async fn run(node: Weak<Inner>) {
    let board = Arc::new(Board::default());
    let told = Arc::clone(&board);
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
        Ok(event) => told.note(&event),
        Err(error) => tracing::debug!(%error, "a watch failed"),
    });
    let mut watcher = watcher
        .inspect_err(|error| tracing::info!(%error, "files are not watched; they are looked at now and then"))
        .ok();
    let mut places: HashMap<PathBuf, Place> = HashMap::new();
    let mut list = tokio::time::interval(LIST_INTERVAL);
    list.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = board.due();
        let quiet = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let mut looked_at: HashSet<PathBuf> = tokio::select! {
            () = board.changed.notified() => continue,
            () = quiet => board.take(),
            _ = list.tick() => HashSet::new(),
        };
        let Some(node) = node.upgrade() else { return };
        let Ok(records) = packs::served(&node).await else {
            return;
        };
        // It goes through all their folders.
        let told = Arc::clone(&board);
        let followed = tokio::task::spawn_blocking(move || {
            follow(&mut watcher, &told, &mut places, &records);
            (watcher, places, records)
        });
        let records;
        (watcher, places, records) = match followed.await {
            Ok(followed) => followed,
            Err(error) => {
                tracing::error!(%error, "files are not watched any more");
                return;
            }
        };
        let now = Instant::now();
        looked_at.extend(
            places
                .iter()
                .filter(|(_, place)| place.next <= now)
                .map(|(path, _)| path.clone()),
        );
        for record in records.into_iter().filter(|record| looked_at.contains(&record.path)) {
            if let Some(place) = places.get_mut(&record.path) {
                place.next = now
                    + if place.watched {
                        WATCHED_INTERVAL
                    } else {
                        UNWATCHED_INTERVAL
                    };
            }
            look(&node, record).await;
        }
    }
}

/// Watches what is new, and nothing that is gone.
fn follow(
    watcher: &mut Option<RecommendedWatcher>,
    board: &Board,
    places: &mut HashMap<PathBuf, Place>,
    records: &[PackRecord],
) {
    let paths: HashSet<&PathBuf> = records.iter().map(|record| &record.path).collect();
    places.retain(|path, _| {
        let stays = paths.contains(path);
        if !stays && let Some(watcher) = watcher {
            let _ = watcher.unwatch(path);
        }
        stays
    });
    for path in paths {
        // A folder that was away is watched again when it is back.
        if places
            .get(path)
            .is_some_and(|place| place.watched || place.next > Instant::now())
        {
            continue;
        }
        let watched = match watcher {
            Some(watcher) => watcher
                .watch(path, RecursiveMode::Recursive)
                .inspect_err(|error| tracing::debug!(?path, %error, "not watched; it is looked at now and then"))
                .is_ok(),
            None => false,
        };
        // What changed before it was watched is seen by looking once.
        let now = Instant::now();
        let away = !watched && places.contains_key(path);
        let next = if away { now + UNWATCHED_INTERVAL } else { now };
        let place = Place { watched, next };
        places.insert(path.clone(), place);
    }
    board.seen().roots = places.keys().cloned().collect();
}

/// Looks at the files of a pack, and serves again what is back. What is lost is told by those who watch for that.
async fn look(node: &Arc<Inner>, record: PackRecord) {
    let (store, id) = (node.store.clone(), record.id);
    let looked = tokio::task::spawn_blocking(move || look_at(&store, id)).await;
    match looked {
        Ok(Ok(Some(after))) if after.state != PackState::Downloading && after.pieces_here > record.pieces_here => {
            let _ = node.send(Command::Serve(packs::register(&after))).await;
        }
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(pack = record.name, %error, "its files could not be looked at"),
    }
}

fn look_at(store: &Store, id: PackId) -> Result<Option<PackRecord>, VerifyError> {
    store.look_again(id)?;
    Ok(store.pack(id)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_the_pack_that_holds_the_file() {
        let roots: HashSet<PathBuf> = ["/mods/A", "/mods/B/x.pak"].map(PathBuf::from).into();
        let root = |path: &str| root_of(&roots, Path::new(path));
        assert_eq!(root("/mods/A/deep/er.pak"), Some("/mods/A".into()));
        assert_eq!(root("/mods/A"), Some("/mods/A".into()));
        assert_eq!(root("/mods/B/x.pak"), Some("/mods/B/x.pak".into()));
        assert_eq!(root("/mods/B/y.pak"), None);
        assert_eq!(root("/mods/AB"), None);
    }

    #[test]
    fn reading_is_no_change_and_an_overflow_is_one_of_all() {
        let board = Board::default();
        board.seen().roots = ["/mods/A", "/mods/B"].map(PathBuf::from).into();
        let event = |kind| Event::new(kind).add_path("/mods/A/x".into());
        board.note(&event(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(board.due().is_none());
        board.note(&event(EventKind::Modify(notify::event::ModifyKind::Any)));
        assert_eq!(board.take(), ["/mods/A"].map(PathBuf::from).into());
        board.note(&Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan));
        assert_eq!(board.take().len(), 2);
        assert!(board.due().is_none());
    }
}
