//! The iptables mode: one text a transaction, rendered whole and written by difference.
//!
//! `render` turns the table into chains (pure), `transaction` turns two states of chains into the text for
//! `iptables-restore --noflush` (pure), `exec` runs the programs.

pub mod exec;
pub mod render;
pub mod transaction;

use std::net::IpAddr;

/// An address family has programs and tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn holds(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Family::Ipv4)
    }

    pub fn loopback(self) -> &'static str {
        match self {
            Family::Ipv4 => "127.0.0.0/8",
            Family::Ipv6 => "::1/128",
        }
    }
}

/// What rendering needs besides the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub family: Family,
    pub cluster_cidr: String,
    /// Empty: every address of the node.
    pub node_port_cidrs: Vec<String>,
    pub localhost_node_ports: bool,
}
