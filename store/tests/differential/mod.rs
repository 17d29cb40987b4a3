//! What the comparison of etcd and the store is made of.

pub mod generate;
pub mod sides;
pub mod watches;
