//! A disk in memory that loses what was not synced.
//!
//! Every operation that changes or syncs something has a number. At a chosen one the disk *crashes* (it and everything after it fails) or *fails* once.
//! Every look at something (opening, listing, asking for an identity, reading) has a number of its own, and fails as well.
//! After a crash [`CrashDisk::survivor`] gives the disk as a machine might find it: bytes that were not synced are kept, dropped or torn, names that
//! were not synced are as they were or as they became, each operation for itself, as the seed says. Paths outside are the system's, to be read only.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fmt, io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use modswarm_store::backend::{Backend, BackendDir, BackendFile, Entry, Identity, Onto, SystemBackend};

/// What the disk does at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// The operation of this number and all after it fail.
    CrashAt(u64),
    /// Only the operation of this number fails, in this way.
    FailAt(u64, io::ErrorKind),
    /// Only the look of this number fails.
    FailLook(u64, Glitch),
}

/// How a look fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glitch {
    /// The disk gives an error.
    Error,
    /// A read gives half of what was asked for, as if the file ended there. Other looks give an error.
    Short,
    /// This look and all that follow give errors.
    ErrorsFromNow,
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(BTreeMap<String, u64>),
}

#[derive(Clone, Debug, Default)]
struct FileNode {
    data: Vec<u8>,
    mtime: i64,
    ctime: i64,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// A change of names, not synced yet.
#[derive(Clone, Debug)]
enum NameOp {
    Link {
        dir: u64,
        name: String,
        node: u64,
    },
    Unlink {
        dir: u64,
        name: String,
    },
    Rename {
        from: u64,
        from_name: String,
        to: u64,
        name: String,
        exchange: bool,
    },
}

impl NameOp {
    fn touches(&self, dir: u64) -> bool {
        match self {
            Self::Link { dir: d, .. } | Self::Unlink { dir: d, .. } => *d == dir,
            Self::Rename { from, to, .. } => *from == dir || *to == dir,
        }
    }

    /// Applies it to `dirs`; where it makes no sense, nothing happens.
    fn apply(&self, nodes: &mut HashMap<u64, Node>) {
        let mut dir = |number: u64| match nodes.get_mut(&number) {
            Some(Node::Dir(names)) => Some(std::mem::take(names)),
            _ => None,
        };
        match self {
            Self::Link { dir: d, name, node } => {
                if let Some(mut names) = dir(*d) {
                    names.insert(name.clone(), *node);
                    nodes.insert(*d, Node::Dir(names));
                }
            }
            Self::Unlink { dir: d, name } => {
                if let Some(mut names) = dir(*d) {
                    names.remove(name);
                    nodes.insert(*d, Node::Dir(names));
                }
            }
            Self::Rename {
                from,
                from_name,
                to,
                name,
                exchange,
            } => {
                let Some(mut source) = dir(*from) else { return };
                if from == to {
                    if let Some(node) = source.remove(from_name) {
                        let old = source.insert(name.clone(), node);
                        if let (Some(old), true) = (old, *exchange) {
                            source.insert(from_name.clone(), old);
                        }
                    }
                    nodes.insert(*from, Node::Dir(source));
                    return;
                }
                let Some(mut target) = dir(*to) else {
                    nodes.insert(*from, Node::Dir(source));
                    return;
                };
                if let Some(node) = source.remove(from_name) {
                    let old = target.insert(name.clone(), node);
                    if let (Some(old), true) = (old, *exchange) {
                        source.insert(from_name.clone(), old);
                    }
                }
                nodes.insert(*from, Node::Dir(source));
                nodes.insert(*to, Node::Dir(target));
            }
        }
    }
}

#[derive(Clone)]
struct State {
    /// What lies here; all else is the system's.
    prefixes: Vec<PathBuf>,
    nodes: HashMap<u64, Node>,
    /// The folders as a power cut leaves them for certain.
    synced: HashMap<u64, Node>,
    pending: Vec<NameOp>,
    next: u64,
    clock: i64,
    ops: u64,
    looks: u64,
    trouble: Trouble,
    crashed: bool,
    log: Vec<String>,
}

const ROOT: u64 = 1;

/// The disk. Clones are the same one.
#[derive(Clone)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

impl fmt::Debug for CrashDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashDisk")
    }
}

