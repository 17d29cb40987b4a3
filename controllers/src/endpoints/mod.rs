//! Endpoints: the older, single-object form of what EndpointSlices say.

mod driver;
mod plan;

pub use driver::EndpointsController;
