//! The Raft library's log storage over our write-ahead log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::types::*;
use crate::codec::{Decoder, Encoder};
use crate::wal::{Done, Wal};

/// Whether this member alone makes the majority.
#[derive(Debug, Clone)]
pub struct SoleVoter {
    id: MemberId,
    /// By the newest membership in its log.
    only: Arc<AtomicBool>,
    settled: Arc<AtomicBool>,
}

impl SoleVoter {
    pub fn new(id: MemberId) -> Self {
        Self { id, only: Arc::default(), settled: Arc::default() }
    }

    pub fn is_only(&self) -> bool {
        self.only.load(Ordering::Acquire)
    }

    /// Whether, besides, nobody else can commit anything, and all that was is applied here. It
    /// turns false before an entry that adds a voter can reach anyone. It does not turn true
    /// again by itself when the others are removed: a leader among them commits its last
    /// entries, with this member's help, without this member knowing yet.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// It leads, and has applied its whole log.
    pub fn settle(&self) {
        self.settled.store(self.is_only(), Ordering::Release);
    }

    pub fn follow(&self, members: &MemberSet) {
        let mut voters = members.voter_ids();
        let only = voters.next() == Some(self.id) && voters.next().is_none();
        if !only {
            self.settled.store(false, Ordering::Release);
        }
        self.only.store(only, Ordering::Release);
    }
}

#[derive(Clone)]
pub struct LogStore {
    wal: Arc<Wal>,
    sole_voter: SoleVoter,
}

impl LogStore {
    pub fn new(wal: Arc<Wal>, sole_voter: SoleVoter) -> Self {
        Self { wal, sole_voter }
    }

    fn get(&self, range: impl RangeBounds<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.wal.read(from, to)? {
            bytes += entry.body.len();
            entries.push(from_wal(entry).map_err(invalid)?);
            if bytes > max_bytes {
                break;
            }
        }
        Ok(entries)
    }

    /// The disk has it when this returns.
    async fn wait(&self, start: impl FnOnce(&Wal, Done)) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |result| {
            let _ = tell.send(result);
        });
        start(&self.wal, done);
        told.await.map_err(|_| io::Error::other("the log is closed"))?
    }
}

pub(super) fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Entries for a peer are read in portions of about this size.
const REPLICATE_BYTES: usize = 1 << 20;

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.get(range, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let Some(state) = self.wal.state() else { return Ok(None) };
        decode_vote(&mut Decoder::new("vote", state)).map(Some).map_err(invalid)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.get(start..end, REPLICATE_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let id = |(index, term)| log_id(term, index);
        Ok(LogState {
            last_purged_log_id: self.wal.purged().map(id),
            last_log_id: self.wal.last().map(id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut e = Encoder::default();
        encode_vote(&mut e, vote);
        self.wait(|wal, done| wal.save_state(e.finish().into(), done)).await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut converted = Vec::new();
        for entry in entries {
            if let EntryPayload::Membership(members) = &entry.payload {
                self.sole_voter.follow(members);
            }
            converted.push(to_wal(entry));
        }
        self.wal.append(converted, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let after = last_log_id.map(|id| id.index());
        self.wait(|wal, done| wal.truncate_after(after, done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.wal.purge(log_id.index(), term_of(&log_id));
        Ok(())
    }
}
