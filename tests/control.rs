//! The control socket: one process holds the home, others ask it, and one of them takes over when it ends.

#![allow(clippy::unwrap_used)] // Helpers are not marked as tests, and a panic is how they fail.

mod fake;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fake::{Fake, info, unsupported};
use modswarm::{
    api::{ForgiveRequest, GetEvent, GetRequest, RemoveRequest, ShareEvent, ShareRequest},
    control::{API_VERSION, CallError, Client, Endpoint, Holder, Joined, MAX_REQUEST_LEN, Transport, join},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn transports() -> Vec<Transport> {
    vec![
        #[cfg(unix)]
        Transport::Unix,
        Transport::Tcp,
    ]
}

async fn enter(home: &std::path::Path, transport: Transport) -> Joined<Fake> {
    let joined = join(home, Some(transport), async |lock| Ok((Fake::new(lock), info())), || {});
    tokio::time::timeout(PATIENCE, joined)
        .await
        .expect("in time")
        .expect("the home is usable")
}

async fn pair(home: &std::path::Path, transport: Transport) -> (Holder<Fake>, Client) {
    let Joined::Holder(holder) = enter(home, transport).await else {
        panic!("the home was free")
    };
    let Joined::Client(client) = enter(home, transport).await else {
        panic!("the home was held")
    };
    (holder, client)
}

fn get(target: &str) -> GetRequest {
    GetRequest {
        target: target.to_owned(),
        output: "/mods".into(),
        seed: true,
        ..GetRequest::default()
    }
}

#[tokio::test]
async fn the_second_process_asks_the_first() {
    for transport in transports() {
        let home = tempfile::tempdir().unwrap();
        let (holder, client) = pair(home.path(), transport).await;
        assert_eq!(client.holder(), &info());
        assert_eq!(client.status().await.unwrap().peers, 4);
        assert_eq!(client.known_peers().await.unwrap()[0].banned_until, Some(7));
        let everyone = ForgiveRequest::default();
        assert_eq!(client.forgive(&everyone).await.unwrap().peers, 1);
        let one = ForgiveRequest {
            peer_id: Some("liar".to_owned()),
        };
        let refused = client.forgive(&one).await;
        assert!(matches!(refused, Err(CallError::Failed(failure)) if failure == unsupported()));
        assert!(client.peers().await.unwrap().is_empty());
        let error = client.info("x".to_owned()).await.unwrap_err();
        assert!(matches!(error, CallError::Failed(failure) if failure == unsupported()));
        let request = RemoveRequest {
            target: "x".to_owned(),
            data: true,
        };
        client.remove(&request).await.unwrap_err();
        assert!(holder.backend().removed.lock().unwrap()[0].data);
        let mut events = client
            .share(&ShareRequest {
                path: "/a b/ü".into(),
                ..ShareRequest::default()
            })
            .await
            .unwrap();
        let Some(ShareEvent::Ready(shared)) = events.recv().await else {
            panic!("not shared")
        };
        assert_eq!(shared.link, "/a b/ü");
        holder.close().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_job() {
    for transport in transports() {
        let home = tempfile::tempdir().unwrap();
        let (holder, client) = pair(home.path(), transport).await;
        let mut cancelled = holder.backend().cancelled.subscribe();
        let mut events = client.get(&get("slow")).await.unwrap();
        assert!(matches!(events.recv().await, Some(GetEvent::Progress { .. })));
        assert_eq!(*cancelled.borrow_and_update(), 0);
        drop(events);
        tokio::time::timeout(PATIENCE, cancelled.changed())
            .await
            .expect("cancelled in time")
            .unwrap();
        holder.close().await;
    }
}

#[tokio::test]
async fn after_its_last_event_a_stream_lives_as_long_as_the_holder_seeds() {
    let home = tempfile::tempdir().unwrap();
    let (holder, client) = pair(home.path(), Transport::default()).await;
    let mut seeding = client.get(&get("fast")).await.unwrap();
    let mut ending = client
        .get(&GetRequest {
            seed: false,
            ..get("fast")
        })
        .await
        .unwrap();
    for events in [&mut seeding, &mut ending] {
        assert!(matches!(events.recv().await, Some(GetEvent::Progress { .. })));
        assert!(matches!(events.recv().await, Some(GetEvent::Plan { .. })));
        assert!(matches!(events.recv().await, Some(GetEvent::Complete(_))));
    }
    assert!(
        tokio::time::timeout(PATIENCE, ending.recv())
            .await
            .expect("it ends")
            .is_none()
    );
    assert!(
        seeding
            .try_recv()
            .is_err_and(|error| error == mpsc::error::TryRecvError::Empty)
    );
    holder.close().await;
    assert!(
        tokio::time::timeout(PATIENCE, seeding.recv())
            .await
            .expect("it ends")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_clients_one_takes_over_and_the_others_follow_it() {
    const CLIENTS: usize = 8;
    let home = tempfile::tempdir().unwrap();
    let Joined::Holder(first) = enter(home.path(), Transport::default()).await else {
        panic!("the home was free")
    };
    let holders = Arc::new(AtomicUsize::new(0));
    let (following, mut followers) = mpsc::channel(CLIENTS * CLIENTS);
    let mut tasks = Vec::new();
    for number in 0..CLIENTS {
        let path = home.path().to_owned();
        let (holders, following) = (Arc::clone(&holders), following.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                match enter(&path, Transport::default()).await {
                    Joined::Holder(holder) => {
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two processes hold one home");
                        following.send(number).await.unwrap();
                        // Long enough for others to try meanwhile; nothing below depends on it.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        holders.fetch_sub(1, Ordering::SeqCst);
                        holder.close().await;
                        return;
                    }
                    Joined::Client(client) => {
                        let Ok(mut events) = client.get(&get("slow")).await else {
                            continue;
                        };
                        while events.recv().await.is_some() {}
                    }
                }
            }
        }));
    }
    first.close().await;
    for task in tasks {
        tokio::time::timeout(PATIENCE, task)
            .await
            .expect("everyone has had its turn")
            .unwrap();
    }
    let mut seen = HashSet::new();
    while let Ok(number) = followers.try_recv() {
        assert!(seen.insert(number));
    }
    assert_eq!(seen.len(), CLIENTS);
}

/// Sends raw bytes to the holder and gives what it answers.
async fn raw(endpoint: &Endpoint, request: &[u8]) -> String {
    let mut answer = String::new();
    let exchange = async {
        match endpoint {
            #[cfg(unix)]
            Endpoint::Unix(path) => {
                let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
                // The holder may close before it has read all.
                let _ = stream.write_all(request).await;
                let _ = stream.read_to_string(&mut answer).await;
            }
            Endpoint::Tcp { addr, .. } => {
                let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                let _ = stream.write_all(request).await;
                let _ = stream.read_to_string(&mut answer).await;
            }
            #[cfg(not(unix))]
            Endpoint::Unix(_) => unreachable!(),
        }
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time");
    answer
}

#[tokio::test]
async fn without_the_token_a_port_answers_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (holder, _client) = pair(home.path(), Transport::Tcp).await;
    let endpoint = Endpoint::read(home.path()).unwrap().unwrap();
    let Endpoint::Tcp { token, .. } = &endpoint else {
        panic!("not a port")
    };
    let call = |authorization: &str| {
        format!("GET /v1/holder HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n{authorization}\r\n")
            .into_bytes()
    };
    for authorization in [
        "",
        "authorization: Bearer \r\n",
        &format!("authorization: Bearer {}x\r\n", &token[1..]),
    ] {
        let answer = raw(&endpoint, &call(authorization)).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(!answer.contains("pid"), "{answer}");
    }
    let answer = raw(&endpoint, &call(&format!("authorization: Bearer {token}\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    holder.close().await;
}

#[tokio::test]
async fn what_is_no_proper_request_is_answered_with_a_failure() {
    let home = tempfile::tempdir().unwrap();
    let (holder, client) = pair(home.path(), Transport::default()).await;
    let endpoint = Endpoint::read(home.path()).unwrap().unwrap();
    let token = match &endpoint {
        Endpoint::Unix(_) => String::new(),
        Endpoint::Tcp { token, .. } => format!("authorization: Bearer {token}\r\n"),
    };
    let post = |version: &str, path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}modswarm-api: {version}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let current = API_VERSION.to_string();
    let long = format!("{{\"target\":\"{}\"}}", "x".repeat(MAX_REQUEST_LEN));
    for (request, status) in [
        (post(&current, "/v1/get", "{"), "400"),
        (post(&current, "/v1/get", "{}"), "422"),
        (post(&current, "/v1/info", &long), "413"),
        (post("999", "/v1/info", "{\"target\":\"x\"}"), "412"),
        (post("", "/v1/info", "{\"target\":\"x\"}"), "412"),
        (post(&current, "/v1/nonsense", "{}"), "404"),
    ] {
        let answer = raw(&endpoint, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains("\"kind\":\"usage\""), "{answer}");
    }
    client.status().await.unwrap();
    holder.close().await;
}

#[tokio::test]
async fn a_home_without_transport_serves_nobody_and_is_free_afterwards() {
    let home = tempfile::tempdir().unwrap();
    let joined = join(home.path(), None, async |lock| Ok((Fake::new(lock), info())), || {})
        .await
        .unwrap();
    let Joined::Holder(holder) = joined else {
        panic!("the home was free")
    };
    assert!(matches!(Client::connect(home.path()).await, Err(CallError::Lost)));
    holder.close().await;
    assert!(matches!(
        enter(home.path(), Transport::default()).await,
        Joined::Holder(_)
    ));
}
