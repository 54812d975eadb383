//! Rows of peers: what the engine remembers of them over restarts.

use std::{collections::BTreeMap, time::Duration};

use modswarm_protocol::engine::{Ban, Fault, MAX_RECORDS, PeerKey, PeerRecord, Tally};
use rusqlite::{Connection, Row, params};

use super::{Result, senseless};
use crate::peers::KnownPeer;

/// The longest peer ID, in bytes.
pub(crate) const MAX_PEER_ID_LEN: usize = 64;
/// The longest address that is kept, in bytes.
pub(crate) const MAX_ADDR_LEN: usize = 512;

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| senseless(column, "a count below zero"))
}

/// SQLite's integers end at half of ours; no time and no count of bytes comes near.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read_peer(row: &Row<'_>) -> rusqlite::Result<KnownPeer> {
    let peer_id: Vec<u8> = row.get(0)?;
    let addr: String = row.get(1)?;
    if peer_id.len() > MAX_PEER_ID_LEN || addr.len() > MAX_ADDR_LEN {
        return Err(senseless(0, "a peer's name is too long"));
    }
    let mut record = PeerRecord::new(PeerKey::of(&peer_id), number(row, 2)?);
    record.bytes_down = number(row, 3)?;
    record.bytes_up = number(row, 4)?;
    record.merit = row.get(5)?;
    record.merit_at = number(row, 6)?;
    record.rate_down = number(row, 7)?;
    record.rate_up = number(row, 8)?;
    record.rtt = match row.get::<_, Option<i64>>(9)? {
        Some(_) => Some(Duration::from_micros(number(row, 9)?)),
        None => None,
    };
    // A fault of a later version bans nobody here.
    if let Some(fault) = row.get::<_, Option<u8>>(10)?.and_then(Fault::from_code) {
        record.ban = Some(Ban {
            fault,
            since: number(row, 11)?,
            until: number(row, 12)?,
        });
    }
    record.strikes = row.get(13)?;
    record.offences = row.get(14)?;
    Ok(KnownPeer { peer_id, addr, record })
}

/// All of them, at most [`MAX_RECORDS`], the last seen first.
pub(crate) fn all(conn: &Connection) -> Result<Vec<KnownPeer>> {
    first(conn, MAX_RECORDS)
}

fn first(conn: &Connection, bound: usize) -> Result<Vec<KnownPeer>> {
    let mut statement = conn.prepare_cached(
        "SELECT id, addr, seen, bytes_down, bytes_up, merit, merit_at, rate_down, rate_up, rtt, ban_fault, ban_since, ban_until,
         strikes, offences FROM peers ORDER BY seen DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([bound as i64], read_peer)?;
    let mut peers = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut by_id: BTreeMap<Vec<u8>, &mut PeerRecord> = peers
        .iter_mut()
        .map(|peer| (peer.peer_id.clone(), &mut peer.record))
        .collect();
    let mut statement =
        conn.prepare_cached("SELECT peer, fault, count, last, recent FROM peer_faults ORDER BY peer, fault LIMIT ?1")?;
    let most = bound * Fault::ALL.len();
    let mut rows = statement.query([most as i64])?;
    while let Some(row) = rows.next()? {
        let peer: Vec<u8> = row.get(0)?;
        let fault = Fault::from_code(row.get(1)?);
        if let (Some(record), Some(fault)) = (by_id.get_mut(&peer), fault) {
            record.faults.push(Tally {
                fault,
                count: row.get(2)?,
                last: number(row, 3)?,
                recent: row.get(4)?,
            });
        }
    }
    Ok(peers)
}

/// Writes records anew, and forgets those that are worth least beyond [`MAX_RECORDS`]. `now` in seconds since 1970.
pub(crate) fn put(conn: &Connection, peers: &[KnownPeer], now: u64) -> Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT OR REPLACE INTO peers (id, addr, seen, bytes_down, bytes_up, merit, merit_at, rate_down, rate_up, rtt, ban_fault,
         ban_since, ban_until, strikes, offences) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    let mut insert_fault =
        conn.prepare_cached("INSERT INTO peer_faults (peer, fault, count, last, recent) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let fitting = peers.iter().filter(|peer| peer.peer_id.len() <= MAX_PEER_ID_LEN);
    for KnownPeer { peer_id, addr, record } in fitting {
        let addr = if addr.len() > MAX_ADDR_LEN { "" } else { addr };
        insert.execute(params![
            peer_id,
            addr,
            integer(record.seen),
            integer(record.bytes_down),
            integer(record.bytes_up),
            record.merit,
            integer(record.merit_at),
            integer(record.rate_down),
            integer(record.rate_up),
            record
                .rtt
                .map(|rtt| integer(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX))),
            record.ban.map(|ban| ban.fault.code()),
            record.ban.map(|ban| integer(ban.since)),
            record.ban.map(|ban| integer(ban.until)),
            record.strikes,
            record.offences,
        ])?;
        delete_faults(conn, peer_id)?;
        for tally in &record.faults {
            insert_fault.execute(params![
                peer_id,
                tally.fault.code(),
                tally.count,
                integer(tally.last),
                tally.recent
            ])?;
        }
    }
    forget_beyond(conn, MAX_RECORDS, now)
}

fn delete_faults(conn: &Connection, peer_id: &[u8]) -> Result<()> {
    conn.prepare_cached("DELETE FROM peer_faults WHERE peer = ?1")?
        .execute([peer_id])?;
    Ok(())
}

fn forget_beyond(conn: &Connection, bound: usize, now: u64) -> Result<()> {
    let count: i64 = conn.query_row("SELECT count(*) FROM peers", [], |row| row.get(0))?;
    let over = usize::try_from(count).unwrap_or(0).saturating_sub(bound);
    if over == 0 {
        return Ok(());
    }
    let mut peers = first(conn, bound + over)?;
    peers.sort_by(|a, b| {
        let worth = |peer: &KnownPeer| peer.record.worth(now);
        worth(a).total_cmp(&worth(b))
    });
    for peer in peers.iter().take(over) {
        delete_faults(conn, &peer.peer_id)?;
        conn.prepare_cached("DELETE FROM peers WHERE id = ?1")?
            .execute([&peer.peer_id])?;
    }
    Ok(())
}

/// Takes bans and faults of one peer, or of all, back. How many had any.
pub(crate) fn forgive(conn: &Connection, peer_id: Option<&[u8]>) -> Result<u64> {
    let forgiven = conn
        .prepare_cached(
            "UPDATE peers SET ban_fault = NULL, ban_since = NULL, ban_until = NULL, strikes = 0, offences = 0
             WHERE (?1 IS NULL OR id = ?1) AND (ban_fault IS NOT NULL OR id IN (SELECT peer FROM peer_faults))",
        )?
        .execute([peer_id])?;
    conn.prepare_cached("DELETE FROM peer_faults WHERE ?1 IS NULL OR peer = ?1")?
        .execute([peer_id])?;
    Ok(forgiven as u64)
}
