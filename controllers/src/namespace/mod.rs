//! Removal of namespaces: everything in them goes first, pods before the rest.

mod driver;
mod plan;

pub use driver::NamespaceController;
