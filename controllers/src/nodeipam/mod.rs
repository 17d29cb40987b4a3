//! Gives each node its share of the cluster's pod network.

mod cidr;

pub use cidr::Cidr;
