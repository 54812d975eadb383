//! Doors for fuzzing into what the index and the home's plain files hold; in builds with the feature `fuzzing` only.
//!
//! A home may be on a failing disk, or be edited by hand: whatever its rows say, reading them gives values within their bounds or an error that says that
//! the index is damaged.

use std::{cell::RefCell, io, path::PathBuf};

use modswarm_protocol::{
    Cid,
    format::{Limits, PieceSet},
};
use rusqlite::{Connection, params_from_iter, types::Value};

use crate::{
    backend::{BackendFile, Identity},
    choice::Choice,
    download::Conflicts,
    error::IndexError,
    home::{Place, PlaceFile},
    index::{
        rows::{self, FileRow, FileState, LeafRow, NewFile, PackRow},
        schema,
    },
    packs::{Origin, PackId, PackRecord, PackState},
    segments::record::{FILE_HEADER, Kind, Records, file_header, header, read_file_header},
};

/// The tables, in the order of their numbers in [`records`]' input.
pub const TABLES: [&str; 15] = [
    "settings",
    "nodes",
    "roots",
    "packs",
    "files",
    "pack_files",
    "leaves",
    "stages",
    "moves",
    "former",
    "kept",
    "renames",
    "segments",
    "peers",
    "peer_faults",
];
/// Rows of one input that are looked at.
const ROWS_MAX: usize = 64;

thread_local! {
    static INDEX: RefCell<Connection> = RefCell::new(empty());
}

fn empty() -> Connection {
    let mut conn = Connection::open_in_memory().expect("memory");
    conn.set_prepared_statement_cache_capacity(64);
    // As the store opens it.
    conn.pragma_update(None, "foreign_keys", false).expect("a setting");
    schema::migrate(&mut conn).expect("a new index");
    for table in tables(&conn) {
        assert!(
            TABLES.contains(&table.as_str()),
            "{table} is not among the tables that are fuzzed"
        );
    }
    conn
}

fn tables(conn: &Connection) -> Vec<String> {
    let mut statement = conn
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .expect("SQLite tells of tables");
    let names = statement.query_map([], |row| row.get(0)).expect("rows");
    names.collect::<rusqlite::Result<_>>().expect("names are text")
}

/// Takes a value off `input`: a byte of its type, and what that needs.
pub fn take_value(input: &mut &[u8]) -> Value {
    let mut take = |len: usize| {
        let (taken, rest) = input.split_at(len.min(input.len()));
        *input = rest;
        taken
    };
    let kind = take(1).first().copied().unwrap_or(0);
    let mut number = |len: usize| {
        let mut bytes = [0; 8];
        let taken = take(len);
        bytes[..taken.len()].copy_from_slice(taken);
        i64::from_le_bytes(bytes)
    };
    match kind {
        0 => Value::Null,
        1 => Value::Integer(number(1)),
        2 => Value::Integer(number(8)),
        3 => Value::Real(f64::from_bits(number(8) as u64)),
        4 => {
            let len = number(1) as usize;
            Value::Blob(take(len).to_vec())
        }
        5 => {
            let len = number(2) as usize;
            Value::Blob(take(len).to_vec())
        }
        6 => {
            let len = number(1) as usize;
            Value::Text(String::from_utf8_lossy(take(len)).into_owned())
        }
        other => Value::Integer(i64::from(other) - 200),
    }
}

