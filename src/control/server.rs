//! The holder's end of the control API.

use std::{convert::Infallible, io, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::{Stream, stream};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Backend,
    endpoint::{Listener, Transport},
    protocol::{API_VERSION, HolderInfo, InfoRequest, MAX_CONNECTIONS, MAX_REQUEST_LEN, VERSION_HEADER},
};
use crate::api::{
    AdjustRequest, DiffRequest, Failure, FailureKind, ForgiveRequest, GcRequest, GetEvent, GetRequest, LimitRequest,
    ListRequest, MoveRequest, PinRequest, RemoveRequest, ShareEvent, ShareRequest, VerifyEvent, VerifyRequest,
};

/// How long a connection may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long [`Server::stop`] waits for answers that are being written.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// A running control server.
#[derive(Debug)]
pub(super) struct Server {
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    connections: TaskTracker,
}

#[derive(Clone)]
struct App<B> {
    backend: B,
    info: Arc<HolderInfo>,
    token: Option<Arc<str>>,
    stop: CancellationToken,
}

impl Server {
    /// Serves `backend` in `home`, whose lock the caller has.
    ///
    /// # Errors
    /// When there is no place to listen.
    pub(super) async fn start<B: Backend>(
        backend: B,
        info: HolderInfo,
        home: &Path,
        transport: Transport,
    ) -> io::Result<Self> {
        let listener = Listener::bind(home, transport).await?;
        let token = listener.endpoint().token().map(Arc::from);
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let router = router(App {
            backend,
            info: Arc::new(info),
            token,
            stop: stop.clone(),
        });
        let accepting = tokio::spawn(accept(listener, router, connections.clone(), stop.clone()));
        Ok(Self {
            stop,
            accepting,
            connections,
        })
    }

    /// Ends all streams without their last event (which tells clients to look for another holder), and removes the socket. To
    /// be called before the backend is shut down.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // It ends at the cancellation; a panic in it has left nothing to clean up.
        let _ = self.accepting.await;
        self.connections.close();
        let _ = tokio::time::timeout(STOP_WITHIN, self.connections.wait()).await;
    }
}

async fn accept(listener: Listener, router: Router, connections: TaskTracker, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (stream, permit) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: one that is closed makes room.
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let stop = stop.clone();
        connections.spawn(async move {
            let _permit = permit;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a control connection ended");
            }
        });
    }
}

fn router<B: Backend>(app: App<B>) -> Router {
    Router::new()
        .route("/v1/holder", get(holder::<B>))
        .route("/v1/share", post(share::<B>))
        .route("/v1/get", post(fetch::<B>))
        .route("/v1/ls", post(list::<B>))
        .route("/v1/diff", post(diff::<B>))
        .route("/v1/status", get(status::<B>))
        .route("/v1/peers", get(peers::<B>))
        .route("/v1/peers/known", get(known_peers::<B>))
        .route("/v1/peers/forgive", post(forgive::<B>))
        .route("/v1/info", post(info::<B>))
        .route("/v1/rm", post(remove::<B>))
        .route("/v1/verify", post(verify::<B>))
        .route("/v1/move", post(relocate::<B>))
        .route("/v1/pin", post(pin::<B>))
        .route("/v1/gc", post(collect::<B>))
        .route("/v1/limit", post(limit::<B>))
        .route("/v1/adjust", post(adjust::<B>))
        .fallback(async || {
            Refused(
                StatusCode::NOT_FOUND,
                Failure::new(
                    FailureKind::Usage,
                    "the holder knows no such call",
                    "use the same version of modswarm for both",
                ),
            )
        })
        .layer(middleware::from_fn_with_state(app.clone(), admit::<B>))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_LEN))
        .with_state(app)
}

/// Lets in who has the token and speaks this version. `GET /v1/holder` answers any version, so that clients can say what differs.
async fn admit<B: Backend>(State(app): State<App<B>>, request: Request, next: Next) -> Response {
    if let Some(token) = &app.token
        && !carries(request.headers(), token)
    {
        let failure = Failure::new(
            FailureKind::Failed,
            "the token is missing or wrong",
            "read it from control.json in the home",
        );
        return Refused(StatusCode::UNAUTHORIZED, failure).into_response();
    }
    let version = request
        .headers()
        .get(VERSION_HEADER)
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if version != Some(API_VERSION) && request.uri().path() != "/v1/holder" {
        let failure = Failure::new(
            FailureKind::Usage,
            format!("the modswarm that holds the home speaks version {API_VERSION} of the control API"),
            format!("send it in the header {VERSION_HEADER}, or use the same version of modswarm for both"),
        );
        return Refused(StatusCode::PRECONDITION_FAILED, failure).into_response();
    }
    next.run(request).await
}

/// Whether the headers carry `token`, in a time that does not tell how much of it was right.
fn carries(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    given.len() == token.len()
        && given
            .iter()
            .zip(token.as_bytes())
            .fold(0, |differs, (a, b)| differs | (a ^ b))
            == 0
}

