//! Objects in the store: where they lie, how they are written, what failures mean.

pub mod commit;
pub mod compactor;
pub mod error;
pub mod key;
pub mod print;
pub mod splice;

pub use commit::{Beside, Guard, Outcome, Write, commit};
