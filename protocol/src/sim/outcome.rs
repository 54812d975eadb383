//! What a run came to.

use std::time::Duration;

use crate::engine::{Event, TransferStats};

/// What one peer came to.
#[derive(Clone, Debug)]
pub struct PeerOutcome {
    /// From its start to everything it wanted; none if it did not come to that.
    pub took: Option<Duration>,
    /// Its transfers.
    pub transfers: Vec<TransferStats>,
    /// Bytes of control messages that it sent.
    pub control_bytes: u64,
    /// Control messages that it sent.
    pub control_messages: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// By peer.
    pub peers: Vec<PeerOutcome>,
    /// Bans, with the index of the peer that spoke each and of the peer that was banned.
    pub bans: Vec<(usize, usize, Event)>,
    /// Connections that an engine closed for a violation, with the index of the peer that saw it.
    pub violations: Vec<(usize, String)>,
}

impl Outcome {
    /// Payload bytes that came twice or too late, of all payload bytes that came, over all peers.
    pub fn wasted(&self) -> f64 {
        let transfers = || self.peers.iter().flat_map(|peer| &peer.transfers);
        let wasted: u64 = transfers().map(|t| t.bytes_wasted).sum();
        let fetched: u64 = transfers().map(|t| t.bytes_fetched).sum();
        wasted as f64 / (wasted + fetched).max(1) as f64
    }

    /// The time until the last of `peers` had everything; none if one never had.
    pub fn last(&self, peers: impl IntoIterator<Item = usize>) -> Option<Duration> {
        peers
            .into_iter()
            .map(|i| self.peers[i].took)
            .try_fold(Duration::ZERO, |last, took| Some(last.max(took?)))
    }
}

/// The least time in which `bytes` can reach all of `downs` from `seeds` (rates in bytes a second): Kumar and Ross, "Peer-assisted
/// file distribution: the minimum distribution time", 2006.
pub fn least_time(bytes: u64, seeds: &[u64], leechers: &[(u64, u64)]) -> Duration {
    let bytes = bytes as f64;
    let from_seeds: u64 = seeds.iter().sum();
    let from_all = from_seeds + leechers.iter().map(|(up, _)| up).sum::<u64>();
    let slowest = leechers.iter().map(|(_, down)| *down).min().unwrap_or(1);
    let by_seeds = bytes / from_seeds as f64;
    let by_downlink = bytes / slowest as f64;
    let by_all = leechers.len() as f64 * bytes / from_all as f64;
    Duration::from_secs_f64(by_seeds.max(by_downlink).max(by_all))
}
