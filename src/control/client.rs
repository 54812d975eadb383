//! The end of the control API of those who do not hold the home.

use std::{path::Path, time::Duration};

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{
    endpoint::Endpoint,
    protocol::{API_VERSION, HolderInfo, InfoRequest, MAX_ANSWER_LEN, MAX_LINE_LEN, VERSION_HEADER},
};
use crate::api::{
    AdjustRequest, Collected, Diff, DiffRequest, Failure, FailureKind, ForgiveRequest, Forgiven, GcRequest, GetEvent,
    GetRequest, LimitRequest, Limits, ListRequest, Listing, MoveRequest, Moved, PackStatus, PeerStatus, PinRequest,
    RemoveRequest, Removed, ShareEvent, ShareRequest, Status, VerifyEvent, VerifyRequest,
};

/// How many events may wait to be read; then the holder waits.
const EVENT_QUEUE: usize = 16;

/// How long a holder may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Why a call to the holder came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The holder is gone, or was never there. Whoever asks may become the holder.
    #[error("the process that held the home is gone")]
    Lost,
    /// It answered that it cannot.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A way to ask the holder of a home. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    holder: HolderInfo,
}

impl Client {
    /// Looks for the holder of `home`.
    ///
    /// # Errors
    /// [`CallError::Lost`] if nobody answers there (now), [`CallError::Failed`] if it speaks another version.
    pub async fn connect(home: &Path) -> Result<Self, CallError> {
        let endpoint = Endpoint::read(home).ok().flatten().ok_or(CallError::Lost)?;
        let call = call::<()>(&endpoint, Method::GET, "/v1/holder", None);
        let response = tokio::time::timeout(HELLO_WITHIN, call)
            .await
            .map_err(|_| CallError::Lost)??;
        let holder: HolderInfo = read(response).await?;
        if holder.api != API_VERSION {
            return Err(Failure::new(
                FailureKind::Failed,
                format!(
                    "modswarm {} is running for this home (process {}), and can't be asked by this version, {}",
                    holder.version,
                    holder.pid,
                    env!("CARGO_PKG_VERSION")
                ),
                "stop it and start it again with this version; nothing is lost",
            )
            .into());
        }
        Ok(Self { endpoint, holder })
    }

    /// Who holds the home, and with what.
    pub fn holder(&self) -> &HolderInfo {
        &self.holder
    }

    /// Asks the holder to share. Dropping the receiver before the last event cancels; the channel stays open after it for as
    /// long as the holder lives. A channel that closes without a last event means that the holder is gone.
    ///
    /// # Errors
    /// When the holder refuses or is gone.
    pub async fn share(&self, request: &ShareRequest) -> Result<mpsc::Receiver<ShareEvent>, CallError> {
        self.events("/v1/share", request).await
    }

    /// Asks the holder to get; see [`Client::share`].
    ///
    /// # Errors
    /// When the holder refuses or is gone.
    pub async fn get(&self, request: &GetRequest) -> Result<mpsc::Receiver<GetEvent>, CallError> {
        self.events("/v1/get", request).await
    }

    /// Lists the files of a pack.
    ///
    /// # Errors
    /// When it cannot, or is gone.
    pub async fn list(&self, request: &ListRequest) -> Result<Listing, CallError> {
        self.ask(Method::POST, "/v1/ls", Some(request)).await
    }

    /// Says how two packs differ, or what a get would do.
    ///
    /// # Errors
    /// When it cannot, or is gone.
    pub async fn diff(&self, request: &DiffRequest) -> Result<Diff, CallError> {
        self.ask(Method::POST, "/v1/diff", Some(request)).await
    }

    /// The holder's node and its packs.
    ///
    /// # Errors
    /// When it cannot, or is gone.
    pub async fn status(&self) -> Result<Status, CallError> {
        self.ask(Method::GET, "/v1/status", None::<&()>).await
    }

