//! How long packets are under way from here to the peer.
//!
//! A round trip also counts the queue of the peer's own uplink, in which its acknowledgements wait, and for how long it holds them back: where everybody uploads, one
//! would take the others' queues for one's own and leave the uplink half empty. So datagrams (RFC 9221) go along that the peer echoes with the time at which they came
//! to it. Its clock says nothing by itself; what has been added since the least says how long the queue is. Peers that echo nothing are known by round trips alone.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;

/// What the datagrams begin with: a question, to be echoed, or its echo.
const PROBE: [u8; 4] = *b"mst?";
const ECHO: [u8; 4] = *b"mst!";
/// Probes that are waited for; older ones are lost.
const UNDER_WAY: usize = 32;
/// Samples that the controller has not taken yet.
const SAMPLES: usize = 32;

/// What one connection knows of its way there, between its controller, which runs under quinn's lock, and [`run`], which sends and gets datagrams.
#[derive(Debug)]
pub(super) struct Transit {
    began: Instant,
    wanted: Notify,
    /// Whether the peer may answer.
    open: AtomicBool,
    /// Whether a probe waits to be sent.
    waits: AtomicBool,
    /// Whether there are samples.
    news: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    waiting: Option<u32>,
    /// Seconds since `began`.
    sent: VecDeque<(u32, f64)>,
    samples: Vec<f64>,
}

impl Default for Transit {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            wanted: Notify::new(),
            open: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            news: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }
}

impl Transit {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a probe to be sent.
    pub(super) fn probe(&self) {
        if self.open.load(Relaxed) {
            self.wanted.notify_one();
        }
    }

    /// Whether a probe is to leave with the next packet.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// Takes it that the probe that waited was sent at `now`.
    pub(super) fn sent(&self, now: Instant) {
        let mut state = self.state();
        self.waits.store(false, Relaxed);
        if let Some(number) = state.waiting.take() {
            let at = now.saturating_duration_since(self.began).as_secs_f64();
            if state.sent.len() == UNDER_WAY {
                state.sent.pop_front();
            }
            state.sent.push_back((number, at));
        }
    }

    /// Takes what was learnt since it was last asked: seconds, beyond what no one knows but the difference of two clocks.
    pub(super) fn samples(&self) -> Vec<f64> {
        if !self.news.swap(false, Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut self.state().samples)
    }

    /// The next probe, which counts as waiting from now on; none if one waits still.
    fn next(&self) -> Option<Bytes> {
        let mut state = self.state();
        if state.waiting.is_some() {
            return None;
        }
        let number = state.next;
        state.next = number.wrapping_add(1);
        state.waiting = Some(number);
        self.waits.store(true, Relaxed);
        Some([PROBE, number.to_be_bytes()].concat().into())
    }

    /// The peer got probe `number` at `micros` of its own time.
    fn echoed(&self, number: u32, micros: u64) {
        let mut state = self.state();
        let Some(found) = state.sent.iter().position(|(sent, _)| *sent == number) else {
            return;
        };
        // Earlier ones will not be heard of any more.
        let (_, at) = state.sent.drain(..=found).next_back().expect("found");
        if state.samples.len() < SAMPLES {
            state.samples.push(micros as f64 / 1e6 - at);
            self.news.store(true, Relaxed);
        }
    }
}

/// Sends what the controller asks for, and echoes what comes, until the connection ends.
pub(super) async fn run(connection: quinn::Connection, transit: Arc<Transit>) {
    if connection.max_datagram_size().is_none() {
        return;
    }
    transit.open.store(true, Relaxed);
    loop {
        tokio::select! {
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { return };
                match parse(&datagram) {
                    Some(Datagram::Probe(number)) => {
                        let micros = transit.began.elapsed().as_micros() as u64;
                        let echo = [&ECHO[..], &number.to_be_bytes(), &micros.to_be_bytes()].concat();
                        // A connection that ends is told of by the next read.
                        let _ = connection.send_datagram(echo.into());
                    }
                    Some(Datagram::Echo(number, micros)) => transit.echoed(number, micros),
                    None => {}
                }
            }
            () = transit.wanted.notified() => {
                if let Some(probe) = transit.next() {
                    let _ = connection.send_datagram(probe);
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Datagram {
    Probe(u32),
    Echo(u32, u64),
}

fn parse(datagram: &[u8]) -> Option<Datagram> {
    let (kind, rest) = datagram.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let number = u32::from_be_bytes(*number);
    match *kind {
        PROBE if rest.is_empty() => Some(Datagram::Probe(number)),
        ECHO => Some(Datagram::Echo(number, u64::from_be_bytes(rest.try_into().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
impl Transit {
    /// As if a probe had been echoed that was under way for `secs`.
    pub(super) fn learnt(&self, secs: f64) {
        self.state().samples.push(secs);
        self.news.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_tell_how_much_longer_it_took() {
        let transit = Transit::default();
        let sent = |secs: f64| transit.began + std::time::Duration::from_secs_f64(secs);
        for at in [1.0, 2.0, 3.0] {
            assert!(transit.next().is_some() && transit.next().is_none());
            transit.sent(sent(at));
        }
        // The peer's clock is 10 s ahead; the second was lost.
        transit.echoed(0, 11_030_000);
        transit.echoed(2, 13_070_000);
        transit.echoed(1, 99_000_000);
        let samples = transit.samples();
        assert_eq!(samples.len(), 2);
        assert!((samples[1] - samples[0] - 0.04).abs() < 1e-6, "{samples:?}");
        assert!(transit.samples().is_empty());
    }

    #[test]
    fn other_datagrams_are_nothing() {
        assert_eq!(parse(b"mst?\0\0\0\x07"), Some(Datagram::Probe(7)));
        assert_eq!(parse(b"mst!\0\0\0\x07\0\0\0\0\0\0\0\x09"), Some(Datagram::Echo(7, 9)));
        for other in [
            &b""[..],
            b"mst?",
            b"mst?\0\0\0\x07x",
            b"mst!\0\0\0\x07",
            b"other datagram..",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}