/// A small generator of its own, so that a seed says all.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

impl CrashDisk {
    /// A disk on which `prefixes` lie, as empty folders.
    pub(crate) fn new(prefixes: &[PathBuf]) -> Self {
        let root = HashMap::from([(ROOT, Node::Dir(BTreeMap::new()))]);
        let disk = Self(Arc::new(Mutex::new(State {
            prefixes: prefixes.to_vec(),
            nodes: root.clone(),
            synced: root,
            pending: Vec::new(),
            next: ROOT + 1,
            clock: 1_700_000_000_000_000_001,
            ops: 0,
            looks: 0,
            trouble: Trouble::None,
            crashed: false,
            log: Vec::new(),
        })));
        for prefix in prefixes {
            disk.create_dirs(prefix).unwrap();
        }
        disk.settle();
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes all durable, and counts operations from 0 on.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        for node in state.nodes.values_mut() {
            if let Node::File(file) = node {
                file.synced = file.data.clone();
                file.pending.clear();
            }
        }
        state.pending.clear();
        state.synced = state
            .nodes
            .iter()
            .filter(|(_, n)| matches!(n, Node::Dir(_)))
            .map(|(i, n)| (*i, n.clone()))
            .collect();
        (state.ops, state.looks) = (0, 0);
    }

    /// Another disk with the same on it.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.lock().trouble = trouble;
    }

    /// Operations so far.
    pub(crate) fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// Looks so far.
    pub(crate) fn looks(&self) -> u64 {
        self.lock().looks
    }

    /// Whether blocks were shared.
    pub(crate) fn has_shared(&self) -> bool {
        self.lock().log.iter().any(|op| op.contains(" share "))
    }

    /// The last operations, for messages.
    pub(crate) fn last(&self) -> String {
        let state = self.lock();
        let last = state.log[state.log.len().saturating_sub(6)..].join("; ");
        format!("{} … {last}", state.log.first().map_or("", String::as_str))
    }

    /// The disk as it is found after a crash.
    pub(crate) fn survivor(&self, seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut state = self.lock().clone();
        // A journal keeps order; other systems do not.
        let prefix = (dice.roll(2) == 0).then(|| dice.roll(state.pending.len() as u64 + 1) as usize);
        let mut dirs = state.synced.clone();
        for (number, node) in &state.nodes {
            if matches!(node, Node::Dir(_)) {
                dirs.entry(*number).or_insert_with(|| Node::Dir(BTreeMap::new()));
            }
        }
        for (at, op) in state.pending.iter().enumerate() {
            if prefix.map_or_else(|| dice.roll(2) == 0, |prefix| at < prefix) {
                op.apply(&mut dirs);
            }
        }
        let mut nodes = dirs;
        let mut files: Vec<_> = state.nodes.iter().collect();
        files.sort_by_key(|(number, _)| **number);
        for (number, node) in files {
            let Node::File(file) = node else { continue };
            let mut data = file.synced.clone();
            for change in &file.pending {
                match (change, dice.roll(3)) {
                    (_, 0) => {}
                    (Change::SetLen(len), _) => data.resize(*len as usize, 0),
                    (Change::Write(at, bytes), torn) => {
                        let len = if torn == 1 {
                            dice.roll(bytes.len() as u64 + 1) as usize
                        } else {
                            bytes.len()
                        };
                        let end = *at as usize + len;
                        if data.len() < end {
                            data.resize(end, 0);
                        }
                        data[*at as usize..end].copy_from_slice(&bytes[..len]);
                    }
                }
            }
            nodes.insert(
                *number,
                Node::File(FileNode {
                    synced: data.clone(),
                    data,
                    pending: Vec::new(),
                    ..*file_times(file)
                }),
            );
        }
        state.nodes = nodes;
        state.pending.clear();
        state.crashed = false;
        state.trouble = Trouble::None;
        state.clock += 1_000_000_000;
        let survivor = Self(Arc::new(Mutex::new(state)));
        survivor.settle();
        survivor
    }

    /// All files below `path` with their bytes, and all folders (`None`).
    pub(crate) fn tree(&self, path: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
        fn walk(state: &State, dir: u64, at: &str, into: &mut BTreeMap<String, Option<Vec<u8>>>) {
            let Some(Node::Dir(names)) = state.nodes.get(&dir) else {
                return;
            };
            for (name, node) in names {
                let path = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}/{name}")
                };
                match &state.nodes[node] {
                    Node::File(file) => {
                        into.insert(path, Some(file.data.clone()));
                    }
                    Node::Dir(_) => {
                        into.insert(path.clone(), None);
                        walk(state, *node, &path, into);
                    }
                }
            }
        }
        let state = self.lock();
        let mut all = BTreeMap::new();
        if let Ok(dir) = state.find(path) {
            walk(&state, dir, "", &mut all);
        }
        all
    }

    /// Replaces what is in the file at `path`, as its owner does.
    pub(crate) fn edit(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.lock();
        state.clock += 1_000_000_000;
        let (number, clock) = (state.find(path).unwrap(), state.clock);
        if let Some(Node::File(file)) = state.nodes.get_mut(&number) {
            file.data = bytes.to_vec();
            file.synced = file.data.clone();
            (file.mtime, file.ctime) = (clock, clock);
        }
    }

    /// Flips a bit of the file at `path`.
    pub(crate) fn flip(&self, path: &Path, bit: u64) {
        let mut state = self.lock();
        let number = state.find(path).unwrap();
        if let Some(Node::File(file)) = state.nodes.get_mut(&number) {
            file.data[(bit / 8) as usize] ^= 1 << (bit % 8);
            file.synced = file.data.clone();
        }
    }

    fn op(&self, what: impl FnOnce() -> String) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.ops += 1;
        state.clock += 25_000_000;
        let text = format!("{} {}", state.ops, what());
        state.log.push(text);
        match state.trouble {
            _ if state.crashed => Err(io::Error::other("the machine is off")),
            Trouble::CrashAt(at) if state.ops >= at => {
                state.crashed = true;
                Err(io::Error::other("the machine is off"))
            }
            Trouble::FailAt(at, kind) if state.ops == at => {
                let text = format!("FAILED {}", state.log[state.log.len() - 1]);
                state.log.insert(0, text);
                Err(kind.into())
            }
            _ => Ok(state),
        }
    }

    /// Counts a look; how it fails, if it does.
    fn look(&self, what: impl FnOnce() -> String) -> Option<Glitch> {
        let mut state = self.lock();
        state.looks += 1;
        let fails = match state.trouble {
            Trouble::FailLook(at, Glitch::ErrorsFromNow) if state.looks >= at => Some(Glitch::ErrorsFromNow),
            Trouble::FailLook(at, glitch) if state.looks == at => Some(glitch),
            _ => None,
        };
        if fails.is_some() && state.log.first().is_none_or(|first| !first.starts_with("FAILED")) {
            let text = format!("FAILED look {} {}", state.looks, what());
            state.log.insert(0, text);
        }
        fails
    }

    /// As [`CrashDisk::look`], for looks that are wholly done or not at all.
    fn look_whole(&self, what: impl FnOnce() -> String) -> io::Result<()> {
        self.look(what).map_or(Ok(()), |_| Err(eio()))
    }

    /// Fills `buf` as `read` does, unless the look fails.
    fn read(&self, buf: &mut [u8], offset: u64, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        let len = buf.len();
        match self.look(|| format!("read {offset} {len}")) {
            None => read(buf),
            Some(Glitch::Short) => {
                read(&mut buf[..len / 2])?;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Some(Glitch::Error | Glitch::ErrorsFromNow) => Err(eio()),
        }
    }

    fn is_mine(&self, path: &Path) -> bool {
        self.lock().prefixes.iter().any(|prefix| path.starts_with(prefix))
    }

    fn must_be_mine(&self, path: &Path) {
        assert!(self.is_mine(path), "{path:?} is the user's and must not be touched");
    }
}

