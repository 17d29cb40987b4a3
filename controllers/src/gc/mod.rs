//! The garbage collector: what nobody owns any more goes, what waits for its dependents
//! waits no longer than they live.

mod driver;
mod plan;

pub use driver::GarbageCollector;
