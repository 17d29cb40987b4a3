//! Faults of the kind that stores have had, put back on purpose: the simulator has to find
//! each of them, or it proves nothing.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A sync of the log returns before the medium has anything.
    SyncLies,
    /// A member forgets whom it voted for.
    VoteNotSynced,
    /// A member answers from what it has, without asking who leads.
    ReadWithoutQuorum,
    /// The engine says it has entries that it does not have.
    AppliedWithoutData,
    /// The log goes before the snapshot that replaces it is on the medium.
    PurgeBeforeSnapshotSync,
    /// A watch that comes again begins one revision too late.
    WatchSkipsOne,
    /// A member's clock runs twice as fast as time does.
    FastClock,
}

impl Bug {
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::SyncLies,
            Self::VoteNotSynced,
            Self::ReadWithoutQuorum,
            Self::AppliedWithoutData,
            Self::PurgeBeforeSnapshotSync,
            Self::WatchSkipsOne,
            Self::FastClock,
        ];
        let found = all.into_iter().find(|bug| format!("{bug:?}") == name);
        assert!(found.is_some() || name.is_empty(), "no fault is named {name}");
        found
    }
}
