//! Beginning a download, or going on with one: look, decide, check the room, make the rows.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bitvec::vec::BitVec;
use modswarm_protocol::format::{Content, Manifest, Name, Part, PieceSet, path::case_key};

use super::{
    Conflicts, DownloadSpec, Preview,
    decide::{Decided, Decisions, What, decide, leftover},
    estimate::{Estimate, estimate},
    inspect::inspect,
    known::{Known, look_up, select},
    layout::Layout,
    local,
    moves::{RecoverError, recover_pack},
    place::{Replace, in_the_way},
    put::put_rows,
    staging::{Left, Own},
    state::{Start, State},
};
use crate::{
    backend::Backend,
    error::{BeginError, Blockage, IndexError},
    fs,
    home::{Place, PlaceFile},
    index::rows,
    observer::{Meter, Observer, Warning},
    packs::{Origin, PackId, PackRecord, PackState},
    skeletons,
    store::Inner,
};

pub(crate) fn resume(inner: &Arc<Inner>, id: PackId, observer: &dyn Observer) -> Result<Arc<State>, BeginError> {
    let row = rows::pack(&*inner.index.reader()?, id)?;
    let row = row.filter(|row| row.record.state == PackState::Downloading);
    let row = row.ok_or_else(|| IndexError::Other("there is no such unfinished download".to_owned()))?;
    let name = Name::normalised(&row.record.name).map_err(|e| IndexError::Other(e.to_string()))?;
    let spec = DownloadSpec {
        pack: row.record.pack,
        content: row.record.content,
        name,
        destination: row.record.path.clone(),
        selection: row.selection.as_deref().map(bits),
        conflicts: row.conflicts,
        network: row.record.network,
    };
    begin(inner, &spec, observer)
}

/// All bits of `bytes`; those beyond the number of files are zeros and mean nothing.
fn bits(bytes: &[u8]) -> BitVec {
    rows::bits_from_bytes(Some(bytes), bytes.len() * 8)
        .iter()
        .by_vals()
        .collect()
}

/// What was found and decided before anything is written.
struct Examined {
    content: Arc<Content>,
    manifest: Option<(Manifest, Vec<u8>)>,
    sig: Option<Vec<u8>>,
    known: Known,
    selected: BitVec,
    decisions: Decisions,
    layout: Layout,
    /// By number of place.
    present: BitVec,
    own: Own,
    local: PieceSet,
    estimate: Estimate,
}

fn examine(inner: &Inner, spec: &DownloadSpec, meter: &Meter<'_>) -> Result<Examined, BeginError> {
    let (content, manifest, sig) = load(inner, spec)?;
    // What a dropped download of the same place has written is to be in the rows that are read next.
    let _ = inner.index.writer.flush();
    let destination = resolve(&*inner.backend, &spec.destination)?;
    end_renames(inner, &destination)?;
    super::reconcile::write_down(inner, &destination, Some(&spec.content), meter)?;
    let known = look_up(inner, spec)?;
    let selected = select(inner, spec, &content, &known)?;
    check_names(&content, &selected)?;
    // Nothing is lost with a folder that is empty: it is left out, where a file would have to be left out by the user.
    if selected.all() {
        for path in content.dirs().filter(|path| !fs::can_create(path)) {
            if let Some((_, issue)) = path.portability_issue() {
                meter.warn(Warning::Unportable {
                    path: path.clone(),
                    issue,
                });
            }
        }
    }
    for path in content.skipped() {
        meter.warn(Warning::EntrySkipped(path));
    }
    let profile = manifest.as_ref().and_then(|(m, _)| m.chunker).map(|p| p.to_string());
    let there = inspect(inner, &content, &selected, &known, profile.as_deref(), meter)?;
    let may_move = selected.all() && spec.conflicts != Conflicts::Mend;
    let decisions = decide(inner, spec.conflicts, &content, &known, &selected, there, may_move)?;
    let mut placed = BitVec::<usize>::repeat(false, content.files().len());
    for (number, what) in decisions.files.iter() {
        placed.set(number, !matches!(what, What::Keep | What::Leave));
    }
    let layout = Layout::new(&content, |number| placed[number]);
    let (present, own) = present(inner, &content, &layout, &known, &decisions.files)?;
    let local = local::find(inner, &content, &layout, &present, meter)?;
    let estimate = estimate(&content, &layout, &decisions.files, &present, &local);
    Ok(Examined {
        content,
        manifest,
        sig,
        known,
        selected,
        decisions,
        layout,
        present,
        own,
        local,
        estimate,
    })
}

