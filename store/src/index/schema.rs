//! The tables, and the ladder from one version of them to the next.
//!
//! `leaves` is the table that grows: a row is a digest's first eight bytes, a file, an offset and a length, 25 to 40 bytes with SQLite's own. A prefix only finds
//! a place; whoever reads it hashes the whole leaf. Rows of a file that is no more are dead (file numbers are never used again) and are dropped when
//! they are met.
//!
//! A file's place (`root` + `path`) is apart from its path in a pack (`pack_files`), so that a file that was moved needs one row changed, and a
//! folder that was moved one row of `roots`. `files.stage` says that a file is still in the staging folder of that pack, under its own number.

use rusqlite::Connection;

use crate::error::IndexError;

/// One step each; the position after the last is the version that this program writes. Steps are never changed once released.
const LADDER: &[&str] = &["
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE nodes (cid BLOB PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
    CREATE TABLE packs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pack BLOB, content BLOB NOT NULL,
        name TEXT NOT NULL, network BLOB NOT NULL,
        root INTEGER NOT NULL REFERENCES roots(id),
        place BLOB NOT NULL,
        origin INTEGER NOT NULL, state INTEGER NOT NULL, created INTEGER NOT NULL,
        files INTEGER NOT NULL, bytes INTEGER NOT NULL,
        pieces INTEGER NOT NULL, pieces_here INTEGER NOT NULL,
        piece_bytes INTEGER NOT NULL, piece_bytes_here INTEGER NOT NULL,
        have BLOB, selection BLOB, stage BLOB, overwrite INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX packs_by_content ON packs(content);
    CREATE INDEX packs_by_pack ON packs(pack);
    CREATE INDEX packs_by_place ON packs(place);
    CREATE TABLE files (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        root INTEGER NOT NULL REFERENCES roots(id), path BLOB NOT NULL,
        stage INTEGER, state INTEGER NOT NULL,
        dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        cid BLOB NOT NULL, profile TEXT
    );
    CREATE INDEX files_by_path ON files(root, path);
    CREATE INDEX files_by_stage ON files(stage) WHERE stage IS NOT NULL;
    CREATE INDEX files_by_identity ON files(ino, dev);
    CREATE TABLE pack_files (
        pack INTEGER NOT NULL, number INTEGER NOT NULL, file INTEGER NOT NULL,
        PRIMARY KEY (pack, number)
    ) WITHOUT ROWID;
    CREATE INDEX pack_files_by_file ON pack_files(file);
    CREATE TABLE leaves (
        prefix INTEGER NOT NULL, file INTEGER NOT NULL, offset INTEGER NOT NULL, len INTEGER NOT NULL,
        PRIMARY KEY (prefix, file, offset)
    ) WITHOUT ROWID;
",
    // `nodes.seen`: hours since 1970 when it was put last; `packs.used`: seconds since 1970 when it was fetched or served last. `stages` has every
    // staging folder from before it is made until after it is gone; `moves` a pack's move from its first step to its last,
    // `former` files of a former version that are to be deleted.
    "
    ALTER TABLE nodes ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE packs ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE packs ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE stages (path BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE moves (pack INTEGER PRIMARY KEY, source BLOB NOT NULL, target BLOB NOT NULL, copied INTEGER NOT NULL);
    CREATE TABLE former (file INTEGER PRIMARY KEY);
",
    // `kept`: files of a pack whose places have files that the user wanted to keep. `renames`: the journal of the end of an update; `source` is where a
    // file of the former version lies, none for one that is staged; `replaced` the row of the file that it may take the place of.
    "
    CREATE TABLE kept (pack INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (pack, number)) WITHOUT ROWID;
    CREATE TABLE renames (
        file INTEGER PRIMARY KEY, pack INTEGER NOT NULL, number INTEGER NOT NULL,
        source BLOB, target BLOB NOT NULL, replaced INTEGER
    );
    CREATE INDEX renames_by_pack ON renames(pack);
",
    // `copied`: the blocks of a pack are in segments. `segments`: files of the store's own, each also a row of `files`; `len` is what is committed, `dying` says
    // that its file is to be deleted.
    "
    ALTER TABLE packs ADD COLUMN copied INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE segments (
        file INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, network BLOB NOT NULL, len INTEGER NOT NULL, dying INTEGER NOT NULL DEFAULT 0
    );
",
    // `peers`: what the engine remembers of peers; times are seconds since 1970, `rtt` is microseconds, the `ban_` columns are all there or none.
    "
    CREATE TABLE peers (
        id BLOB PRIMARY KEY, addr TEXT NOT NULL, seen INTEGER NOT NULL,
        bytes_down INTEGER NOT NULL, bytes_up INTEGER NOT NULL, merit REAL NOT NULL, merit_at INTEGER NOT NULL,
        rate_down INTEGER NOT NULL, rate_up INTEGER NOT NULL, rtt INTEGER,
        ban_fault INTEGER, ban_since INTEGER, ban_until INTEGER, strikes INTEGER NOT NULL, offences INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE peer_faults (
        peer BLOB NOT NULL, fault INTEGER NOT NULL, count INTEGER NOT NULL, last INTEGER NOT NULL, recent REAL NOT NULL,
        PRIMARY KEY (peer, fault)
    ) WITHOUT ROWID;
"];

/// The version that this program writes.
pub(crate) const VERSION: i64 = LADDER.len() as i64;

/// Brings the index to [`VERSION`], each step in a transaction of its own.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), IndexError> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !(0..=VERSION).contains(&found) {
        return Err(IndexError::Newer { found, known: VERSION });
    }
    for (at, step) in LADDER.iter().enumerate().skip(found as usize) {
        let tx = conn.transaction()?;
        tx.execute_batch(step)?;
        tx.pragma_update(None, "user_version", at as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_index_climbs_the_whole_ladder_and_stays() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        migrate(&mut conn).unwrap();
        let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, VERSION);
    }

    #[test]
    fn an_index_of_a_newer_program_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(migrate(&mut conn), Err(IndexError::Newer { .. })));
    }
}
