//! Gives each node its share of the cluster's pod network.

mod cidr;
mod driver;
mod plan;

pub use cidr::Cidr;
pub use driver::NodeIpamController;