/// Appends what [`take_value`] reads. Blobs and texts of corpora are short.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Integer(n) if (0..256).contains(n) => out.extend_from_slice(&[1, *n as u8]),
        Value::Integer(n) => {
            out.push(2);
            out.extend_from_slice(&n.to_le_bytes());
        }
        Value::Real(x) => {
            out.push(3);
            out.extend_from_slice(&x.to_bits().to_le_bytes());
        }
        Value::Blob(bytes) if bytes.len() < 256 => {
            out.extend_from_slice(&[4, bytes.len() as u8]);
            out.extend_from_slice(bytes);
        }
        Value::Blob(bytes) => {
            out.push(5);
            out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Value::Text(text) => {
            out.extend_from_slice(&[6, text.len() as u8]);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn columns(conn: &Connection, table: &str) -> usize {
    let mut statement = conn
        .prepare_cached("SELECT count(*) FROM pragma_table_info(?1)")
        .expect("SQLite tells of tables");
    statement
        .query_row([table], |row| row.get::<_, u32>(0))
        .expect("a number") as usize
}

/// Puts rows into an index, each the number of a table and a value for every column, and reads them as the store does.
///
/// # Panics
/// Where a property does not hold: see the module.
pub fn records(data: &[u8]) {
    INDEX.with_borrow_mut(|conn| {
        // Rolled back when dropped.
        let tx = conn.transaction().expect("nothing else is open");
        let mut input = data;
        for _ in 0..ROWS_MAX {
            let Some((number, rest)) = input.split_first() else {
                break;
            };
            input = rest;
            let table = TABLES[usize::from(*number) % TABLES.len()];
            let values: Vec<Value> = (0..columns(&tx, table)).map(|_| take_value(&mut input)).collect();
            let marks = vec!["?"; values.len()].join(", ");
            let mut insert = tx
                .prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES ({marks})"))
                .expect("as many values as columns");
            // What the schema refuses cannot be there.
            let _ = insert.execute(params_from_iter(values));
        }
        read_all(&tx);
    });
}

/// Rows give values or say that the index is damaged; nothing else is wrong with it.
#[track_caller]
fn sound<T>(read: Result<T, IndexError>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(IndexError::Corrupt) => None,
        Err(e) => panic!("a row was answered by {e:?}"),
    }
}

/// The integer keys of a table.
fn ids(conn: &Connection, table: &str) -> Vec<i64> {
    let mut statement = conn
        .prepare_cached(&format!("SELECT id FROM {table}"))
        .expect("a table");
    let ids = statement.query_map([], |row| row.get(0)).expect("rows");
    ids.collect::<rusqlite::Result<_>>().expect("keys are integers")
}

fn read_all(conn: &Connection) {
    let packs = ids(conn, "packs");
    let all = sound(rows::packs(conn));
    assert!(all.is_none_or(|all| all.len() == packs.len()));
    for id in packs {
        sound(rows::files_of_pack(conn, PackId(id)));
        let Some(Some(row)) = sound(rows::pack(conn, PackId(id))) else {
            continue;
        };
        check_pack(conn, row);
    }
    for id in ids(conn, "roots") {
        sound(rows::files_of_root(conn, id));
        sound(rows::root_path(conn, id));
    }
    for id in ids(conn, "files") {
        sound(rows::packs_of_file(conn, id));
        if let Some(Some((row, ..))) = sound(rows::file_and_place(conn, id)) {
            check_file(conn, &row);
        }
    }
    let mut leaves = conn.prepare_cached("SELECT prefix FROM leaves").expect("a table");
    let prefixes = leaves.query_map([], |row| row.get::<_, Value>(0)).expect("rows");
    for prefix in prefixes.flatten() {
        if let Value::Integer(prefix) = prefix {
            sound(rows::files_with_leaf(conn, prefix, 1000));
            sound(rows::is_anywhere(conn, prefix, 1000));
            let mut from = rows::LeavesFrom::new(conn).expect("a statement");
            sound(from.query(prefix).and_then(|mut rows| rows.next()));
        }
    }
    sound(rows::node(
        conn,
        &Cid::of(modswarm_protocol::Codec::Raw, Default::default(), b"x"),
    ));
    sound(rows::setting(conn, "x"));
    for segment in sound(rows::segments::all(conn)).into_iter().flatten() {
        let plain = |c: char| c.is_ascii_digit() || ".seg".contains(c);
        assert!(
            segment.name.ends_with(".seg") && segment.name.chars().all(plain),
            "{:?}",
            segment.name
        );
    }
    if let Some(peers) = sound(rows::peers::all(conn)) {
        // What can be read can be written, as long as no number is none.
        let known: Vec<_> = peers.into_iter().filter(|peer| peer.record.merit.is_finite()).collect();
        sound(rows::peers::put(conn, &known, 1_800_000_000));
        sound(rows::peers::forgive(conn, None));
    }
    sound(rows::segments::bytes(conn));
    sound(rows::segments::places_of_leaf(conn, &[7; 32], 0, 1000));
}

fn check_pack(conn: &Connection, row: PackRow) {
    let record = &row.record;
    assert!(
        u64::from(record.pieces) <= Limits::DEFAULT.parts,
        "more pieces than any content has"
    );
    let have = rows::bits_from_bytes(row.have.as_deref(), record.pieces as usize);
    let bytes = rows::bits_to_bytes(&have);
    assert_eq!(rows::bits_from_bytes(Some(&bytes), have.len()), have);
    for at in [0, 1, 63, record.pieces / 2]
        .into_iter()
        .filter(|at| *at < record.pieces)
    {
        assert_eq!(rows::has_bit(row.have.as_deref(), at), have[at as usize]);
    }
    sound(rows::kept(conn, record.id));
    sound(rows::packs_of(conn, &record.content));
    sound(rows::packs_at(conn, crate::fs::path_bytes(&record.path)));
    // Written anew it is the same record.
    let id = sound(rows::insert_pack(conn, &row)).expect("a row");
    let again = sound(rows::pack(conn, id)).flatten().expect("just inserted");
    let expected = PackRecord {
        id,
        // Those of rows that were there before under this number.
        kept: again.record.kept,
        ..record.clone()
    };
    assert_eq!(again.record, expected);
    assert_eq!(
        (&again.have, &again.selection, &again.stage),
        (&row.have, &row.selection, &row.stage)
    );
    assert_eq!(again.conflicts.code(), row.conflicts.code());
    // Pieces come and go whatever the sums beside them say.
    sound(rows::change_have(
        conn,
        id,
        &[(0, 5), (3, 7), (u32::MAX, 1)],
        &[(0, 9), (1, u32::MAX)],
    ));
    let changed = sound(rows::pack(conn, id)).flatten().expect("still there");
    let now: PieceSet = rows::bits_from_bytes(changed.have.as_deref(), have.len());
    assert!(have.len() < 4 || now[3] && !now[0] && !now[1]);
    sound(rows::delete_pack(conn, id));
}

fn check_file(conn: &Connection, row: &FileRow) {
    let path = crate::fs::path_from(row.path.clone());
    let below = std::path::Path::new("folder").join(&path);
    let normal = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
    assert!(below.starts_with("folder") && path.components().all(normal), "{path:?}");
    sound(rows::files_by_identity(conn, &row.identity));
    let _ = row.identity.is_racy(row.seen);
    let new = NewFile {
        root: 1,
        path: &row.path,
        stage: row.stage,
        state: row.state,
        identity: row.identity,
        seen: row.seen,
        cid: row.cid,
        profile: row.profile.as_deref(),
    };
    let id = sound(rows::insert_file(conn, &new)).expect("a row");
    sound(rows::root_id(conn, b"/somewhere"));
    if let Some(Some((again, ..))) = sound(rows::file_and_place(conn, id)) {
        let facts = |row: &FileRow| {
            (
                row.path.clone(),
                row.state,
                row.identity,
                row.seen,
                row.cid,
                row.profile.clone(),
            )
        };
        assert_eq!(facts(&again), facts(row));
    }
    sound(rows::delete_file(conn, id));
}

/// Reads a `place-<number>.json`.
///
/// # Panics
/// Where a property does not hold: see the module.
pub fn place(data: &[u8]) {
    let Some(place) = PlaceFile::parse(data, 7) else { return };
    assert!(place.path().is_none_or(|path| path.is_absolute()));
    let bytes = place.to_bytes().expect("it was read");
    let again = PlaceFile::parse(&bytes, 7).expect("own bytes");
    assert_eq!((again.path(), again.network()), (place.path(), place.network()));
    assert_eq!(again.to_bytes().expect("as before"), bytes);
}

/// Reads a `choice-<number>.json`.
///
/// # Panics
/// Where a property does not hold: see the module.
pub fn choice(data: &[u8]) {
    let Some(choice) = Choice::parse(data) else { return };
    let bytes = choice.to_bytes().expect("it was read");
    assert_eq!(Choice::parse(&bytes).as_ref(), Some(&choice));
    let kept: Vec<u32> = choice.kept().collect();
    assert!(kept.is_sorted_by(|a, b| a < b), "one file twice");
    let selected = choice.selected();
    let files = selected.as_ref().map_or(u64::MAX, |set| set.len() as u64);
    assert!(
        kept.last()
            .is_none_or(|last| u64::from(*last) < files.min(Limits::DEFAULT.entries))
    );
}

/// Inputs for [`choice`]: what the store itself writes.
pub fn choice_seeds() -> Vec<Vec<u8>> {
    let selected = (0..40).map(|number| number % 7 != 3).collect();
    [
        Choice::new(3, &[1], None),
        Choice::new(40, &[0, 1, 2, 39], Some(&selected)),
        Choice::new(40, &[], Some(&selected)),
    ]
    .into_iter()
    .map(|choice| choice.to_bytes().expect("JSON"))
    .collect()
}

fn record() -> PackRecord {
    let cid = |text: &[u8]| Cid::of(modswarm_protocol::Codec::DagPb, Default::default(), text);
    PackRecord {
        id: PackId(1),
        pack: Some(cid(b"pack")),
        content: cid(b"content"),
        name: "Skins".to_owned(),
        network: [7; 32],
        path: PathBuf::from("/games/mods/Skins"),
        origin: Origin::Fetched,
        state: PackState::Downloading,
        files: 2,
        bytes: 3000,
        pieces: 20,
        pieces_here: 9,
        piece_bytes: 2000,
        piece_bytes_here: 900,
        partial: true,
        kept: 0,
        created: 1_750_000_000,
        pinned: false,
        used: 1_750_000_001,
        copied: false,
    }
}

/// Inputs for [`records`]: the rows that the store's own statements write.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let conn = empty();
    let write = || -> Result<(), IndexError> {
        rows::set_setting(&conn, "notice", "shown")?;
        let node = (record().content, bytes::Bytes::from_static(b"\x0a\x02\x08\x01"));
        rows::put_nodes(&conn, [&node])?;
        // The one time in a corpus.
        conn.execute("UPDATE nodes SET seen = 486000", [])?;
        let root = rows::root_id(&conn, b"/games/mods/Skins")?;
        let have: PieceSet = (0..20).map(|at| at % 2 == 0).collect();
        let row = PackRow {
            record: record(),
            root,
            have: Some(rows::bits_to_bytes(&have)),
            selection: Some(vec![3]),
            stage: Some(b"/games/mods/.modswarm-abcdefgh-01234567.part".to_vec()),
            conflicts: Conflicts::KeepBoth,
        };
        let id = rows::insert_pack(&conn, &row)?;
        for (number, (path, stage, state)) in [
            (&b"red.pak"[..], None, FileState::Whole),
            (b"sub/blue.pak", Some(id.0), FileState::Staged),
            (b"gone.pak", None, FileState::Gone),
        ]
        .into_iter()
        .enumerate()
        {
            let identity = Identity {
                dev: 2049,
                file: 77 + number as u64,
                size: 1500,
                mtime: 1_750_000_000_000_000_000,
                ctime: 1_750_000_000_000_000_000,
            };
            let file = NewFile {
                root,
                path,
                stage,
                state,
                identity,
                seen: 1_750_000_001_000_000_000,
                cid: record().content,
                profile: Some("fastcdc2020-131072"),
            };
            let file = rows::insert_file(&conn, &file)?;
            rows::insert_pack_file(&conn, id, number as u32, file)?;
            let leaf = LeafRow {
                prefix: -5,
                file,
                offset: 0,
                len: 1000,
            };
            rows::insert_leaves(&conn, &[leaf])?;
        }
        rows::set_kept(&conn, id, &[1])?;
        rows::remember_stage(&conn, b"/games/mods/.modswarm-abcdefgh-01234567.part")?;
        conn.execute_batch(
            "INSERT INTO moves (pack, source, target, copied) VALUES (1, x'2f61', x'2f62', 1);
             INSERT INTO former (file) VALUES (1);
             INSERT INTO renames (file, pack, number, source, target, replaced) VALUES (1, 1, 0, x'61', x'62', 2);",
        )?;
        Ok(())
    };
    write().expect("its own statements");
    let tables: Vec<Vec<u8>> = (0..TABLES.len()).map(|number| dump(&conn, number)).collect();
    let table = |name: &str| TABLES.iter().position(|table| *table == name).unwrap_or(0);
    // Everything together, and what has to be read on its own.
    let mut seeds = vec![tables.concat()];
    let with_roots = |rows: Vec<u8>| [tables[table("roots")].clone(), rows].concat();
    seeds.extend(["packs", "files", "leaves", "renames"].map(|name| with_roots(tables[table(name)].clone())));
    // What no statement of the store writes.
    for (name, change) in [
        ("files", "path = CAST('../../outside' AS BLOB)"),
        ("files", "path = CAST('/outside' AS BLOB)"),
        ("files", "cid = x'0155000464617461'"),
        ("packs", "pieces = 4294967295, have = NULL"),
        ("packs", "pieces = 16777217"),
        ("packs", "pieces_here = 0, piece_bytes_here = -1"),
        ("packs", "stage = CAST('/home' AS BLOB)"),
        ("packs", "network = x'07'"),
    ] {
        let changed = conn.execute(&format!("UPDATE {name} SET {change}"), []);
        assert!(changed.expect("columns of the table") > 0);
        seeds.push(with_roots(dump(&conn, table(name))));
    }
    seeds
}

