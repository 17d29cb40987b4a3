//! A point in the history: the main revision of a transaction, and the place within it.

use crate::kv::Revision;

/// Every write has its own. Transactions take one `main` each; `sub` counts their writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rev {
    pub main: Revision,
    pub sub: u32,
}

impl Rev {
    pub const fn new(main: Revision, sub: u32) -> Self {
        Self { main, sub }
    }

    /// The first place of a main revision.
    pub const fn first_of(main: Revision) -> Self {
        Self { main, sub: 0 }
    }

    /// Sorts as bytes in the order of time.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (main, sub) = bytes.split_at_checked(8)?;
        Some(Self {
            main: i64::from_be_bytes(main.try_into().ok()?),
            sub: u32::from_be_bytes(sub.try_into().ok()?),
        })
    }
}
