//! host-local address management, in process.
//!
//! `range` decides which address is next (pure); `lease` keeps who holds which (files, one lock a network).

pub mod lease;
pub mod range;