pub(crate) fn preview(inner: &Inner, spec: &DownloadSpec, observer: &dyn Observer) -> Result<Preview, BeginError> {
    let meter = Meter::new(observer);
    let _together = inner.upkeep.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = examine(inner, spec, &meter)?;
    let content = &found.content;
    let mut preview = Preview {
        conflicts: found.decisions.conflicts.clone(),
        bytes_to_fetch: found.estimate.fetch,
        disk_needed: found.estimate.peak,
        disk_change: found.estimate.change,
        disk_free: inner
            .backend
            .free_space(&inner.backend.existing_ancestor(&found.known.stage)),
        ..Preview::default()
    };
    let mut away = BTreeSet::new();
    for (number, what) in found.decisions.files.iter() {
        let path = content.file(number).path();
        match what {
            What::Known(_) | What::Adopt { .. } | What::Leave => preview.unchanged += 1,
            What::Keep => {}
            What::Stage { replace, held, .. } => match replace {
                // What waits for a file that is renamed takes its name.
                Replace::Nothing if !held => preview.added.push(path),
                _ => preview.changed.push(path),
            },
            What::Move { from, .. } => {
                away.insert(from.clone());
                preview.renamed.push((from, path));
            }
        }
    }
    if found.selected.all() {
        let (removed, kept) = leftover(inner, content, &found.known, &away)?;
        preview.disk_change -= removed.iter().map(|(_, size)| *size as i64).sum::<i64>();
        preview.removed = removed.into_iter().map(|(path, _)| path).collect();
        preview.kept = kept;
    }
    preview.destination = found.known.destination;
    Ok(preview)
}

pub(crate) fn begin(
    inner: &Arc<Inner>,
    spec: &DownloadSpec,
    observer: &dyn Observer,
) -> Result<Arc<State>, BeginError> {
    let meter = Meter::new(observer);
    let _together = inner.upkeep.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = examine(inner, spec, &meter)?;
    if spec.conflicts == Conflicts::Refuse && !found.decisions.conflicts.is_empty() {
        return Err(BeginError::WouldOverwrite {
            destination: found.known.destination,
            files: found.decisions.conflicts,
        });
    }
    check_room(inner, &found)?;
    let Examined {
        content,
        manifest,
        sig,
        known,
        selected,
        decisions,
        layout,
        present,
        own,
        local,
        ..
    } = found;
    let whole_content = selected.all();
    let profile = manifest.as_ref().and_then(|(m, _)| m.chunker).map(|p| p.to_string());
    // What the index says of the record from now on must be true of the files that it names from now on: it may be all that is left of this moment.
    let left = left(&content, &layout, &known, spec.conflicts);
    let have = had(&content, &layout, &present) | &left;

    let make = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| match fs::is_disk_full(&source) {
            true => BeginError::DiskFull {
                path,
                needed: 0,
                free: 0,
            },
            false => BeginError::Io { path, source },
        }
    };
    // It is known before it is made: whatever happens, somebody clears it up.
    let stage = fs::path_bytes(&known.stage).to_owned();
    inner.index.writer.run(move |tx| rows::remember_stage(tx, &stage))?;
    let stage_dir =
        inner
            .backend
            .make_resolved(&known.stage)
            .map_err(|e| match in_the_way(&*inner.backend, &known.stage, &e) {
                Some(blockage) => BeginError::Blocked(vec![blockage]),
                None => make(&known.stage)(e),
            })?;
    let record = PackRecord {
        id: PackId(0),
        pack: spec.pack,
        content: spec.content,
        name: spec.name.as_str().to_owned(),
        network: spec.network,
        path: known.destination.clone(),
        origin: Origin::Fetched,
        state: PackState::Downloading,
        files: selected.count_ones() as u64,
        bytes: selected.iter_ones().map(|number| content.file(number).size()).sum(),
        pieces: content.map().len(),
        pieces_here: have.count_ones() as u32,
        piece_bytes: content.map().bytes(),
        piece_bytes_here: content
            .map()
            .iter()
            .filter(|(piece, _)| have[piece.as_usize()])
            .map(|(_, leaf)| u64::from(leaf.len))
            .sum(),
        partial: !whole_content,
        kept: 0,
        created: crate::packs::now_secs(),
        pinned: false,
        used: crate::packs::now_secs(),
        copied: false,
    };
    if let (Some(pack), Some((_, bytes))) = (&spec.pack, &manifest) {
        let dir = inner.lock.pack_dir(pack);
        // The signature first: with pack.json there, nobody looks for it again.
        for (name, bytes) in [("pack.sig", sig.as_deref()), ("pack.json", Some(bytes.as_slice()))] {
            if let Some(bytes) = bytes {
                let plain = dir.join(name);
                crate::home::write_plain(&*inner.backend, &plain, bytes).map_err(make(&plain))?;
            }
        }
    }
    skeletons::keep_known(inner, spec.pack.as_ref(), &content).map_err(make(inner.lock.home()))?;
    let selection: Option<Vec<u8>> = (!whole_content).then(|| {
        let set = selected.iter().by_vals().collect();
        rows::bits_to_bytes(&set)
    });
    let kept = decisions.files.iter().filter(|(_, what)| matches!(what, What::Keep));
    let kept = kept.map(|(number, _)| number as u32).collect();
    let (id, slots) = put_rows(
        inner,
        spec,
        &content,
        &known,
        &record,
        selection,
        rows::bits_to_bytes(&have),
        decisions.files,
        profile,
    )?;
    let place = PlaceFile::new(id, &record, Place::Downloading);
    inner
        .lock
        .write_place(&*inner.backend, &place)
        .map_err(make(inner.lock.home()))?;

    let state = Arc::new(State::new(
        inner,
        Start {
            id,
            content,
            destination: known.destination,
            stage: known.stage,
            stage_dir,
            own,
            whole_content,
            policy: spec.conflicts,
            kept,
            layout,
            slots,
            present,
            local,
            left,
        },
    ));
    inner.register_download(id, &state);
    state.tell()?;
    Ok(state)
}

