//! Calls that keep what is no block: what is remembered of peers, and small settings.

use super::Store;
use crate::{error::IndexError, index::rows, peers::KnownPeer};

impl Store {
    /// What is remembered of peers, at most [`modswarm_protocol::engine::MAX_RECORDS`] of them, the last seen first.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn peer_records(&self) -> Result<Vec<KnownPeer>, IndexError> {
        rows::peers::all(&*self.inner.index.reader()?)
    }

    /// Remembers peers as they are given. Beyond [`modswarm_protocol::engine::MAX_RECORDS`] those that are worth least at `now` (seconds since 1970)
    /// are forgotten. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn put_peer_records(&self, peers: &[KnownPeer], now: u64) -> Result<(), IndexError> {
        let peers = peers.to_vec();
        self.inner.index.writer.run(move |tx| rows::peers::put(tx, &peers, now))
    }

    /// Takes the bans and faults of the peer with this ID, or of all, back; what they gave stays remembered. How many had any. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn forgive(&self, peer_id: Option<&[u8]>) -> Result<u64, IndexError> {
        let peer_id = peer_id.map(<[u8]>::to_vec);
        self.inner
            .index
            .writer
            .run(move |tx| rows::peers::forgive(tx, peer_id.as_deref()))
    }

    /// A small value kept with the home.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn setting(&self, key: &str) -> Result<Option<String>, IndexError> {
        rows::setting(&*self.inner.index.reader()?, key)
    }

    /// Keeps a small value with the home. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<(), IndexError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.inner
            .index
            .writer
            .run(move |tx| rows::set_setting(tx, &key, &value))
    }

    /// Forgets a small value. Durable.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn remove_setting(&self, key: &str) -> Result<(), IndexError> {
        let key = key.to_owned();
        self.inner.index.writer.run(move |tx| rows::remove_setting(tx, &key))
    }
}
