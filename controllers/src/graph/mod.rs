//! Who owns whom, over every kind served: fed by watches that keep metadata only, read by
//! the garbage collector and by the removal of namespaces.

mod feed;
mod owners;

pub use feed::{Feed, Table};
pub use owners::{Dependent, FOREGROUND, ORPHAN, OwnerState, Uid};
