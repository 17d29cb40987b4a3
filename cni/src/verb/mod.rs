//! One file a command of the specification.

pub mod add;
pub mod check;
pub mod del;
pub mod gc;
pub mod status;
