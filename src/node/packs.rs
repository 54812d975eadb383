//! The home's packs: serving them, saying how they do, and looking after them.
//!
//! What the store knows and what the actor does meet here. [`serve`] tells the actor what there is to serve and what is lost, [`mod@status`] tells people, [`upkeep`]
//! removes, moves, pins and clears up, and [`choose`] finds the pack that somebody means. How files lie on the disk is `modswarm_store`'s affair, what a `get`,
//! `share` or `verify` does that of [`super::jobs`].

mod choose;
mod serve;
mod status;
mod upkeep;

use modswarm_store::Store;

pub(super) use choose::targets;
pub(super) use serve::{register, seed, serve_all, served, watch_used, watch_withdrawn};
pub(super) use status::{info, status, statuses};
pub(super) use upkeep::{collect, pin, relocate, remove};

use super::{Inner, task_failure};
use crate::api::Failure;

/// Does what waits for the disk, off the executor.
pub(super) async fn blocking<T: Send + 'static>(
    node: &Inner,
    work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let store = node.store.clone();
    tokio::task::spawn_blocking(move || work(&store))
        .await
        .map_err(task_failure)?
}
