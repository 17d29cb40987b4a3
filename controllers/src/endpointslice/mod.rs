//! EndpointSlice: which pods stand behind a Service, in slices of bounded size.

mod driver;
pub mod members;
mod plan;

pub use driver::{EndpointSliceController, wake};
