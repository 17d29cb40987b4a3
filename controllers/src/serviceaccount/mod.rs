//! What every namespace has from the start: the ServiceAccount `default`, and the cluster
//! CA for whoever talks to the API from inside.

mod driver;
mod plan;

pub use driver::ServiceAccountController;
pub use plan::ROOT_CA;
