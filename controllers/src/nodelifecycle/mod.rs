//! Node lifecycle: nodes that fall silent, the taints that follow from conditions, and the
//! eviction of pods that do not tolerate them.

mod driver;
mod eviction;
mod plan;
mod taints;

pub use driver::NodeLifecycleController;
