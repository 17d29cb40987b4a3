//! The watch cache: every object in memory once, lists and watches served from shared bytes.

pub mod entry;
pub mod filter;
pub mod history;
pub mod hub;
pub mod resource;
pub mod watchers;

pub use entry::{Entry, Prepared};
pub use filter::Filter;
pub use hub::Hub;
pub use resource::{Limits, Page, ResourceCache};
