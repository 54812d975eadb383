//! How several processes use one home: one holds it and does the work, the others ask it.
//!
//! The **holder** has the home's lock, runs a node and serves the control API; [`Client`] is the other end. The API is HTTP/1.1 with JSON over a Unix
//! socket in the home that only its owner can open; on Windows over a loopback port, with a token that only the owner can read. Where it is stands in
//! `<home>/control.json`: `{"unix": "<path>"}`, or `{"tcp": {"addr": "127.0.0.1:<port>", "token": "<token>"}}`, where each request carries
//! `Authorization: Bearer <token>`. Every request carries the header [`VERSION_HEADER`] with the number [`API_VERSION`].
//!
//! | call | asks | answers |
//! |---|---|---|
//! | `GET /v1/holder` | | [`HolderInfo`] |
//! | `POST /v1/share` | [`ShareRequest`](crate::api::ShareRequest) | a [`ShareEvent`](crate::api::ShareEvent) a line |
//! | `POST /v1/get` | [`GetRequest`](crate::api::GetRequest) | a [`GetEvent`](crate::api::GetEvent) a line |
//! | `POST /v1/verify` | [`VerifyRequest`](crate::api::VerifyRequest) | a [`VerifyEvent`](crate::api::VerifyEvent) a line |
//! | `POST /v1/ls` | [`ListRequest`](crate::api::ListRequest) | [`Listing`](crate::api::Listing) |
//! | `POST /v1/diff` | [`DiffRequest`](crate::api::DiffRequest) | [`Diff`](crate::api::Diff) |
//! | `GET /v1/status` | | [`Status`](crate::api::Status) |
//! | `GET /v1/peers` | | a list of [`PeerStatus`](crate::api::PeerStatus) |
//! | `GET /v1/peers/known` | | the same of remembered ones that are not connected |
//! | `POST /v1/peers/forgive` | [`ForgiveRequest`](crate::api::ForgiveRequest) | [`Forgiven`](crate::api::Forgiven) |
//! | `POST /v1/info` | [`InfoRequest`] | [`PackStatus`](crate::api::PackStatus) |
//! | `POST /v1/rm` | [`RemoveRequest`](crate::api::RemoveRequest) | [`Removed`](crate::api::Removed) |
//! | `POST /v1/move` | [`MoveRequest`](crate::api::MoveRequest) | [`Moved`](crate::api::Moved) |
//! | `POST /v1/pin` | [`PinRequest`](crate::api::PinRequest) | [`PackStatus`](crate::api::PackStatus) |
//! | `POST /v1/gc` | [`GcRequest`](crate::api::GcRequest) | [`Collected`](crate::api::Collected) |
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

pub use client::{CallError, Client};
pub use protocol::{API_VERSION, HolderInfo, InfoRequest, VERSION_HEADER};

// What the program needs beside that, and the tests of both ends.
#[doc(hidden)]
pub use self::{
    backend::Backend,
    endpoint::{Endpoint, Transport},
    hold::{Holder, Joined, MAX_WAIT, join},
    protocol::MAX_REQUEST_LEN,
};
