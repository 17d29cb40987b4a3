//! Why the ingress could not run.

use std::io;
use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    #[error("ingress configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    #[error("ingress cannot listen on {addr}: {}", mend(.addr, .source))]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("ingress cannot start a worker thread")]
    Thread(#[source] io::Error),
    #[error("ingress worker {0} ended unexpectedly; its log lines tell why")]
    Worker(usize),
}

fn mend(addr: &SocketAddr, source: &io::Error) -> String {
    let port = addr.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has port {port}; find it with `ss -ltnp 'sport = :{port}'` and stop \
             it, or give the ingress another address"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("port {port} needs root or CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {}; give one that `ip address` shows", addr.ip())
        }
        _ => "see the cause".to_owned(),
    }
}
