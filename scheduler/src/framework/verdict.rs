//! What a filter says of a node.

use std::borrow::Cow;

/// Why a node was refused, in upstream's words; users and tests match them.
pub type Reason = Cow<'static, str>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// Removing other pods may help.
    Unschedulable(Vec<Reason>),
    /// Removing other pods cannot help.
    Unresolvable(Vec<Reason>),
}

impl Verdict {
    pub fn unschedulable(reason: impl Into<Reason>) -> Self {
        Self::Unschedulable(vec![reason.into()])
    }

    pub fn unresolvable(reason: impl Into<Reason>) -> Self {
        Self::Unresolvable(vec![reason.into()])
    }

    /// Refuses for good, with this reason, unless `fits`.
    pub fn required(fits: bool, reason: &'static str) -> Self {
        if fits { Self::Fits } else { Self::unresolvable(reason) }
    }
}
