//! ReplicaSet: keeps as many pods of one template as are asked for.

mod driver;
mod expectations;
mod plan;
mod rank;
mod status;

pub use driver::ReplicaSetController;
