//! Removes pods that nobody else can remove: those bound to a node that is gone.

mod driver;
mod plan;

pub use driver::PodGcController;
pub use plan::disruption_target;
