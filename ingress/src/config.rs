//! What the ingress can be told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// More threads than this only wait for each other.
const MAX_WORKERS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Written into the status of the Ingresses served. Empty: nothing is written.
    pub node_addresses: Vec<IpAddr>,
    /// Threads that serve; 0: one a core.
    pub workers: usize,
    pub limits: Limits,
}

/// Limits on what clients and pods may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Beyond these, new clients wait to be accepted.
    pub max_connections: usize,
    /// Of a request's head; larger ones get 431, and so do more than 100 headers.
    pub max_header_bytes: usize,
    /// To send the head of a request, also of the next one on an open connection.
    pub header_timeout: Duration,
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// Between two pieces of a body, in either direction.
    pub idle_timeout: Duration,
    /// Unused connections to a pod.
    pub max_idle_per_endpoint: usize,
    /// At shutdown, requests under way get this long.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // The times are nginx' defaults, which users know, except for connecting: pods are
        // near, and another endpoint may be tried.
        Self {
            max_connections: 16_384,
            max_header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            max_idle_per_endpoint: 64,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80)],
            node_addresses: Vec::new(),
            workers: 0,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Every fault at once.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        if self.listen.is_empty() {
            faults.push("listen: at least one address is needed, for example 0.0.0.0:80".into());
        }
        for (n, addr) in self.listen.iter().enumerate() {
            if addr.port() != 0 && self.listen[..n].contains(addr) {
                faults.push(format!("listen: {addr} is there twice"));
            }
        }
        if self.workers > MAX_WORKERS {
            faults.push(format!("workers: must be at most {MAX_WORKERS}, not {}", self.workers));
        }
        for address in self.node_addresses.iter().filter(|a| a.is_unspecified()) {
            faults.push(format!("node_addresses: {address} is no address clients can reach"));
        }
        // The HTTP library cannot parse with less.
        if self.limits.max_header_bytes < 8192 {
            faults.push("limits.max_header_bytes: must be at least 8192".into());
        }
        if self.limits.max_connections == 0 {
            faults.push("limits.max_connections: must not be 0".into());
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
            workers => workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_tells_every_fault() {
        assert_eq!(Config::default().validate(), Ok(()));
        let twice: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        let broken = Config {
            listen: vec![twice, twice],
            node_addresses: vec![Ipv4Addr::UNSPECIFIED.into()],
            workers: 1000,
            limits: Limits { max_connections: 0, max_header_bytes: 1, ..Limits::default() },
        };
        let faults = broken.validate().expect_err("five faults");
        assert_eq!(
            faults,
            [
                "listen: 127.0.0.1:80 is there twice",
                "workers: must be at most 256, not 1000",
                "node_addresses: 0.0.0.0 is no address clients can reach",
                "limits.max_header_bytes: must be at least 8192",
                "limits.max_connections: must not be 0",
            ]
        );
    }
}