/// The content, pack.json parsed and as it stands, and pack.sig if it is not in the home yet.
type Loaded = (Arc<Content>, Option<(Manifest, Vec<u8>)>, Option<Vec<u8>>);

/// The content, and pack.json where the nodes of the pack are here.
fn load(inner: &Inner, spec: &DownloadSpec) -> Result<Loaded, BeginError> {
    let mut sig = None;
    let manifest = match &spec.pack {
        Some(pack) => match inner.lock.read_manifest(&*inner.backend, pack) {
            Some(manifest) => Some(manifest),
            None => inner.pack_head(pack)?.map(|head| {
                sig = head.sig.map(|(_, bytes)| bytes.to_vec());
                (head.manifest, head.manifest_bytes.to_vec())
            }),
        },
        None => None,
    };
    let content = inner
        .content_named(&spec.content, Some(&spec.name))?
        .ok_or(BeginError::UnknownContent(spec.content))?;
    Ok((content, manifest, sig))
}

/// `path` without symlinks and `..`, as far as it exists.
pub(super) fn resolve(backend: &dyn Backend, path: &Path) -> Result<PathBuf, BeginError> {
    let io = |source| BeginError::Io {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(io)?;
    let existing = backend.existing_ancestor(&absolute);
    let rest = absolute.strip_prefix(&existing).unwrap_or(Path::new(""));
    if rest.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err(io(io::ErrorKind::InvalidInput.into()));
    }
    let existing = backend.resolve(&existing).map_err(io)?;
    // Joining nothing would add a separator.
    Ok(if rest.as_os_str().is_empty() {
        existing
    } else {
        existing.join(rest)
    })
}

/// Ends an update that was cut off and could not be ended when the store was opened.
fn end_renames(inner: &Inner, destination: &Path) -> Result<(), BeginError> {
    let at_place = rows::packs_at(&*inner.index.reader()?, fs::path_bytes(destination))?;
    for row in at_place {
        if inner.open_download(row.record.id).is_none() {
            recover_pack(inner, row.record.id).map_err(|e| match e {
                RecoverError::Io { path, source } => BeginError::Io { path, source },
                RecoverError::Index(e) => e.into(),
            })?;
        }
    }
    Ok(())
}

