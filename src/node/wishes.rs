//! What the user wants of packs, kept in the home: pauses, priorities, limits.
//!
//! It belongs to the content: packs with the same files are one swarm.

use std::{collections::HashSet, sync::Arc};

use modswarm_protocol::Cid;
use modswarm_store::{PackRecord, Store};
use tokio::sync::oneshot;

use super::{
    Inner,
    actor::{Command, Wish},
    index_failure, jobs,
    packs::{self, blocking},
};
use crate::api::{AdjustRequest, Failure, FailureKind, Limit, LimitRequest, Limits, PackLimits, PackStatus};

fn key(content: &Cid) -> String {
    format!("wish/{content}")
}

/// What the user wants of a content.
pub(super) fn of(store: &Store, content: &Cid) -> Result<Wish, Failure> {
    let text = store.setting(&key(content)).map_err(index_failure)?;
    // What another version wrote and this one does not know is no reason to stop.
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

/// Tells the actor all that is wanted, before it serves anything.
pub(super) async fn tell_all(node: &Arc<Inner>, records: &[PackRecord]) -> Result<(), Failure> {
    let contents: HashSet<Cid> = records.iter().map(|record| record.content).collect();
    let wishes = blocking(node, move |store| {
        let mut wishes = Vec::new();
        for content in contents {
            let wish = of(store, &content)?;
            if wish != Wish::default() {
                wishes.push((content, wish));
            }
        }
        Ok(wishes)
    })
    .await?;
    for (content, wish) in wishes {
        node.send(Command::Wish { content, wish }).await?;
    }
    Ok(())
}

/// Changes what is wanted of contents: keeps it, then does it.
async fn change(
    node: &Arc<Inner>,
    contents: HashSet<Cid>,
    change: impl Fn(&mut Wish) + Send + 'static,
) -> Result<(), Failure> {
    let changed = blocking(node, move |store| {
        let mut changed = Vec::new();
        for content in contents {
            let mut wish = of(store, &content)?;
            change(&mut wish);
            keep(store, &content, wish)?;
            changed.push((content, wish));
        }
        Ok(changed)
    })
    .await?;
    for (content, wish) in changed {
        node.send(Command::Wish { content, wish }).await?;
    }
    Ok(())
}

fn keep(store: &Store, content: &Cid, wish: Wish) -> Result<(), Failure> {
    if wish == Wish::default() {
        return store.remove_setting(&key(content)).map_err(index_failure);
    }
    let text = serde_json::to_string(&wish).expect("our own types have string keys and no failing serializer");
    store.set_setting(&key(content), &text).map_err(index_failure)
}

/// Forgets what was wanted of a content that is here no longer.
pub(super) async fn forget(node: &Arc<Inner>, content: Cid) -> Result<(), Failure> {
    change(node, HashSet::from([content]), |wish| *wish = Wish::default()).await
}

pub(super) async fn limit(node: &Arc<Inner>, request: LimitRequest) -> Result<Limits, Failure> {
    let asked = match request.target.as_deref() {
        None => Vec::new(),
        target => packs::targets(node, target).await?,
    };
    let of_pack = request.target.is_some();
    if of_pack && request.upload == Some(Limit::Auto) {
        return Err(Failure::new(
            FailureKind::Usage,
            "`auto` is for all uploads together",
            "leave the pack out: `modswarm limit --up auto`",
        ));
    }
    if request.download == Some(Limit::Auto) {
        return Err(Failure::new(
            FailureKind::Usage,
            "`auto` is for uploads",
            "give downloads a rate such as 5MB/s, or none",
        ));
    }
    let (upload, download) = (request.upload, request.download);
    if of_pack && (upload.is_some() || download.is_some()) {
        let contents = asked.iter().map(|record| record.content).collect();
        change(node, contents, move |wish| {
            if let Some(upload) = upload {
                wish.upload = upload.bytes_per_second();
            }
            if let Some(download) = download {
                wish.download = download.bytes_per_second();
            }
        })
        .await?;
    }
    let (reply, answer) = oneshot::channel();
    node.send(Command::Limit {
        upload: upload.filter(|_| !of_pack),
        download: download.filter(|_| !of_pack),
        reply,
    })
    .await?;
    let mut limits = answer.await.map_err(|_| jobs::node_ended())?;
    let shown: Vec<PackRecord> = if of_pack {
        asked
    } else {
        blocking(node, |store| store.packs().map_err(index_failure)).await?
    };
    limits.packs = blocking(node, move |store| {
        let mut packs = Vec::new();
        for record in shown {
            let wish = of(store, &record.content)?;
            if of_pack || wish.upload.is_some() || wish.download.is_some() {
                packs.push(PackLimits {
                    name: record.name,
                    content: record.content,
                    path: record.path,
                    upload: Limit::of(wish.upload),
                    download: Limit::of(wish.download),
                });
            }
        }
        Ok(packs)
    })
    .await?;
    Ok(limits)
}

pub(super) async fn adjust(node: &Arc<Inner>, request: AdjustRequest) -> Result<Vec<PackStatus>, Failure> {
    let records = packs::targets(node, request.target.as_deref()).await?;
    let contents: HashSet<Cid> = records.iter().map(|record| record.content).collect();
    let (paused, priority) = (request.paused, request.priority);
    change(node, contents.clone(), move |wish| {
        wish.paused = paused.unwrap_or(wish.paused);
        wish.priority = priority.unwrap_or(wish.priority);
    })
    .await?;
    let ids: HashSet<_> = records.iter().map(|record| record.id).collect();
    packs::statuses(node, |record| ids.contains(&record.id)).await
}
