//! Two contents compared, with neither looked for on the disk: what an update from one to the other is, if the first is installed unchanged.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, PackPath},
};

use super::{
    Preview,
    decide::{Decided, OwnPaths, What, case_of},
    estimate::estimate,
    layout::Layout,
    local,
    place::Replace,
};
use crate::{
    error::BeginError,
    observer::{Meter, Observer},
    store::Inner,
};

pub(crate) fn compare(
    inner: &Inner,
    old: &Content,
    new: &Arc<Content>,
    observer: &dyn Observer,
) -> Result<Preview, BeginError> {
    let meter = Meter::new(observer);
    let by_path: HashMap<String, (Cid, u64)> = old
        .files()
        .map(|file| (case_of(file.path().as_str()), (file.cid(), file.size())))
        .collect();
    let new_paths: HashMap<PackPath, Cid> = new.files().map(|file| (file.path(), file.cid())).collect();
    let at = |path: &PackPath| by_path.get(&case_of(path.as_str()));
    let mut preview = Preview::default();
    // Files of the old one that the new one does not have there.
    let mut spare: HashMap<Cid, BTreeMap<PackPath, u64>> = HashMap::new();
    for file in old.files() {
        let path = file.path();
        if new_paths.get(&path) != Some(&file.cid()) {
            spare.entry(file.cid()).or_default().insert(path, file.size());
        }
    }
    let mut open: Vec<usize> = Vec::new();
    for (number, file) in new.files().enumerate() {
        match at(&file.path()) {
            Some((cid, _)) if *cid == file.cid() => preview.unchanged += 1,
            _ => open.push(number),
        }
    }
    // As it is decided for what is installed: the same name elsewhere first.
    for same_name in [true, false] {
        open.retain(|number| {
            let file = new.file(*number);
            let candidates = match spare.get_mut(&file.cid()) {
                Some(candidates) if file.size() > 0 => candidates,
                _ => return true,
            };
            let found = candidates
                .keys()
                .find(|from| !same_name || from.file_name() == file.name())
                .cloned();
            match found {
                Some(from) => {
                    candidates.remove(&from);
                    preview.renamed.push((from, file.path()));
                    false
                }
                None => true,
            }
        });
    }
    let moved: HashSet<PackPath> = preview.renamed.iter().map(|(from, _)| from.clone()).collect();
    let mut to_stage = BitVec::repeat(false, new.files().len());
    open.iter().for_each(|number| to_stage.set(*number, true));
    let mut staged = Decided::to_stage(to_stage.clone());
    for number in open {
        let path = new.file(number).path();
        let away = moved.contains(&path);
        let replace = match at(&path) {
            Some((_, size)) => {
                preview.changed.push(path);
                match away {
                    true => Replace::Nothing,
                    false => Replace::Theirs { row: None, size: *size },
                }
            }
            None => {
                preview.added.push(path);
                Replace::Nothing
            }
        };
        let what = What::Stage {
            replace,
            row: None,
            held: false,
        };
        staged.set(number, what);
    }
    let own = OwnPaths::new(new);
    let mut gone = 0;
    for file in old.files() {
        let path = file.path();
        if !own.contains(path.as_str()) && !moved.contains(&path) {
            gone += file.size();
            preview.removed.push(path);
        }
    }
    // A file that takes the name of one that does not move away lets that go.
    for (_, to) in &preview.renamed {
        if let Some((_, size)) = at(to)
            && !moved.contains(to)
        {
            gone += size;
        }
    }
    let layout = Layout::new(new, |number| to_stage[number]);
    let nothing = BitVec::repeat(false, layout.len());
    let local = local::find(inner, new, &layout, &nothing, &meter)?;
    let of_staged = estimate(new, &layout, &staged, &nothing, &local);
    // What is to be fetched is asked of all of it: the old one may not be here.
    let all = Layout::new(new, |_| true);
    let nothing = BitVec::repeat(false, all.len());
    let here = local::find(inner, new, &all, &nothing, &meter)?;
    let none = Decided::to_stage(BitVec::repeat(false, new.files().len()));
    preview.bytes_to_fetch = estimate(new, &all, &none, &nothing, &here).fetch;
    preview.disk_needed = of_staged.peak;
    preview.disk_change = of_staged.change - gone as i64;
    preview.renamed.sort_unstable();
    preview.removed.sort_unstable();
    Ok(preview)
}
