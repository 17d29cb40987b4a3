//! Domain-free parts: service graph, backoff, PKI and TLS, corked streams, telemetry.

pub mod backoff;
pub mod cork;
pub mod graph;
pub mod memory;
pub mod pki;
pub mod telemetry;
pub mod tls;
