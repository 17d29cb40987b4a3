//! Domain-free parts: service graph, backoff, PKI and TLS, telemetry.

pub mod backoff;
pub mod graph;
pub mod pki;
pub mod telemetry;
pub mod tls;
