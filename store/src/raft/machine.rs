//! The Raft library's state machine over the core.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};

use super::log::SoleVoter;
use super::types::*;
use crate::core::Core;
use crate::engine::worker::EngineStopped;
use crate::engine::{EngineError, Meta};
use crate::kv::LeaseId;
use crate::mvcc::revision::Rev;
use crate::snapshot::{Header, SnapshotError, SnapshotFile, SnapshotWriter};

/// Entries applied in one round: one hold of the lock, one batch for the engine.
const ROUND_ENTRIES: usize = 64;

#[derive(Clone)]
pub struct Machine {
    core: Arc<Core>,
    sole_voter: SoleVoter,
}

pub type SnapshotOf = Snapshot<Term, MemberId, MemberNode, SnapshotFile>;

impl Machine {
    pub fn new(core: Arc<Core>, sole_voter: SoleVoter) -> Self {
        Self { core, sole_voter }
    }

    async fn round(&self, entries: &mut Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut applied = self.core.applied();
        for (entry, _) in entries.iter() {
            applied.log_id = Some(entry.log_id);
            if let EntryPayload::Membership(members) = &entry.payload {
                applied.membership = StoredMembership::new(Some(entry.log_id), members.clone());
            }
        }
        let proposals: Vec<_> = entries
            .iter()
            .map(|(entry, _)| match &entry.payload {
                EntryPayload::Normal(proposal) => Some(proposal),
                _ => None,
            })
            .collect();
        let round = self.core.apply(&proposals, applied).map_err(io::Error::other)?;
        for ((_, responder), answers) in entries.drain(..).zip(round.answers) {
            if let Some(responder) = responder {
                responder.send(answers);
            }
        }
        self.core.queue.write(round.batches).await.map_err(io::Error::other)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.core.applied();
        Ok((applied.log_id, applied.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut round = Vec::with_capacity(ROUND_ENTRIES);
        while let Some(entry) = entries.next().await {
            round.push(entry?);
            if round.len() >= ROUND_ENTRIES {
                self.round(&mut round).await?;
            }
        }
        if !round.is_empty() {
            self.round(&mut round).await?;
        }
        Ok(())
    }

    /// The snapshot task writes snapshots by itself, because a disk that is full must not
    /// stop Raft, and then asks for this: to take note of the file. Nothing is written here
    /// unless Raft cannot do without.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let known = self.core.snapshot_file().is_some();
        (known || force).then(|| Builder { core: self.core.clone() })
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder { core: self.core.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        self.sole_voter.follow(meta.last_membership.membership());
        // Batches on their way must not land in the new content.
        self.core.queue.barrier().await.map_err(io::Error::other)?;
        let core = self.core.clone();
        let installed =
            self.core.background.run("install snapshot", move || core.install(&snapshot)).await;
        installed.map_err(io::Error::other)?.map_err(io::Error::other)?;
        tracing::info!(revision = self.core.mvcc().revision(), "state rebuilt from a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        loop {
            let Some(file) = self.core.snapshot_file() else { return Ok(None) };
            match describe(file.clone()) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) => {
                    let now = self.core.snapshot_file();
                    if now.is_none_or(|now| now.path() == file.path()) {
                        return Err(error);
                    }
                    // It has gone for a later one meanwhile.
                }
            }
        }
    }
}

pub struct Builder {
    core: Arc<Core>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let file = match self.core.snapshot_file() {
            Some(file) => file,
            None => {
                let written = write_snapshot(&self.core).await.map_err(io::Error::other)?;
                written.ok_or_else(|| io::Error::other("a later snapshot came meanwhile"))?
            }
        };
        describe(file)
    }
}

fn describe(file: SnapshotFile) -> io::Result<SnapshotOf> {
    let header = file.read().map_err(io::Error::other)?.header;
    let applied = AppliedTo::decode(header.meta.applied).map_err(io::Error::other)?;
    Ok(Snapshot { meta: applied.snapshot_meta(), snapshot: file })
}

/// The state as it was when it was made, while writes go on: records are never changed, and
/// as long as it lives none are removed.
pub struct View {
    core: Arc<Core>,
    pub applied: AppliedTo,
    pub meta: Meta,
    leases: Vec<(LeaseId, i64)>,
}

impl View {
    pub fn new(core: Arc<Core>) -> Self {
        let (applied, meta, leases) = {
            // Under this lock nothing is applied, so the three agree.
            let mut mvcc = core.mvcc_mut();
            mvcc.pin();
            let applied = core.applied();
            let meta = Meta {
                revision: mvcc.revision(),
                compacted: mvcc.compacted(),
                digest: Default::default(),
                alarms: mvcc.alarms().clone(),
                applied: applied.encode(),
            };
            let leases = mvcc.leases().iter().map(|(id, lease)| (id, lease.ttl_seconds)).collect();
            (applied, meta, leases)
        };
        Self { core, applied, meta, leases }
    }

    pub fn header(&self) -> Header {
        Header {
            cluster_id: self.core.cluster_id,
            meta: self.meta.clone(),
            leases: self.leases.clone(),
        }
    }

    /// Waits until the engine has it all.
    pub async fn settle(&self) -> Result<(), EngineStopped> {
        self.core.queue.barrier().await
    }

    /// Writes every record. Blocks; only after [`View::settle`].
    pub fn fill<W: std::io::Write>(
        &self,
        writer: &mut SnapshotWriter<W>,
    ) -> Result<(), SnapshotError> {
        let last = Rev::new(self.meta.revision, u32::MAX);
        let mut fault = None;
        self.core.engine.scan(Rev::default(), last, &mut |rev, record| {
            fault = writer.record(rev, &record).err();
            fault.is_none()
        })?;
        fault.map_or(Ok(()), Err)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.core.mvcc_mut().unpin();
    }
}

/// Writes a snapshot of the state as it is now to the disk, and makes it the current one;
/// `None` if another member's, of a later state, came meanwhile.
pub async fn write_snapshot(core: &Arc<Core>) -> Result<Option<SnapshotFile>, SnapshotFailed> {
    let view = View::new(core.clone());
    view.settle().await?;
    let (header, at) = (view.header(), view.applied.log_id);
    let (revision, writing) = (view.meta.revision, core.clone());
    let written = core.background.run("write snapshot", move || {
        let snapshots = &writing.snapshots;
        let file = snapshots.write(&header, |writer| {
            // It goes when it is read, not only when the disk has it: what has been compacted
            // stays in the engine as long.
            let view = view;
            view.fill(writer)
        })?;
        let (term, index) = at.map_or((0, 0), |id| (term_of(&id), id.index()));
        snapshots.keep(&file, term, index, |file| writing.note_snapshot(file))
    });
    let Some(file) = written.await?? else { return Ok(None) };
    // The log before it goes next. The snapshot makes up for what the engine loses, but reading
    // it all is not what a start after a crash should begin with.
    core.queue.flush().await?;
    tracing::info!(revision, path = %file.path().display(), "snapshot written");
    Ok(Some(file))
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotFailed {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("snapshot: {0}")]
    Stopped(#[from] EngineStopped),
    #[error("snapshot: {0}")]
    Engine(#[from] EngineError),
    #[error("snapshot: {0}")]
    Task(#[from] tokio::task::JoinError),
}
