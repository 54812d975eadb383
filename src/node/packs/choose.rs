//! Which pack of the home a user means.

use std::sync::Arc;

use modswarm_protocol::{Cid, format::Target};
use modswarm_store::{PackRecord, PackState as Kept};

use super::status::records;
use crate::{
    api::{Failure, FailureKind},
    node::Inner,
};

/// A record, with what is wrong with it.
pub(super) type Entry = (PackRecord, Option<String>);

/// What a target means.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) current: &'a Entry,
    /// Former versions in the same folder, if the target meant the folder and not one version.
    pub(super) older: Vec<&'a PackRecord>,
}

/// The records that `target` means; all if it is none.
pub(in crate::node) async fn targets(node: &Arc<Inner>, target: Option<&str>) -> Result<Vec<PackRecord>, Failure> {
    let packs = records(node).await?;
    Ok(match target {
        Some(target) => vec![choose(&packs, target)?.current.0.clone()],
        None => packs.into_iter().map(|(record, _)| record).collect(),
    })
}

/// The one pack that `target` (a link, CID, name or path) means.
pub(super) fn choose<'a>(packs: &'a [Entry], target: &str) -> Result<Chosen<'a>, Failure> {
    let cids: Vec<Cid> = Target::parse(target)
        .map(|target| [Some(target.root), target.content])
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    let path = dunce::canonicalize(target).ok();
    let matches: Vec<&Entry> = packs
        .iter()
        .filter(|(record, _)| {
            cids.contains(&record.content)
                || record.pack.is_some_and(|pack| cids.contains(&pack))
                || record.name == target
                || path.as_ref() == Some(&record.path)
        })
        .collect();
    // A pack CID says more than the content that it shares with others.
    let exact: Vec<&Entry> = matches
        .iter()
        .filter(|(record, _)| record.pack.is_some_and(|pack| cids.contains(&pack)))
        .copied()
        .collect();
    let matches = if exact.len() == 1 { exact } else { matches };
    let superseded = |entry: &&&Entry| entry.0.state == Kept::Superseded;
    let current: Vec<&Entry> = matches.iter().filter(|entry| !superseded(entry)).copied().collect();
    match (current.as_slice(), matches.as_slice()) {
        ([current], _) => Ok(Chosen {
            current,
            older: if cids.is_empty() {
                let there = packs.iter().map(|(record, _)| record);
                there
                    .filter(|record| record.state == Kept::Superseded && record.path == current.0.path)
                    .collect()
            } else {
                Vec::new()
            },
        }),
        ([], [current]) => Ok(Chosen {
            current,
            older: Vec::new(),
        }),
        (_, []) => Err(Failure::new(
            FailureKind::Failed,
            format!("there is no pack {target:?} in this home"),
            "`modswarm status` lists the packs of this home",
        )),
        ([], several) | (several, _) => {
            let places: Vec<String> = several
                .iter()
                .map(|(r, _)| format!("\n  {}  {}", r.pack.unwrap_or(r.content), r.path.display()))
                .collect();
            Err(Failure::new(
                FailureKind::Failed,
                format!("{target:?} means several packs:{}", places.concat()),
                "name one by its CID or its path",
            ))
        }
    }
}
