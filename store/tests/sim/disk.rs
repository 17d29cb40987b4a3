//! A disk that forgets: what was not synced before a crash is lost, torn at sectors, or kept,
//! in any subset. Folder operations likewise, until their folder is synced.
//!
//! ```text
//! write ──▶ pending ──sync──▶ durable          create, rename, remove ──▶ pending
//!              │                                       │ sync_folder ──▶ durable
//!            crash: each sector by itself            crash: any subset, in order
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use skiff_store::wal::disk::{Disk, DiskFile, Lock};
use skiff_store::wal::frame::{self, Parsed};

use super::bugs::Bug;
use super::random::{Digest, Random};

const SECTOR: usize = 512;

#[derive(Default)]
struct Node {
    /// As a reader sees it.
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Writes within this need no more space.
    reserved: u64,
}

type NodeId = usize;

#[derive(Clone)]
enum FolderOp {
    Link(PathBuf, NodeId),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, NodeId),
}

impl FolderOp {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, ..) => path.parent(),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, NodeId>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path, node);
            }
            Self::Unlink(path) => {
                names.remove(&path);
            }
            Self::Rename(from, to, node) => {
                names.remove(&from);
                names.insert(to, node);
            }
        }
    }
}

/// What a member's machine does with its disk.
#[derive(Default)]
pub struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, NodeId>,
    durable_names: BTreeMap<PathBuf, NodeId>,
    pending_names: Vec<FolderOp>,
    folders: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    pub full: bool,
    /// The machine dies at the end of so many operations from now.
    pub crash_in: Option<u64>,
    /// It has died; nothing happens any more.
    pub dead: bool,
    pub operations: u64,
    pub bug: Option<Bug>,
    pub trace: Digest,
    /// Which process uses it; one before has no say any more.
    life: u64,
}

impl State {
    /// Counts an operation that changes something, and says whether it is the last one.
    fn operation(&mut self, life: u64, name: &str, detail: u64) -> io::Result<bool> {
        if self.dead || life != self.life {
            return Err(io::Error::other("the machine is dead"));
        }
        self.operations += 1;
        self.trace.add(name.as_bytes());
        self.trace.number(detail);
        if let Some(left) = &mut self.crash_in {
            *left -= 1;
            self.dead = *left == 0;
        }
        Ok(self.dead)
    }

    fn end(&self, last: bool) -> io::Result<()> {
        if last { Err(io::Error::other("the machine died here")) } else { Ok(()) }
    }

    fn no_space() -> io::Error {
        io::Error::from(io::ErrorKind::StorageFull)
    }

    fn node(&mut self, path: &Path) -> io::Result<NodeId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn record(&mut self, op: FolderOp) {
        op.clone().apply(&mut self.names);
        self.pending_names.push(op);
    }

