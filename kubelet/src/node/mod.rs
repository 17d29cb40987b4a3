//! The node's own object: registration, status and heartbeat.
//!
//! `facts` reads the machine, `status` turns that into the Node's status (pure), `driver`
//! writes it when it changed, `lease` says every few seconds that the node lives.

pub mod driver;
pub mod facts;
pub mod lease;
pub mod status;
