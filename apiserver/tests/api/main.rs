//! The API server as its clients see it: over the real store in a temporary folder, through
//! the in-process `Api` and, in `grpc`, through TLS on a socket.
#![allow(clippy::unwrap_used)]

mod conformance;
mod deletes;
mod grpc;
mod namespaces;
mod reads;
mod services;
mod support;
mod watches;
mod writes;
