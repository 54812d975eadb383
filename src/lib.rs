//! modswarm: share modpacks peer to peer. Content-addressed, swarming, verified, in place.
//!
//! The library behind the program, for mod managers. One process holds a **home** (the index of what this user has) at a time:
//!
//! - to hold one yourself, take its [`HomeLock`] and start a [`node::Node`] in your own process;
//! - to ask the `modswarm` that holds one already, connect a [`control::Client`]. Programs in other languages do the same with JSON over its socket.
//!
//! Both take the requests of [`api`] and give its events and its one error, [`api::Failure`]: what kind it is, a sentence for the user, and what to do next.
//! Both need Tokio's runtime. Sizes are bytes, rates bytes a second, times seconds.
//!
//! # A node of your own
//! ```no_run
//! use modswarm::{
//!     HomeLock,
//!     api::{GetEvent, GetRequest, NetworkKind},
//!     node::{Node, NodeConfig},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // None if another process has it. The folder is made where there is none.
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

//!
//! # The modswarm that runs already
//! ```no_run
//! use modswarm::{
//!     Places,
//!     api::{ShareEvent, ShareRequest},
//!     control::{CallError, Client},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let home = Places::find()?.home;
//! let client = match Client::connect(&home).await {
//!     Ok(client) => client,
//!     // Nobody holds the home: start `modswarm`, or a node of your own.
//!     Err(CallError::Lost) => return Err("modswarm is not running".into()),
//!     Err(CallError::Failed(failure)) => return Err(failure.into()),
//! };
//! for pack in client.status().await?.packs {
//!     println!("{}: {} of {} bytes, {}", pack.name, pack.bytes_here, pack.bytes, pack.link);
//! }
//!
//! let request = ShareRequest {
//!     path: "/home/ada/mods/Skins".into(),
//!     ..ShareRequest::default()
//! };
//! let mut events = client.share(&request).await?;
//! while let Some(event) = events.recv().await {
//!     match event {
//!         ShareEvent::Ready(shared) => {
//!             // It goes on being served by the process that holds the home.
//!             println!("pass this on: {}", shared.link);
//!             break;
//!         }
//!         ShareEvent::Failed(failure) => return Err(failure.into()),
//!         ShareEvent::Progress { .. } | ShareEvent::Warning { .. } => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod api;
// Flags, environment and config file: the program's affair.
#[doc(hidden)]
pub mod config;
pub mod control;
pub mod node;

pub use config::{ConfigError, Places};
// Types of other crates that stand in this API.
pub use libp2p::{Multiaddr, PeerId};
pub use modswarm_protocol::{Cid, HashKind};
pub use modswarm_store::{HomeError, HomeLock};