fn check_names(content: &Content, selected: &BitVec) -> Result<(), BeginError> {
    let mut blocked = Vec::new();
    let mut folded: HashMap<String, usize> = HashMap::new();
    for number in selected.iter_ones() {
        let path = content.file(number).path();
        if let Some(issue) = path.names().find_map(fs::name_issue) {
            blocked.push(Blockage::Name(path.clone(), issue));
        }
        if fs::CASE_FOLDS
            && let Some(other) = folded.insert(case_key(path.as_str()), number)
        {
            blocked.push(Blockage::CaseTwins(content.file(other).path(), path));
        }
    }
    if blocked.is_empty() {
        Ok(())
    } else {
        Err(BeginError::Blocked(blocked))
    }
}

/// Which places are filled: all of files that are there, if only under another name, and those of staged files whose pieces are committed.
fn present(
    inner: &Inner,
    content: &Content,
    layout: &Layout,
    known: &Known,
    decided: &Decided,
) -> Result<(BitVec, Own), IndexError> {
    let mut present = BitVec::repeat(false, layout.len());
    for (number, what) in decided.iter() {
        match what {
            What::Known(_) | What::Adopt { .. } | What::Move { .. } => {
                let file = content.file(number);
                let parts = file.part_numbers().zip(file.parts());
                for (place, _) in parts.filter(|(_, part)| matches!(part, Part::Piece(_))) {
                    present.set(place as usize, true);
                }
            }
            What::Stage { .. } | What::Keep | What::Leave => {}
        }
    }
    let Some(record) = &known.record else {
        return Ok((present, Own::default()));
    };
    let committed = rows::bits_from_bytes(record.have.as_deref(), content.map().len() as usize);
    let conn = &*inner.index.reader()?;
    let mut own = Own::default();
    let Ok(dir) = inner.backend.open_resolved(&known.stage) else {
        return Ok((present, own));
    };
    let mut files = known.files(conn);
    for (number, what) in decided.iter() {
        let What::Stage { row: Some(_), .. } = what else {
            continue;
        };
        let Some(row) = files.get(number as u32)? else { continue };
        let Some(left) = Left::find(&*dir, number as u32, row, content.file(number).size()) else {
            continue;
        };
        // A crash may have come after the two files had changed places and before that was written down.
        let at_place = known.at_place(conn, &content.file(number).path())?;
        if !at_place.is_some_and(|there| left.is(&there.identity)) {
            own.take_over(&left, (content, layout), &committed, &mut present);
        }
    }
    own.mark((content, layout), &committed, &mut present);
    Ok((present, own))
}

/// The pieces that the index has, of which no file is put anywhere: those of files that stay as they are while the rest is mended.
fn left(content: &Content, layout: &Layout, known: &Known, conflicts: Conflicts) -> PieceSet {
    let record = known.record.as_ref().filter(|_| conflicts == Conflicts::Mend);
    let Some(record) = record else {
        return content.map().none();
    };
    let mut left = rows::bits_from_bytes(record.have.as_deref(), content.map().len() as usize);
    for (piece, _) in content.map().iter() {
        if layout.places(piece).next().is_some() {
            left.set(piece.as_usize(), false);
        }
    }
    left
}

/// The pieces that are in all their places.
pub(super) fn had(content: &Content, layout: &Layout, present: &BitVec) -> PieceSet {
    let mut have = content.map().none();
    for (piece, _) in content.map().iter() {
        let mut places = layout.places(piece).peekable();
        let all = places.peek().is_some() && places.all(|place| present[place.number as usize]);
        have.set(piece.as_usize(), all);
    }
    have
}

/// Refuses what does not fit. Bytes of staged files that take room already are not needed again.
fn check_room(inner: &Inner, found: &Examined) -> Result<(), BeginError> {
    let needed = found.estimate.peak;
    let path = inner.backend.existing_ancestor(&found.known.stage);
    match inner.backend.free_space(&path) {
        Some(free) if free < needed => Err(BeginError::DiskFull {
            path: found.known.destination.clone(),
            needed,
            free,
        }),
        _ => Ok(inner.room.admit(&*inner.backend, &path, needed)?),
    }
}