/// The times of a file, for a copy of it.
fn file_times(file: &FileNode) -> Box<FileNode> {
    Box::new(FileNode {
        mtime: file.mtime,
        ctime: file.ctime,
        ..FileNode::default()
    })
}

/// What Linux says of a bad sector.
fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl State {
    fn names(&self, dir: u64) -> io::Result<&BTreeMap<String, u64>> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                at = *self.names(at)?.get(name.to_str().unwrap()).ok_or_else(not_found)?;
            }
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok((self.find(path.parent().unwrap())?, name))
    }

    fn entry(&self, node: u64) -> Entry {
        match &self.nodes[&node] {
            Node::Dir(_) => Entry::Folder,
            Node::File(file) => Entry::File(Identity {
                dev: 77,
                file: node,
                size: file.data.len() as u64,
                mtime: file.mtime,
                ctime: file.ctime,
            }),
        }
    }

    fn names_do(&mut self, op: NameOp) {
        op.apply(&mut self.nodes);
        self.pending.push(op);
    }

    fn make(&mut self, dir: u64, name: &str, node: Node) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.names_do(NameOp::Link {
            dir,
            name: name.to_owned(),
            node: number,
        });
        number
    }

    fn make_file(&mut self, dir: u64, name: &str) -> u64 {
        let (mtime, ctime) = (self.clock, self.clock);
        self.make(
            dir,
            name,
            Node::File(FileNode {
                mtime,
                ctime,
                ..FileNode::default()
            }),
        )
    }

    fn sync_dir(&mut self, dir: u64) {
        // A rename needs what came before it in its other folder.
        let mut dirs = vec![dir];
        loop {
            let more: Vec<u64> = self
                .pending
                .iter()
                .filter(|op| dirs.iter().any(|dir| op.touches(*dir)))
                .flat_map(|op| match op {
                    NameOp::Rename { from, to, .. } => vec![*from, *to],
                    _ => Vec::new(),
                })
                .filter(|dir| !dirs.contains(dir))
                .collect();
            if more.is_empty() {
                break;
            }
            dirs.extend(more);
        }
        let (durable, pending): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|op: &NameOp| dirs.iter().any(|dir| op.touches(*dir)));
        self.pending = pending;
        self.synced.entry(dir).or_insert_with(|| Node::Dir(BTreeMap::new()));
        for op in &durable {
            for number in self
                .nodes
                .iter()
                .filter(|(_, n)| matches!(n, Node::Dir(_)))
                .map(|(i, _)| *i)
                .collect::<Vec<_>>()
            {
                self.synced.entry(number).or_insert_with(|| Node::Dir(BTreeMap::new()));
            }
            op.apply(&mut self.synced);
        }
    }

    fn rename(&mut self, from: u64, from_name: &str, to: u64, name: &str, exchange: bool) -> io::Result<bool> {
        let node = *self.names(from)?.get(from_name).ok_or_else(not_found)?;
        let swapped = exchange && self.names(to)?.contains_key(name);
        let clock = self.clock;
        if let Some(Node::File(file)) = self.nodes.get_mut(&node) {
            file.ctime = clock;
        }
        self.names_do(NameOp::Rename {
            from,
            from_name: from_name.to_owned(),
            to,
            name: name.to_owned(),
            exchange: swapped,
        });
        Ok(swapped)
    }
}