    fn sync_node(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        node.durable.resize(node.content.len(), 0);
        for (at, bytes) in node.pending.drain(..) {
            node.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    fn within(&self, folder: &Path) -> Vec<(PathBuf, NodeId)> {
        let within = self.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        within.map(|(path, node)| (path.clone(), *node)).collect()
    }

    /// A folder with what is in it goes, or goes elsewhere; at once and for good.
    fn move_folder(&mut self, from: &Path, to: Option<&Path>) {
        self.folders.remove(from);
        self.pending_names.retain(|op| op.folder() != Some(from));
        let files = self.within(from);
        self.durable_names.retain(|path, _| path.parent() != Some(from));
        for (path, node) in files {
            self.names.remove(&path);
            if let (Some(to), Some(name)) = (to, path.file_name()) {
                self.names.insert(to.join(name), node);
                self.durable_names.insert(to.join(name), node);
            }
        }
        self.folders.extend(to.map(Path::to_owned));
    }

    /// The files of a folder and what is in them.
    pub fn copy(&self, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let content = |(path, node): (PathBuf, NodeId)| (path, self.nodes[node].content.clone());
        self.within(folder).into_iter().map(content).collect()
    }

    /// Somebody else puts other files in a folder's place.
    pub fn replace(&mut self, folder: &Path, files: Vec<(PathBuf, Vec<u8>)>) {
        self.move_folder(folder, None);
        self.folders.insert(folder.to_owned());
        for (path, content) in files {
            let durable = content.clone();
            self.names.insert(path.clone(), self.nodes.len());
            self.durable_names.insert(path, self.nodes.len());
            self.nodes.push(Node { content, durable, ..Node::default() });
        }
    }

    /// What a real disk would have after the power came back.
    pub fn crash(&mut self, random: &mut Random) {
        let keep = *random.pick(&[0, 30, 50, 90, 100]);
        for op in std::mem::take(&mut self.pending_names) {
            if random.percent(keep) {
                op.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        for node in &mut self.nodes {
            for (at, bytes) in std::mem::take(&mut node.pending) {
                tear(&mut node.durable, at, &bytes, keep, random);
            }
            if node.durable.len() < node.content.len() && random.percent(keep) {
                node.durable.resize(node.content.len(), 0);
            }
            node.content = node.durable.clone();
        }
        self.locked.clear();
        self.dead = false;
        self.crash_in = None;
    }

    /// A process that is killed takes nothing along: the machine still has it all.
    pub fn process_died(&mut self) {
        self.locked.clear();
        self.dead = false;
        self.crash_in = None;
    }
}

/// Applies some of the sectors that a write touches.
fn tear(durable: &mut Vec<u8>, at: usize, bytes: &[u8], keep: u64, random: &mut Random) {
    let mut from = at;
    while from < at + bytes.len() {
        let to = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
        if random.percent(keep) {
            if durable.len() < to {
                durable.resize(to, 0);
            }
            durable[from..to].copy_from_slice(&bytes[from - at..to - at]);
        }
        from = to;
    }
}

#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    life: u64,
}

impl SimDisk {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the simulation has one thread")
    }

    /// The disk as the next process sees it.
    pub fn next_life(&self) -> Self {
        let mut state = self.state();
        state.life += 1;
        Self { state: self.state.clone(), life: state.life }
    }

    fn life(&self) -> u64 {
        self.life
    }
}

struct SimFile {
    disk: SimDisk,
    node: NodeId,
    /// In the folder of the log.
    log: bool,
    snapshot: bool,
}

impl SimFile {
    fn life(&self) -> u64 {
        self.disk.life
    }
}

/// Whether all that is not synced yet is votes, without entries.
fn only_votes(pending: &[(usize, Vec<u8>)]) -> bool {
    let vote = |bytes: &Vec<u8>| match frame::parse(&bytes.clone().into()) {
        Parsed::Frame(frame) => {
            frame.items.iter().all(|(item, _)| matches!(item, frame::Item::State(_)))
        }
        _ => false,
    };
    pending.iter().all(|(_, bytes)| vote(bytes))
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let content = &state.nodes[self.node].content;
        let from = (offset as usize).min(content.len());
        let to = (from + buffer.len()).min(content.len());
        buffer[..to - from].copy_from_slice(&content[from..to]);
        Ok(to - from)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let end = offset as usize + bytes.len();
        if state.full && end as u64 > state.nodes[self.node].reserved {
            return Err(State::no_space());
        }
        let last =
            state.operation(self.life(), "write", offset ^ u64::from(crc32fast::hash(bytes)))?;
        let node = &mut state.nodes[self.node];
        if node.content.len() < end {
            node.content.resize(end, 0);
        }
        node.content[offset as usize..end].copy_from_slice(bytes);
        node.pending.push((offset as usize, bytes.to_vec()));
        state.end(last)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let last = state.operation(self.life(), "sync", self.node as u64)?;
        let lies = match state.bug {
            Some(Bug::SyncLies) => self.log,
            Some(Bug::VoteNotSynced) => only_votes(&state.nodes[self.node].pending),
            Some(Bug::PurgeBeforeSnapshotSync) => self.snapshot,
            _ => false,
        };
        // Dying in the middle of a sync, it may have got to the medium or not.
        if !last && !lies {
            state.sync_node(self.node);
        }
        state.end(last)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().nodes[self.node].content.len() as u64)
    }
}

impl SimDisk {
    fn file(&self, node: NodeId, path: &Path) -> Arc<dyn DiskFile> {
        let within = |name: &str| path.parent().is_some_and(|folder| folder.ends_with(name));
        let (log, snapshot) = (within("log"), within("snapshots"));
        Arc::new(SimFile { disk: self.clone(), node, log, snapshot })
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, reserve: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.full {
            return Err(State::no_space());
        }
        let last = state.operation(self.life(), "create", reserve)?;
        let id = state.nodes.len();
        let content = vec![0; reserve as usize];
        state.nodes.push(Node { content, reserved: reserve, ..Node::default() });
        state.record(FolderOp::Link(path.to_owned(), id));
        state.end(last)?;
        drop(state);
        Ok(self.file(id, path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.state().node(path)?;
        Ok(self.file(node, path))
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        state.names.contains_key(path) || state.folders.contains(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        Ok(state.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.folders.contains(from) {
            let last = state.operation(self.life(), "rename folder", 0)?;
            state.move_folder(from, Some(to));
            return state.end(last);
        }
        let node = state.node(from)?;
        let last = state.operation(self.life(), "rename", node as u64)?;
        state.record(FolderOp::Rename(from.to_owned(), to.to_owned(), node));
        state.end(last)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.node(path)?;
        let last = state.operation(self.life(), "remove", node as u64)?;
        state.record(FolderOp::Unlink(path.to_owned()));
        state.end(last)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(self.life(), "create folder", 0)?;
        state.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let last = state.operation(self.life(), "remove folder", 0)?;
        state.move_folder(path, None);
        state.end(last)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        let last = state.operation(self.life(), "sync folder", 0)?;
        if !last {
            let state = &mut *state;
            let synced = |op: &mut FolderOp| op.folder() == Some(folder);
            for op in state.pending_names.extract_if(.., synced) {
                op.apply(&mut state.durable_names);
            }
        }
        state.end(last)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(if self.state().full { 0 } else { 1 << 40 })
    }

    /// Space comes back while the member waits: there is one thread, and it is the waiting one.
    fn wait_for_space(&self) {
        self.state().full = false;
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        if !self.state().locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(()))
    }
}
