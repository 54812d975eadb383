//! The program as a client of a process that holds its home: what it prints, and how it ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // Helpers are not marked as tests, and a panic is how they fail.

mod fake;

use std::{process::Stdio, time::Duration};

use fake::{Fake, cid, info};
use modswarm::control::{Holder, HolderInfo, Joined, Transport, join};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Home {
    dir: TempDir,
    holder: Holder<Fake>,
}

impl Home {
    async fn held_by(info: HolderInfo) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let joined = join(
            dir.path(),
            Some(Transport::Unix),
            async |lock| Ok((Fake::new(lock), info)),
            || {},
        )
        .await;
        let Ok(Joined::Holder(holder)) = joined else {
            panic!("a new home is free")
        };
        Self { dir, holder }
    }

    async fn new() -> Self {
        Self::held_by(info()).await
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modswarm"));
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("MODSWARM_") {
                command.env_remove(key);
            }
        }
        let mut child = command
            .env("MODSWARM_HOME", self.dir.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("a line in time").unwrap().expect("a line before the end")
    }

    async fn event(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    /// Waits for its end: the exit code, the rest of standard output, and standard error.
    async fn end(mut self) -> (i32, Vec<String>, String) {
        let mut rest = Vec::new();
        let mut error = String::new();
        let ended = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                rest.push(line);
            }
            let mut stderr = self.child.stderr.take().unwrap();
            stderr.read_to_string(&mut error).await.unwrap();
            self.child.wait().await.unwrap().code()
        };
        let code = tokio::time::timeout(PATIENCE, ended).await.expect("an end in time");
        (code.expect("it was not killed by the signal"), rest, error)
    }
}

fn link(behaviour: &str) -> String {
    format!("modswarm:{}?n={behaviour}", cid())
}

#[tokio::test]
async fn share_prints_one_line_of_json_and_seeds_until_a_signal() {
    for signal in ["-INT", "-TERM"] {
        let home = Home::new().await;
        let folder = tempfile::tempdir().unwrap();
        let mut share = home.start(&["share", folder.path().to_str().unwrap(), "--json"]);
        let shared = share.event().await;
        let keys: Vec<&String> = shared.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "addrs", "blocks", "bytes", "content", "files", "link", "pack", "peer_id"
            ]
        );
        assert_eq!(shared["link"], json!(folder.path()));
        share.signal(signal).await;
        let (code, rest, error) = share.end().await;
        assert_eq!((code, rest), (0, Vec::new()), "{error}");
    }
}

#[tokio::test]
async fn get_prints_events_and_ends_without_seeding_if_told() {
    let home = Home::new().await;
    let mut get = home.start(&["get", &link("fast"), "-o", "/mods", "--json", "--no-seed"]);
    let mut last = Value::Null;
    while last["event"] != "complete" {
        last = get.event().await;
    }
    assert_eq!(
        last,
        json!({
            "event": "complete", "pack": cid(), "content": cid(), "path": "/mods/a mod", "files": 1, "bytes": 5, "seconds": 0.5,
            "bytes_fetched": 5, "bytes_reused": 0, "bytes_skeleton": 7, "bytes_wasted": 0,
            "renamed": [], "removed": [], "kept": [], "set_aside": [],
            "peers": [{"peer_id": "you", "addr": "/ip4/127.0.0.1/tcp/1", "bytes": 5}],
        })
    );
    let (code, rest, error) = get.end().await;
    assert_eq!((code, rest), (0, Vec::new()), "{error}");
}

#[tokio::test]
async fn seeding_ended_by_a_signal_is_a_success() {
    let home = Home::new().await;
    let mut get = home.start(&["get", &link("fast"), "-o", "/mods"]);
    assert_eq!(get.line().await, "/mods/a mod");
    get.signal("-INT").await;
    let (code, _, error) = get.end().await;
    assert_eq!(code, 0, "{error}");
}

#[tokio::test]
async fn a_get_that_is_stopped_says_whether_something_is_kept() {
    for (behaviour, last_event, code) in [("begun", "plan", 7), ("nobody", "progress", 130)] {
        let home = Home::new().await;
        let mut cancelled = home.holder.backend().cancelled.subscribe();
        let mut get = home.start(&["get", &link(behaviour), "--json"]);
        while get.event().await["event"] != last_event {}
        get.signal("-INT").await;
        let (ended, rest, error) = get.end().await;
        assert_eq!(ended, code, "{error}");
        let failed: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(failed["event"], "failed");
        assert!(error.contains("stopped:"), "{error}");
        tokio::time::timeout(PATIENCE, cancelled.changed())
            .await
            .expect("cancelled in time")
            .unwrap();
    }
}

#[tokio::test]
async fn a_failure_of_the_holder_has_its_exit_code_and_help() {
    let home = Home::new().await;
    let (code, rest, error) = home.start(&["get", &link("taken")]).end().await;
    assert_eq!((code, rest), (13, Vec::new()));
    assert!(
        error.contains("error: 1 file is in the way") && error.contains("help: add --overwrite"),
        "{error}"
    );
    let (code, ..) = home.start(&["ls", &link("x"), "--timeout", "1"]).end().await;
    assert_eq!(code, 3);
}

#[tokio::test]
async fn another_network_than_the_holders_is_refused_and_other_limits_warn() {
    let home = Home::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, rest, error) = home.start(&["share", path, "--network", "public"]).end().await;
    assert_eq!((code, rest), (2, Vec::new()));
    assert!(error.contains("network lan") && error.contains("help:"), "{error}");
    let (code, _, error) = home
        .start(&[
            "get",
            &link("fast"),
            "--network",
            "lan",
            "--download-limit",
            "9MB/s",
            "--no-seed",
        ])
        .end()
        .await;
    assert_eq!(code, 0);
    assert!(error.contains("--download-limit has no effect"), "{error}");
}

#[tokio::test]
async fn a_holder_of_another_version_is_named() {
    let home = Home::held_by(HolderInfo {
        api: 999,
        version: "9.9.9".to_owned(),
        ..info()
    })
    .await;
    let (code, _, error) = home.start(&["status"]).end().await;
    assert_eq!(code, 1);
    assert!(error.contains("9.9.9") && error.contains("help:"), "{error}");
}

#[tokio::test]
async fn uploads_are_announced_once_in_the_life_of_a_home() {
    let home = Home::new().await;
    let says = async |args: &[&str]| home.start(args).end().await.2.contains("this machine uploads");
    let get = link("fast");
    assert!(!says(&["status"]).await);
    assert!(!says(&["get", &get, "--no-seed", "--quiet"]).await);
    assert!(says(&["get", &get, "--no-seed", "--json"]).await);
    assert!(!says(&["get", &get, "--no-seed"]).await);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new().await;
    let Running { mut child, lines } = home.start(&["status"]);
    drop(lines);
    let ended = tokio::time::timeout(PATIENCE, child.wait());
    assert_eq!(ended.await.expect("an end in time").unwrap().code(), Some(0));
}