#[derive(Debug)]
struct MemFile {
    disk: CrashDisk,
    node: u64,
}

/// A file of the system's, to be read only.
#[derive(Debug)]
struct Outside {
    disk: CrashDisk,
    file: Box<dyn BackendFile>,
}

impl BackendFile for Outside {
    fn identity(&self) -> io::Result<Identity> {
        self.disk.look_whole(|| "identity outside".to_owned())?;
        self.file.identity()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read(buf, offset, |buf| self.file.read_exact_at(buf, offset))
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        panic!("a file of the user's must not be touched");
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        panic!("a file of the user's must not be touched");
    }

    fn sync(&self) -> io::Result<()> {
        panic!("a file of the user's must not be touched");
    }
}

#[derive(Debug)]
struct MemDir {
    disk: CrashDisk,
    node: u64,
}

impl CrashDisk {
    fn file(&self, node: u64) -> Box<dyn BackendFile> {
        Box::new(MemFile {
            disk: self.clone(),
            node,
        })
    }

    fn dir(&self, node: u64) -> Box<dyn BackendDir> {
        Box::new(MemDir {
            disk: self.clone(),
            node,
        })
    }

    fn open_node(&self, node: u64) -> io::Result<Box<dyn BackendFile>> {
        match self.lock().nodes.get(&node) {
            Some(Node::File(_)) => {}
            _ => return Err(not_found()),
        }
        Ok(self.file(node))
    }
}

