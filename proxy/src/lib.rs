//! The service proxy: Services and EndpointSlices become rules in the kernel.
//!
//! Source: the Kubernetes documentation of Services ("Virtual IPs and Service Proxies") and kube-proxy's iptables
//! mode for what each field means. How the rules are written is our own (see `iptables::render`).
//!
//! ```text
//! caches -> tracker -> table -> render -> transaction -> iptables-restore
//!           (what      (pure)   (pure)    (pure: only
//!            changed)                      what differs)
//! ```
//!
//! `driver` wires it; `monitor` hears of others who flush our rules; `conntrack` forgets UDP flows to where they
//! must not go any more. Another mode is another renderer of the same table.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod conntrack;
pub mod driver;
pub mod error;
mod host;
pub mod iptables;
pub mod model;
pub mod monitor;
mod netfilter;
pub mod table;
pub mod tracer;
pub mod tracker;

pub use config::{Config, Mode};
pub use driver::{cleanup, run};
pub use error::ProxyError;
