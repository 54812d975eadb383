//! A bounded number of users' files kept open for reading.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::backend::BackendFile;

/// After this time a file is opened by its path again, so that what the user deleted or replaced is noticed and its room is given back.
const FRESH: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Entry {
    file: Arc<dyn BackendFile>,
    opened: Instant,
    used: Instant,
}

/// Open files by their number in the index. The least recently used is closed first.
#[derive(Debug)]
pub(crate) struct FileCache {
    max: usize,
    entries: Mutex<HashMap<i64, Entry>>,
}

impl FileCache {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            entries: Mutex::default(),
        }
    }

    /// The file of this number, opened by `open` if it is not open or has been for long.
    pub(crate) fn open(
        &self,
        number: i64,
        open: impl FnOnce() -> io::Result<Box<dyn BackendFile>>,
    ) -> io::Result<Arc<dyn BackendFile>> {
        let now = Instant::now();
        if let Some(entry) = crate::lock(&self.entries).get_mut(&number)
            && now - entry.opened < FRESH
        {
            entry.used = now;
            return Ok(entry.file.clone());
        }
        let opened = open();
        let mut entries = crate::lock(&self.entries);
        entries.remove(&number);
        entries.retain(|_, entry| now.saturating_duration_since(entry.opened) < FRESH);
        let file: Arc<dyn BackendFile> = Arc::from(opened?);
        while entries.len() >= self.max {
            let oldest = entries.iter().min_by_key(|(_, e)| e.used).map(|(number, _)| *number);
            oldest.and_then(|number| entries.remove(&number));
        }
        let entry = Entry {
            file: file.clone(),
            opened: now,
            used: now,
        };
        entries.insert(number, entry);
        Ok(file)
    }

    /// Closes files that nobody has read for a while: some systems keep a folder that has an open file from being deleted.
    pub(crate) fn close_stale(&self) {
        crate::lock(&self.entries).retain(|_, entry| entry.opened.elapsed() < FRESH);
    }

    /// Closes the file of this number once nobody reads it.
    pub(crate) fn forget(&self, number: i64) {
        crate::lock(&self.entries).remove(&number);
    }
}