impl Backend for CrashDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.look_whole(|| format!("open {path:?}"))?;
        if !self.is_mine(path) {
            let (disk, file) = (self.clone(), SystemBackend.open(path)?);
            return Ok(Box::new(Outside { disk, file }));
        }
        let node = self.lock().find(path)?;
        self.open_node(node)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn BackendFile>> {
        self.must_be_mine(path);
        let mut state = self.op(|| format!("create {path:?}"))?;
        let (dir, name) = state.parent(path)?;
        let node = match state.names(dir)?.get(&name).copied() {
            Some(node) => {
                let clock = state.clock;
                if let Some(Node::File(file)) = state.nodes.get_mut(&node) {
                    file.data.clear();
                    file.pending.push(Change::SetLen(0));
                    (file.mtime, file.ctime) = (clock, clock);
                }
                node
            }
            None => state.make_file(dir, &name),
        };
        drop(state);
        Ok(self.file(node))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn BackendDir>> {
        self.look_whole(|| format!("open {path:?}"))?;
        if !self.is_mine(path) {
            return SystemBackend.open_dir(path);
        }
        let node = {
            let state = self.lock();
            let node = state.find(path)?;
            state.names(node)?;
            node
        };
        Ok(self.dir(node))
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        self.look_whole(|| format!("entry {path:?}"))?;
        if !self.is_mine(path) {
            return SystemBackend.entry(path);
        }
        let state = self.lock();
        Ok(state.entry(state.find(path)?))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, Entry)>> {
        self.look_whole(|| format!("list {path:?}"))?;
        if !self.is_mine(path) {
            return SystemBackend.read_dir(path);
        }
        let state = self.lock();
        let names = state.names(state.find(path)?)?;
        Ok(names
            .iter()
            .map(|(name, node)| (name.into(), state.entry(*node)))
            .collect())
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        self.must_be_mine(path);
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_str().unwrap();
            let there = self.lock().names(at)?.get(name).copied();
            at = match there {
                Some(node) => node,
                None => self
                    .op(|| format!("mkdir {name}"))?
                    .make(at, name, Node::Dir(BTreeMap::new())),
            };
        }
        self.lock().names(at).map(|_| ())
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.must_be_mine(from);
        self.must_be_mine(to);
        let mut state = self.op(|| format!("replace {from:?} {to:?}"))?;
        let ((from, from_name), (to, name)) = (state.parent(from)?, state.parent(to)?);
        state.rename(from, &from_name, to, &name, false).map(|_| ())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.must_be_mine(path);
        let mut state = self.op(|| format!("rm {path:?}"))?;
        let (dir, name) = state.parent(path)?;
        let node = *state.names(dir)?.get(&name).ok_or_else(not_found)?;
        if !matches!(state.nodes[&node], Node::File(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.names_do(NameOp::Unlink { dir, name });
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.must_be_mine(path);
        let mut state = self.op(|| format!("rmdir {path:?}"))?;
        let (dir, name) = state.parent(path)?;
        let node = *state.names(dir)?.get(&name).ok_or_else(not_found)?;
        if !state.names(node)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.names_do(NameOp::Unlink { dir, name });
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.must_be_mine(path);
        for (name, entry) in self.read_dir(path)? {
            let below = path.join(name);
            match entry {
                Entry::Folder => self.remove_tree(&below)?,
                _ => self.remove_file(&below)?,
            }
        }
        self.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if !self.is_mine(path) && !self.lock().prefixes.iter().any(|prefix| prefix.starts_with(path)) {
            return SystemBackend.sync_dir(path);
        }
        let mut state = self.op(|| format!("sync {path:?}"))?;
        let dir = state.find(path)?;
        state.sync_dir(dir);
        Ok(())
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        if !self.is_mine(path) {
            return SystemBackend.resolve(path);
        }
        self.lock().find(path)?;
        Ok(path.to_owned())
    }

    fn free_space(&self, _: &Path) -> Option<u64> {
        None
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        if self.is_mine(path) {
            Ok(77)
        } else {
            SystemBackend.device(path)
        }
    }

    fn now_ns(&self) -> i64 {
        let mut state = self.lock();
        state.clock += 25_000_000;
        state.clock
    }

    fn before_index_commit(&self) -> io::Result<()> {
        self.op(|| "commit".to_owned()).map(|_| ())
    }
}

impl MemFile {
    fn with<T>(&self, state: &mut State, f: impl FnOnce(&mut FileNode, i64) -> T) -> io::Result<T> {
        let clock = state.clock;
        match state.nodes.get_mut(&self.node) {
            Some(Node::File(file)) => Ok(f(file, clock)),
            _ => Err(not_found()),
        }
    }
}

impl BackendFile for MemFile {
    fn identity(&self) -> io::Result<Identity> {
        self.disk.look_whole(|| format!("identity {}", self.node))?;
        match self.disk.lock().entry(self.node) {
            Entry::File(identity) => Ok(identity),
            _ => Err(not_found()),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read(buf, offset, |buf| {
            let mut state = self.disk.lock();
            self.with(&mut state, |file, _| {
                let bytes = file.data.get(offset as usize..offset as usize + buf.len());
                buf.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
                Ok(())
            })?
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let failed = match self.disk.op(|| format!("write {} {offset} {}", self.node, buf.len())) {
            Ok(mut state) => return self.with(&mut state, |file, clock| write(file, clock, buf, offset)),
            Err(e) => e,
        };
        // A write that fails may have written a part.
        let mut state = self.disk.lock();
        self.with(&mut state, |file, clock| {
            write(file, clock, &buf[..buf.len() / 2], offset)
        })?;
        Err(failed)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.op(|| format!("set_len {} {len}", self.node))?;
        self.with(&mut state, |file, clock| {
            file.data.resize(len as usize, 0);
            file.pending.push(Change::SetLen(len));
            (file.mtime, file.ctime) = (clock, clock);
        })
    }

    fn share_range(&self, from: &dyn BackendFile, from_at: u64, at: u64, len: u64) -> io::Result<bool> {
        assert!([from_at, at, len].iter().all(|bytes| bytes % 4096 == 0), "whole blocks");
        let Some(from) = from.as_any().and_then(|from| from.downcast_ref::<Self>()) else {
            return Ok(false);
        };
        let mut state = self.disk.op(|| format!("share {} {at} {len}", self.node))?;
        let range = from_at as usize..(from_at + len) as usize;
        let bytes = from.with(&mut state, |file, _| file.data.get(range).map(<[u8]>::to_vec))?;
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.with(&mut state, |file, clock| {
            assert!((at + len) as usize <= file.data.len(), "within the file");
            write(file, clock, &bytes, at);
        })?;
        Ok(true)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.op(|| format!("fsync {}", self.node))?;
        self.with(&mut state, |file, _| {
            file.synced = file.data.clone();
            file.pending.clear();
        })
    }
}

fn write(file: &mut FileNode, clock: i64, buf: &[u8], offset: u64) {
    let end = offset as usize + buf.len();
    if file.data.len() < end {
        file.data.resize(end, 0);
    }
    file.data[offset as usize..end].copy_from_slice(buf);
    file.pending.push(Change::Write(offset, buf.to_vec()));
    (file.mtime, file.ctime) = (clock, clock);
}

impl MemDir {
    fn child(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.disk.lock().names(self.node)?.get(name).copied())
    }
}

impl BackendDir for MemDir {
    fn folder(&self, name: &str) -> io::Result<Box<dyn BackendDir>> {
        self.disk.look_whole(|| format!("folder {name}"))?;
        let node = self.child(name)?.ok_or_else(not_found)?;
        self.disk.lock().names(node)?;
        Ok(self.disk.dir(node))
    }

    fn make_folder(&self, name: &str) -> io::Result<(Box<dyn BackendDir>, bool)> {
        if self.child(name)?.is_some() {
            return Ok((self.folder(name)?, false));
        }
        let node = self
            .disk
            .op(|| format!("mkdir {name}"))?
            .make(self.node, name, Node::Dir(BTreeMap::new()));
        Ok((self.disk.dir(node), true))
    }

    fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        self.disk.look_whole(|| format!("entry {name}"))?;
        let node = self.child(name)?;
        Ok(node.map(|node| self.disk.lock().entry(node)))
    }

    fn open_file(&self, name: &str) -> io::Result<Box<dyn BackendFile>> {
        self.disk.look_whole(|| format!("open {name}"))?;
        self.disk.open_node(self.child(name)?.ok_or_else(not_found)?)
    }

    fn open_file_rw(&self, name: &str) -> io::Result<Box<dyn BackendFile>> {
        self.open_file(name)
    }

    fn create_file(&self, name: &str) -> io::Result<Box<dyn BackendFile>> {
        if self.child(name)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.disk.op(|| format!("create {name}"))?.make_file(self.node, name);
        Ok(self.disk.file(node))
    }

    fn rename_from(&self, from: &dyn BackendDir, from_name: &str, name: &str, onto: Onto) -> io::Result<bool> {
        let from = from.as_any().downcast_ref::<Self>().unwrap().node;
        let mut state = self.disk.op(|| format!("rename {from_name} {name} {onto:?}"))?;
        if onto == Onto::Nothing && state.names(self.node)?.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.rename(from, from_name, self.node, name, onto == Onto::Exchange)
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.op(|| format!("rm {name}"))?;
        state.names(self.node)?.get(name).ok_or_else(not_found)?;
        state.names_do(NameOp::Unlink {
            dir: self.node,
            name: name.to_owned(),
        });
        Ok(())
    }

    fn sync_files(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            match self.open_file(name) {
                Ok(file) => file.sync()?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn sync_folders(&self, dirs: &[&str]) -> io::Result<()> {
        self.sync()?;
        for path in dirs {
            let mut at = self.node;
            for name in path.split('/') {
                let state = self.disk.lock();
                at = *state.names(at)?.get(name).ok_or_else(not_found)?;
            }
            self.disk.op(|| format!("sync folder {path}"))?.sync_dir(at);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.op(|| format!("sync dir {}", self.node))?.sync_dir(self.node);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
