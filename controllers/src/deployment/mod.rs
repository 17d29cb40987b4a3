//! Deployment: moves pods from one template to the next through ReplicaSets, one for each
//! template. The algorithms, reasons and texts are upstream's.

mod driver;
mod plan;
mod progress;
mod rolling;
mod set;
mod sizes;
mod template;

#[cfg(test)]
mod rollout_tests;

pub use driver::DeploymentController;