fn dump(conn: &Connection, number: usize) -> Vec<u8> {
    let table = TABLES[number];
    let mut statement = conn.prepare(&format!("SELECT * FROM {table}")).expect("a table");
    let columns = statement.column_count();
    let mut rows = statement.query([]).expect("rows");
    let mut out = Vec::new();
    while let Some(row) = rows.next().expect("a row") {
        out.push(number as u8);
        for column in 0..columns {
            put_value(&mut out, &row.get(column).expect("a value"));
        }
    }
    out
}

/// Inputs for [`place`]: what the store itself writes.
pub fn place_seeds() -> Vec<Vec<u8>> {
    let shared = PackRecord {
        origin: Origin::Shared,
        pack: None,
        ..record()
    };
    // Not text on Unix; elsewhere one more that is.
    let odd = PackRecord {
        path: crate::fs::path_from(b"/games/\xff\xfe".to_vec()),
        ..record()
    };
    let records = [
        (record(), Place::Downloading),
        (shared, Place::Whole),
        (odd, Place::Whole),
    ];
    let bytes =
        |(record, place): (PackRecord, Place)| PlaceFile::new(PackId(7), &record, place).to_bytes().expect("JSON");
    records.into_iter().map(bytes).collect()
}

/// Bytes as a file that can only be read.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl BackendFile for Bytes {
    fn identity(&self) -> io::Result<Identity> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let bytes = from.and_then(|from| self.0.get(from..)?.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Reads a segment.
///
/// # Panics
/// Where a property does not hold: see the module.
pub fn segment(data: &[u8]) {
    let file = Bytes(data.to_vec());
    let network = read_file_header(&file).expect("memory can be read");
    assert!(network.is_none_or(|network| data.starts_with(&file_header(&network))));
    let mut end = FILE_HEADER;
    for record in Records::new(&file, data.len() as u64) {
        let record = record.expect("memory can be read");
        assert!(record.at >= end && record.end() <= data.len() as u64, "records overlap");
        assert!(
            record.kind == Kind::Clone || record.len <= modswarm_protocol::format::MAX_BLOCK_LEN as u64,
            "longer than a block"
        );
        let (header, again) = header(record.kind, &record.cid, record.len, end);
        assert_eq!(again, record);
        assert_eq!(data[end as usize..][..header.len()], header[..]);
        end = record.end();
    }
}

/// Inputs of [`segment`] to begin with.
pub fn segment_seeds() -> Vec<Vec<u8>> {
    let mut bytes = file_header(&[7; 32]);
    let empty = bytes.clone();
    for (kind, payload) in [
        (Kind::Leaf, &b"leaf"[..]),
        (Kind::Node, b"node"),
        (Kind::Clone, b"a file"),
        (Kind::Leaf, b"last"),
    ] {
        let cid = Cid::of(modswarm_protocol::Codec::Raw, Default::default(), payload);
        let (header, record) = header(kind, &cid, payload.len() as u64, bytes.len() as u64);
        bytes.extend_from_slice(&header);
        bytes.resize(record.at as usize, 0);
        bytes.extend_from_slice(payload);
    }
    vec![empty, bytes]
}
