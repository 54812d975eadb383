//! The swarm engine: which block to ask of whom, and whom to serve. It does no I/O and reads no clock.
//!
//! One [`Engine`] serves a node. It never sees a payload: it says what to fetch and what to serve, and hears what became of it.
//! The contract, for the node as for the simulator:
//!
//! 1. **Mutate**: tell the engine what happened, with the time, by one or more of `handle_*`, [`Engine::add_content`] and the like.
//! 2. **Drain** [`Engine::poll_action`] until it gives `None`, doing what it says. Requests are made up here, so that
//!    several facts told in a row cost one round of scheduling.
//! 3. Ask [`Engine::poll_timeout`] when to call [`Engine::handle_timeout`] at the latest, wait for that or for the next fact, and go to 1.
//!
//! A block's way in: [`Engine::handle_block_header`] says whether it is wanted and how long it may be *before* memory is taken;
//! [`Engine::handle_block_progress`] is told of payload bytes as they come; a block that came whole gets exactly one
//! [`Engine::handle_verdict`], even if its connection has ended meanwhile. A block's way out: [`Action::Serve`], then
//! [`Engine::handle_served`].
//!
//! Time never runs backwards. The same facts at the same times with the same seed give the same actions.

mod action;
mod choke;
mod config;
mod conn;
mod conn_set;
mod core;
mod doubt;
mod endgame;
mod exchange;
mod fetch;
mod flood;
mod flow;
mod idle;
mod ids;
mod intake;
mod ledbat;
mod leech;
mod limit;
mod local;
mod nodes;
mod offers;
mod pace;
mod pacer;
mod peers;
mod picker;
mod priority;
mod ranks;
mod rate;
mod reputation;
mod requests;
mod rng;
mod serve;
mod session;
mod skeleton;
mod slots;
mod spread;
mod stats;
mod transfer;
mod turns;
mod uplink;
mod uploads;
mod weigh;
mod window;

pub use self::core::Engine;
pub use action::{Action, DisconnectReason, Event, Expected, ServeFailure, ServeJob, Unwanted, Verdict, Violation};
pub use config::{ContentPieces, ContentSpec, EngineConfig, PickOrder};
pub use ids::{ConnId, PeerKey, TransferId};
pub use ledbat::{Ledbat, UploadController};
pub use pacer::Pacer;
pub use priority::Priority;
pub use reputation::{Ban, Cause, Evidence, Fault, MAX_RECORDS, MAX_SCORE, PeerRecord, Tally, Worth};
#[cfg(feature = "sim")]
pub(crate) use rng::Rng;
pub use stats::{ConnStats, PeerBytes, Stage, TransferStats};