    /// The holder's peers.
    ///
    /// # Errors
    /// When it cannot, or is gone.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, CallError> {
        self.ask(Method::GET, "/v1/peers", None::<&()>).await
    }

    /// Peers that the holder remembers and is not connected to.
    ///
    /// # Errors
    /// When it cannot, or is gone.
    pub async fn known_peers(&self) -> Result<Vec<PeerStatus>, CallError> {
        self.ask(Method::GET, "/v1/peers/known", None::<&()>).await
    }

    /// Takes bans and faults of peers back.
    ///
    /// # Errors
    /// When nothing is remembered of the peer, or the holder is gone.
    pub async fn forgive(&self, request: &ForgiveRequest) -> Result<Forgiven, CallError> {
        self.ask(Method::POST, "/v1/peers/forgive", Some(request)).await
    }

    /// One pack of the home.
    ///
    /// # Errors
    /// When there is none such, or the holder is gone.
    pub async fn info(&self, target: String) -> Result<PackStatus, CallError> {
        self.ask(Method::POST, "/v1/info", Some(&InfoRequest { target })).await
    }

    /// Forgets a pack.
    ///
    /// # Errors
    /// When there is none such, or the holder is gone.
    pub async fn remove(&self, request: &RemoveRequest) -> Result<Removed, CallError> {
        self.ask(Method::POST, "/v1/rm", Some(request)).await
    }

    /// Asks the holder to verify packs. Dropping the receiver stops it; a channel that closes without a last event means that the holder is gone.
    ///
    /// # Errors
    /// When the holder refuses or is gone.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<mpsc::Receiver<VerifyEvent>, CallError> {
        self.events("/v1/verify", request).await
    }

    /// Moves a pack.
    ///
    /// # Errors
    /// When it cannot be moved, or the holder is gone.
    pub async fn relocate(&self, request: &MoveRequest) -> Result<Moved, CallError> {
        self.ask(Method::POST, "/v1/move", Some(request)).await
    }

    /// Pins or unpins a pack.
    ///
    /// # Errors
    /// When there is none such, or the holder is gone.
    pub async fn pin(&self, request: &PinRequest) -> Result<PackStatus, CallError> {
        self.ask(Method::POST, "/v1/pin", Some(request)).await
    }

    /// Clears up.
    ///
    /// # Errors
    /// When the index refuses, or the holder is gone.
    pub async fn collect(&self, request: &GcRequest) -> Result<Collected, CallError> {
        self.ask(Method::POST, "/v1/gc", Some(request)).await
    }

    /// Changes limits, and says what they are.
    ///
    /// # Errors
    /// When there is no such pack, or the holder is gone.
    pub async fn limit(&self, request: &LimitRequest) -> Result<Limits, CallError> {
        self.ask(Method::POST, "/v1/limit", Some(request)).await
    }

    /// Pauses, resumes or prioritises packs; gives how they are then.
    ///
    /// # Errors
    /// When there is no such pack, or the holder is gone.
    pub async fn adjust(&self, request: &AdjustRequest) -> Result<Vec<PackStatus>, CallError> {
        self.ask(Method::POST, "/v1/adjust", Some(request)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        read(call(&self.endpoint, method, path, request).await?).await
    }

    async fn events<E: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<mpsc::Receiver<E>, CallError> {
        let response = call(&self.endpoint, Method::POST, path, Some(request)).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = pump(response.into_body(), &sender) => {}
            }
        });
        Ok(receiver)
    }
}

/// Passes the events of `body` on until it ends, the reader is gone, or it makes no sense.
async fn pump<E: DeserializeOwned>(mut body: Incoming, events: &mpsc::Sender<E>) {
    let mut buffer = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if buffer.len() + piece.len() > MAX_LINE_LEN {
                tracing::error!("the holder sent a line that is too long");
                return;
            }
            buffer.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            match serde_json::from_slice(&buffer) {
                Ok(event) => {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                // A newer holder of the same version may know more events.
                Err(error) => tracing::warn!(%error, "the holder sent an event that makes no sense"),
            }
            buffer.clear();
        }
    }
}

async fn call<T: Serialize>(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    request: Option<&T>,
) -> Result<hyper::Response<Incoming>, CallError> {
    let body = match request {
        Some(request) => serde_json::to_vec(request).map_err(|error| {
            Failure::new(
                FailureKind::Usage,
                format!("the request can't be passed on: {error}"),
                "use paths whose names are valid Unicode",
            )
        })?,
        None => Vec::new(),
    };
    let mut head = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(VERSION_HEADER, API_VERSION.to_string());
    if let Some(token) = endpoint.token() {
        head = head.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = head.body(Full::new(Bytes::from(body))).map_err(|_| CallError::Lost)?;
    let stream = endpoint.connect().await.map_err(|_| CallError::Lost)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| CallError::Lost)?;
    // It ends with the response's body, or when that is dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|_| CallError::Lost)
}

async fn read<T: DeserializeOwned>(response: hyper::Response<Incoming>) -> Result<T, CallError> {
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER_LEN)
        .collect()
        .await
        .map_err(|_| CallError::Lost)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| senseless(&error.to_string()))
}

async fn refusal(response: hyper::Response<Incoming>) -> CallError {
    let status = response.status();
    match Limited::new(response.into_body(), MAX_LINE_LEN).collect().await {
        Ok(body) => match serde_json::from_slice::<Failure>(&body.to_bytes()) {
            Ok(failure) => failure.into(),
            Err(_) => senseless(status.as_str()),
        },
        Err(_) => CallError::Lost,
    }
}

fn senseless(detail: &str) -> CallError {
    CallError::Failed(Failure::new(
        FailureKind::Failed,
        format!("the modswarm that is running for this home gave an answer that makes no sense ({detail})"),
        "stop it and start it again with this version; nothing is lost",
    ))
}
