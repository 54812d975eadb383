use modswarm::{api::*, control::*};
use modswarm_protocol::{Cid, Codec, HashKind};
use modswarm_store::HomeLock;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
#[derive(Clone)]
struct Fake(Arc<HomeLock>);
fn cid() -> Cid {
    Cid::of(Codec::Raw, HashKind::Blake3, b"a mod")
}
fn link() -> String {
    format!(
        "modswarm:{}?c={}&n=My%20Pack&a=%2Fip4%2F192.168.1.7%2Ftcp%2F4001%2Fp2p%2F12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
        cid(),
        cid()
    )
}
fn pack(name: &str, state: PackState, here: u64) -> PackStatus {
    PackStatus {
        pack: Some(cid()),
        content: cid(),
        name: name.into(),
        network: NetworkKind::Lan,
        state,
        path: "/home/me/mods/My Pack".into(),
        files: 42,
        bytes: 2_300_000_000,
        bytes_here: here,
        blocks: 30000,
        blocks_here: 30000,
        bytes_uploaded: 12_000_000,
        peers: 2,
        problem: (state == PackState::Damaged).then(|| "3 files are gone; share the folder again".into()),
        link: link(),
    }
}
impl Backend for Fake {
    fn share(&self, r: ShareRequest) -> mpsc::Receiver<ShareEvent> {
        let (tx, rx) = mpsc::channel(4);
        tokio::spawn(async move {
            for i in 0..20u64 {
                let stage = if i < 3 { Stage::Scanning } else { Stage::Hashing };
                let _ = tx
                    .send(ShareEvent::Progress {
                        stage,
                        bytes_done: i * 50_000_000,
                        bytes_total: if i < 3 { 0 } else { 1_000_000_000 },
                        files_done: i,
                        files_total: 20,
                    })
                    .await;
                if i == 5 {
                    let _ = tx
                        .send(ShareEvent::Warning {
                            message: "`a\x1b[31m` is a symlink and is left out".into(),
                        })
                        .await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let _ = r;
            let _ = tx
                .send(ShareEvent::Ready(Shared {
                    pack: cid(),
                    content: cid(),
                    link: link(),
                    files: 20,
                    bytes: 1_000_000_000,
                    blocks: 13_000,
                    peer_id: "12D3".into(),
                    addrs: vec!["/ip4/192.168.1.7/tcp/4001/p2p/12D3".into()],
                }))
                .await;
        });
        rx
    }
    fn get(&self, r: GetRequest) -> mpsc::Receiver<GetEvent> {
        let (tx, rx) = mpsc::channel(4);
        tokio::spawn(async move {
            let p = |stage, done, total, rate, peers| GetEvent::Progress {
                stage,
                bytes_done: done,
                bytes_total: total,
                rate,
                eta: if rate > 0 { Some((total - done) / rate) } else { None },
                peers,
            };
            let looking = if r.target == "nobody" { 200 } else { 10 };
            for _ in 0..looking {
                if tx.send(p(Stage::LookingForPeers, 0, 0, 0, 0)).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            for _ in 0..5 {
                let _ = tx.send(p(Stage::Connecting, 0, 0, 0, 0)).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            for _ in 0..5 {
                let _ = tx.send(p(Stage::FetchingSkeleton, 0, 0, 0, 1)).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            if r.target == "overwrite" {
                let _ = tx
                    .send(GetEvent::Failed(Failure::new(
                        FailureKind::WouldOverwrite,
                        "14 files that differ are in the way:\n  a.pak\n  b.pak\n  … and 12 more",
                        "add --overwrite to replace them, or choose another folder with -o",
                    )))
                    .await;
                return;
            }
            let _ = tx
                .send(GetEvent::Plan {
                    pack: Some(cid()),
                    content: cid(),
                    name: "My Pack".into(),
                    path: r.output.join("My Pack"),
                    files: 42,
                    bytes: 2_300_000_000,
                    bytes_here: 300_000_000,
                    disk_free: Some(120_000_000_000),
                })
                .await;
            for i in 0..60u64 {
                let done = 300_000_000 + i * 33_000_000;
                let stall = (20..50).contains(&i);
                let done = if stall { 300_000_000 + 20 * 33_000_000 } else { done };
                if tx
                    .send(p(
                        if stall && i > 45 {
                            Stage::Waiting
                        } else {
                            Stage::Downloading
                        },
                        done,
                        2_300_000_000,
                        if stall { 0 } else { 165_000_000 },
                        3,
                    ))
                    .await
                    .is_err()
                {
                    eprintln!("cancelled");
                    return;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            let _ = tx
                .send(GetEvent::Complete(Complete {
                    pack: Some(cid()),
                    content: cid(),
                    path: r.output.join("My Pack"),
                    files: 42,
                    bytes: 2_300_000_000,
                    seconds: 17.2,
                    bytes_fetched: 2_000_000_000,
                    bytes_reused: 300_000_000,
                    bytes_skeleton: 100_000,
                    peers: vec![PeerShare {
                        peer_id: "12D3".into(),
                        addr: "/ip4/1.2.3.4/tcp/1".into(),
                        bytes: 2_000_000_000,
                    }],
                }))
                .await;
        });
        rx
    }
    async fn list(&self, _: ListRequest) -> Result<Listing, Failure> {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(Listing {
            pack: Some(cid()),
            content: cid(),
            name: Some("My Pack".into()),
            manifest: None,
            blocks: 3,
            files: vec![
                ListedFile {
                    path: "Skin v1.2_9999999_P.pak".into(),
                    size: 45_000_000,
                    cid: cid(),
                },
                ListedFile {
                    path: "evil\x1b[2J\u{202e}gpj.exe".into(),
                    size: 0,
                    cid: cid(),
                },
            ],
            empty_dirs: vec!["empty".into()],
        })
    }
    async fn status(&self) -> Result<Status, Failure> {
        Ok(Status {
            peer_id: Some("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".into()),
            addrs: vec!["/ip4/192.168.1.7/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".into()],
            network: NetworkKind::Lan,
            upload_rate: 1_200_000,
            download_rate: 0,
            upload_limit: Some(5_000_000),
            download_limit: None,
            peers: 2,
            packs: vec![
                pack("My Pack", PackState::Seeding, 2_300_000_000),
                pack("Other", PackState::Downloading, 1_000_000_000),
                pack("Broken", PackState::Damaged, 5),
            ],
        })
    }
    async fn peers(&self) -> Result<Vec<PeerStatus>, Failure> {
        Ok(vec![PeerStatus {
            peer_id: "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".into(),
            addr: "/ip4/1.2.3.4/tcp/4001".into(),
            transport: "tcp".into(),
            agent: Some("modswarm/0.1.0".into()),
            rtt_ms: Some(23),
            bytes_received: 1_000_000,
            bytes_sent: 5_000_000,
            download_rate: 0,
            upload_rate: 1_200_000,
            contents: vec![cid()],
        }])
    }
    async fn info(&self, t: String) -> Result<PackStatus, Failure> {
        if t == "no" {
            return Err(Failure::new(
                FailureKind::Failed,
                "there is no pack `no` here",
                "`modswarm status` lists them",
            ));
        }
        Ok(pack("Broken", PackState::Damaged, 5))
    }
    async fn remove(&self, r: RemoveRequest) -> Result<Removed, Failure> {
        Ok(Removed {
            name: r.target,
            content: cid(),
            path: "/mods/x".into(),
            data_deleted: r.data,
        })
    }
    async fn shutdown(&self) {}
}
#[tokio::main]
async fn main() {
    let home: std::path::PathBuf = std::env::args().nth(1).unwrap().into();
    let joined = join(
        &home,
        Some(Transport::default()),
        async |lock| {
            Ok((
                Fake(Arc::new(lock)),
                HolderInfo {
                    api: 1,
                    version: "fake".into(),
                    pid: std::process::id(),
                    network: NetworkKind::Lan,
                    listen: vec![],
                    bootstrap: vec![],
                    upload_limit: Some(5_000_000),
                    download_limit: None,
                },
            ))
        },
        || {},
    )
    .await
    .unwrap();
    let Joined::Holder(holder) = joined else { panic!() };
    println!("holding {}", std::process::id());
    tokio::signal::ctrl_c().await.unwrap();
    holder.close().await;
}
