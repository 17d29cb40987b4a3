//! The scheduler: decides on which node each pod runs.
//!
//! Everything but `driver` is pure. `Scheduler` takes what the API tells of nodes and pods
//! and gives out decisions; the driver feeds it from watches, writes bindings and tells
//! why pods wait.

pub mod config;
pub mod driver;
pub mod framework;
pub mod nodes;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod random;
pub mod resources;
pub mod scheduler;
pub mod terms;

pub use config::Config;
pub use driver::{SchedulerError, run};
pub use scheduler::{Decision, Scheduler};