async fn holder<B: Backend>(State(app): State<App<B>>) -> Json<HolderInfo> {
    Json(HolderInfo::clone(&app.info))
}

async fn share<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<ShareRequest>) -> Response {
    let events = app.backend.share(request);
    stream_response(lines(events, app.stop, |event| match event {
        ShareEvent::Progress { .. } | ShareEvent::Warning { .. } => After::More,
        ShareEvent::Ready(_) => After::Seeding,
        ShareEvent::Failed(_) => After::End,
    }))
}

async fn fetch<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<GetRequest>) -> Response {
    let seed = request.seed;
    let events = app.backend.get(request);
    stream_response(lines(events, app.stop, move |event| match event {
        GetEvent::Plan { .. } | GetEvent::Progress { .. } | GetEvent::Warning { .. } | GetEvent::Conflicts { .. } => {
            After::More
        }
        GetEvent::Complete(_) if seed => After::Seeding,
        GetEvent::Complete(_) | GetEvent::Failed(_) => After::End,
    }))
}

async fn list<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<ListRequest>) -> Response {
    answer(app.backend.list(request).await)
}

async fn diff<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<DiffRequest>) -> Response {
    answer(app.backend.diff(request).await)
}

async fn status<B: Backend>(State(app): State<App<B>>) -> Response {
    answer(app.backend.status().await)
}

async fn peers<B: Backend>(State(app): State<App<B>>) -> Response {
    answer(app.backend.peers().await)
}

async fn known_peers<B: Backend>(State(app): State<App<B>>) -> Response {
    answer(app.backend.known_peers().await)
}

async fn forgive<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<ForgiveRequest>) -> Response {
    answer(app.backend.forgive(request).await)
}

async fn info<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<InfoRequest>) -> Response {
    answer(app.backend.info(request.target).await)
}

async fn remove<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<RemoveRequest>) -> Response {
    answer(app.backend.remove(request).await)
}

async fn verify<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<VerifyRequest>) -> Response {
    let events = app.backend.verify(request);
    stream_response(lines(events, app.stop, |event| match event {
        VerifyEvent::Progress { .. } | VerifyEvent::Warning { .. } | VerifyEvent::Pack(_) => After::More,
        VerifyEvent::Complete | VerifyEvent::Failed(_) => After::End,
    }))
}

async fn relocate<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<MoveRequest>) -> Response {
    answer(app.backend.relocate(request).await)
}

async fn pin<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<PinRequest>) -> Response {
    answer(app.backend.pin(request).await)
}

async fn collect<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<GcRequest>) -> Response {
    answer(app.backend.collect(request).await)
}

async fn limit<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<LimitRequest>) -> Response {
    answer(app.backend.limit(request).await)
}

async fn adjust<B: Backend>(State(app): State<App<B>>, Asked(request): Asked<AdjustRequest>) -> Response {
    answer(app.backend.adjust(request).await)
}

/// What follows an event.
#[derive(Clone, Copy)]
enum After {
    More,
    Seeding,
    End,
}

enum Lines<E> {
    Running(mpsc::Receiver<E>),
    Seeding,
    Ended,
}

/// The events as lines of JSON. Dropping it drops the receiver, which cancels the job if it is not done.
fn lines<E: Serialize + Send>(
    events: mpsc::Receiver<E>,
    stop: CancellationToken,
    after: impl Fn(&E) -> After + Send + Clone,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold(Lines::Running(events), move |state| {
        let (stop, after) = (stop.clone(), after.clone());
        async move {
            match state {
                Lines::Running(mut events) => {
                    let event = tokio::select! {
                        biased;
                        () = stop.cancelled() => return None,
                        event = events.recv() => event?,
                    };
                    let mut line =
                        serde_json::to_vec(&event).expect("our own types have string keys and no failing serializer");
                    line.push(b'\n');
                    let next = match after(&event) {
                        After::More => Lines::Running(events),
                        After::Seeding => Lines::Seeding,
                        After::End => Lines::Ended,
                    };
                    Some((Ok(Bytes::from(line)), next))
                }
                Lines::Seeding => {
                    stop.cancelled().await;
                    None
                }
                Lines::Ended => None,
            }
        }
    })
}

fn stream_response(lines: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

fn answer<T: Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(failure) => {
            let status = match failure.kind {
                FailureKind::Usage => StatusCode::BAD_REQUEST,
                FailureKind::NotFound => StatusCode::NOT_FOUND,
                FailureKind::WouldOverwrite => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Refused(status, failure).into_response()
        }
    }
}

struct Refused(StatusCode, Failure);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// A request's body as JSON; a wrong one is answered with a [`Failure`], as everything is.
struct Asked<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refused(
                rejection.status(),
                Failure::new(
                    FailureKind::Usage,
                    format!("the request can't be read: {}", rejection.body_text()),
                    "use the same version of modswarm for both",
                ),
            )),
        }
    }
}
