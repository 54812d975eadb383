//! Two contents compared, with neither looked for on the disk: what an update from one to the other is, if the first is installed unchanged.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bitvec::vec::BitVec;
use modswarm_protocol::{
    Cid,
    format::{Content, PackPath},
};

use super::{
    Preview,
    decide::{Decided, What, case_of},
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
        .iter()
        .map(|file| (case_of(file.path.as_str()), (file.cid, file.size)))
        .collect();
    let at = |path: &PackPath| by_path.get(&case_of(path.as_str()));
    let mut preview = Preview::default();
    // Files of the old one that the new one does not have there.
    let mut spare: HashMap<Cid, BTreeMap<PackPath, u64>> = HashMap::new();
    for file in old.files() {
        let stays = new.file(&file.path).is_some_and(|new| new.cid == file.cid);
        if !stays {
            spare.entry(file.cid).or_default().insert(file.path.clone(), file.size);
        }
    }
    let mut open: Vec<usize> = Vec::new();
    for (number, file) in new.files().iter().enumerate() {
        match at(&file.path) {
            Some((cid, _)) if *cid == file.cid => preview.unchanged += 1,
            _ => open.push(number),
        }
    }
    // As it is decided for what is installed: the same name elsewhere first.
    for same_name in [true, false] {
        open.retain(|number| {
            let file = &new.files()[*number];
            let candidates = match spare.get_mut(&file.cid) {
                Some(candidates) if file.size > 0 => candidates,
                _ => return true,
            };
            let found = candidates
                .keys()
                .find(|from| !same_name || from.file_name() == file.path.file_name())
                .cloned();
            match found {
                Some(from) => {
                    candidates.remove(&from);
                    preview.renamed.push((from, file.path.clone()));
                    false
                }
                None => true,
            }
        });
    }
    let mut staged = Vec::with_capacity(open.len());
    for number in open {
        let path = &new.files()[number].path;
        let away = preview.renamed.iter().any(|(from, _)| from == path);
        let replace = match at(path) {
            Some((_, size)) => {
                preview.changed.push(path.clone());
                match away {
                    true => Replace::Nothing,
                    false => Replace::Theirs { row: None, size: *size },
                }
            }
            None => {
                preview.added.push(path.clone());
                Replace::Nothing
            }
        };
        let what = What::Stage {
            replace,
            row: None,
            held: false,
        };
        staged.push(Decided { number, what });
    }
    let own = super::decide::own_paths(new);
    let mut gone = 0;
    for file in old
        .files()
        .iter()
        .filter(|file| !own.contains(&case_of(file.path.as_str())))
    {
        if preview.renamed.iter().all(|(from, _)| *from != file.path) {
            gone += file.size;
            preview.removed.push(file.path.clone());
        }
    }
    // A file that takes the name of one that does not move away lets that go.
    for (_, to) in &preview.renamed {
        if let Some((_, size)) = at(to)
            && preview.renamed.iter().all(|(from, _)| from != to)
        {
            gone += size;
        }
    }
    let mut is_staged = BitVec::<usize>::repeat(false, new.files().len());
    for file in &staged {
        is_staged.set(file.number, true);
    }
    let layout = Layout::new(new, |number| is_staged[number]);
    let nothing = BitVec::repeat(false, layout.len());
    let local = local::find(inner, new, &layout, &nothing, &meter)?;
    let of_staged = estimate(new, &layout, &staged, &nothing, &local);
    // What is to be fetched is asked of all of it: the old one may not be here.
    let all = Layout::new(new, |_| true);
    let nothing = BitVec::repeat(false, all.len());
    let here = local::find(inner, new, &all, &nothing, &meter)?;
    preview.bytes_to_fetch = estimate(new, &all, &[], &nothing, &here).fetch;
    preview.disk_needed = of_staged.peak;
    preview.disk_change = of_staged.change - gone as i64;
    preview.renamed.sort_unstable();
    preview.removed.sort_unstable();
    Ok(preview)
}
