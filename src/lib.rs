//! modswarm: share modpacks peer to peer. Content-addressed, swarming, verified, in place.
//!
//! The library behind the program, for mod managers: a [`node::Node`] in your own process, with the requests and events of [`api`]. Programs in other
//! languages talk to a running `modswarm` over its [`control`] socket instead, in the same words as JSON.
//!
//! ```no_run
//! use modswarm::{
//!     api::{GetEvent, GetRequest, NetworkKind},
//!     node::{Node, NodeConfig},
//! };
//! use modswarm_store::HomeLock;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // One process holds a home at a time.
//! let lock = HomeLock::try_acquire("/home/ada/.local/share/my-mod-manager".as_ref())?.ok_or("it is in use")?;
//! let config = NodeConfig {
//!     network: NetworkKind::Public,
//!     upload_limit: Some(5_000_000),
//!     ..NodeConfig::default()
//! };
//! let node = Node::start(lock, config).await?;
//!
//! let mut events = node.get(GetRequest {
//!     target: "modswarm:bafy…".to_owned(),
//!     output: "/home/ada/mods".into(),
//!     seed: true,
//!     ..GetRequest::default()
//! });
//! while let Some(event) = events.recv().await {
//!     match event {
//!         GetEvent::Progress { bytes_done, bytes_total, .. } => println!("{bytes_done} of {bytes_total}"),
//!         GetEvent::Complete(complete) => println!("installed in {}", complete.path.display()),
//!         GetEvent::Failed(failure) => return Err(failure.into()),
//!         _ => {}
//!     }
//! }
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod api;
pub mod config;
pub mod control;
pub mod node;
