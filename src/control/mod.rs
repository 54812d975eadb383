//! How several processes use one home: one holds it and does the work, the others ask it.
//!
//! [`join`] makes this process the **holder** (it got the home's lock, started a node and serves the control API) or a
//! **client** of the holder. The API is HTTP/1.1 over a Unix socket in the home that only its owner can open; on Windows over a
//! loopback port, with a token that only the owner can read. Where the socket is stands in `<home>/control.json`.
//!
//! | call | asks | answers |
//! |---|---|---|
//! | `GET /v1/holder` | | [`HolderInfo`] |
//! | `POST /v1/share` | [`ShareRequest`](crate::api::ShareRequest) | a [`ShareEvent`](crate::api::ShareEvent) a line |
//! | `POST /v1/get` | [`GetRequest`](crate::api::GetRequest) | a [`GetEvent`](crate::api::GetEvent) a line |
//! | `POST /v1/ls` | [`ListRequest`](crate::api::ListRequest) | [`Listing`](crate::api::Listing) |
//! | `GET /v1/status` | | [`Status`](crate::api::Status) |
//! | `GET /v1/peers` | | a list of [`PeerStatus`](crate::api::PeerStatus) |
//! | `GET /v1/peers/known` | | the same of remembered ones that are not connected |
//! | `POST /v1/peers/forgive` | [`ForgiveRequest`](crate::api::ForgiveRequest) | [`Forgiven`](crate::api::Forgiven) |
//! | `POST /v1/info` | [`InfoRequest`] | [`PackStatus`](crate::api::PackStatus) |
//! | `POST /v1/rm` | [`RemoveRequest`](crate::api::RemoveRequest) | [`Removed`](crate::api::Removed) |
//!
//! A failure is a status other than 200 with a [`Failure`](crate::api::Failure). Streams of events: a client that goes away
//! before the job's last event cancels the job; after it, the stream stays open without events for as long as the holder seeds,
//! so that its end tells the client that the holder is gone.

mod backend;
mod client;
mod endpoint;
mod hold;
mod protocol;
mod server;

pub use backend::Backend;
pub use client::{CallError, Client};
pub use endpoint::{Endpoint, Transport};
pub use hold::{Holder, Joined, MAX_WAIT, join};
pub use protocol::{
    API_VERSION, HolderInfo, InfoRequest, MAX_ANSWER_LEN, MAX_CONNECTIONS, MAX_LINE_LEN, MAX_REQUEST_LEN,
    VERSION_HEADER,
};
pub use server::Server;
