//! The index: one SQLite file in WAL mode, one thread that writes, pooled connections that read.
//!
//! `schema` has the tables, `writer` the thread, `rows` the statements that several parts need.

pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod writer;

use std::{
    io::Read as _,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

pub(crate) use self::writer::{Pending, Writer};
use crate::{
    backend::Backend,
    error::{IndexError, OpenError},
};

/// Idle reading connections kept.
const READERS_MAX: usize = 8;
/// How long another program may hold the index before it is called busy.
const BUSY: Duration = Duration::from_secs(10);

/// The index of one home.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    pub(crate) writer: Writer,
}

impl Index {
    pub(crate) fn open(path: &Path, backend: Arc<dyn Backend>) -> Result<Self, OpenError> {
        let conn = open_writing(path)?;
        Ok(Self {
            path: path.to_owned(),
            readers: Mutex::default(),
            writer: Writer::start(conn, backend).map_err(OpenError::Thread)?,
        })
    }

    /// A connection that sees the last commit.
    pub(crate) fn reader(&self) -> Result<Reader<'_>, IndexError> {
        let pooled = crate::lock(&self.readers).pop();
        let conn = match pooled {
            Some(conn) => conn,
            None => open_reading(&self.path)?,
        };
        Ok(Reader {
            index: self,
            conn: Some(conn),
        })
    }
}

fn open_writing(path: &Path) -> Result<Connection, IndexError> {
    let mut conn = Connection::open(path)?;
    set_up(&conn)?;
    conn.set_prepared_statement_cache_capacity(64);
    // NORMAL would let a power cut take back commits; the writer batches, so that FULL costs a sync a second.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -4000; PRAGMA journal_size_limit = 67108864;",
    )?;
    schema::migrate(&mut conn)?;
    Ok(conn)
}

/// The version of the index at `path`, as the header of SQLite's file format has it; `None` if it is no such file. Nothing is written, as SQLite itself may.
pub(crate) fn version(path: &Path) -> Option<i64> {
    let mut header = [0; 64];
    std::fs::File::open(path).ok()?.read_exact(&mut header).ok()?;
    let version: [u8; 4] = *header.last_chunk()?;
    header
        .starts_with(b"SQLite format 3\0")
        .then(|| i64::from(i32::from_be_bytes(version)))
}

fn set_up(conn: &Connection) -> Result<(), IndexError> {
    conn.busy_timeout(BUSY)?;
    // Plans are not to follow the values of parameters: statements that may do so are compiled anew whenever they come out of the cache, which takes several
    // times as long as finding a leaf.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn open_reading(path: &Path) -> Result<Connection, IndexError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    set_up(&conn)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2000;")?;
    Ok(conn)
}

/// A pooled connection; back in the pool when dropped.
pub(crate) struct Reader<'a> {
    index: &'a Index,
    conn: Option<Connection>,
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn.as_ref().expect("it is there until dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = crate::lock(&self.index.readers);
        if pool.len() < READERS_MAX {
            pool.extend(self.conn.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{StatementStatus, params};

    use super::*;

    #[test]
    fn cached_statements_stay_compiled_whatever_is_bound_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        for conn in [open_writing(&path).unwrap(), open_reading(&path).unwrap()] {
            let sql = "SELECT file FROM leaves WHERE prefix = ?1 AND len = ?2 LIMIT ?3";
            for len in 0..5 {
                let mut statement = conn.prepare_cached(sql).unwrap();
                statement.query(params![7, len, 64]).unwrap().next().unwrap();
            }
            let statement = conn.prepare_cached(sql).unwrap();
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
