//! Hears when somebody else removes our rules.
//!
//! The kernel announces every change of nftables, and iptables 1.8 is nftables beneath. kube-proxy looks at a canary
//! chain every 30 seconds instead. An announcement names who caused it, so that our own transactions pass unheard.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::io::unix::AsyncFd;

use crate::iptables::exec::is_own_process;
use crate::iptables::transaction::{is_ours, is_pod_network};
use crate::netfilter::{Message, attribute, messages};

/// NFNLGRP_NFTABLES.
const GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES in the high byte; tables, chains and rules in the low one.
const DELETE_TABLE: u16 = 0x0a02;
const CHANGES: [u16; 4] = [0x0a03, 0x0a05, 0x0a06, 0x0a08];
/// NFTA_TABLE_NAME.
const TABLE_NAME: u16 = 1;

/// A transaction of ours over thousands of services is announced rule by rule, some 200 bytes each; they wait here
/// while the monitor reads. What does not fit costs one look at the rules, nothing more.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Larger than any datagram the kernel sends here.
const DATAGRAM_BYTES: usize = 64 << 10;

/// A subscription to the changes of nftables in the network namespace of the thread that opened it.
pub struct Monitor {
    socket: AsyncFd<Socket>,
    concerns: fn(&str) -> bool,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes to changes of the proxy's own chains. Needs a tokio runtime.
    pub fn open() -> io::Result<Monitor> {
        Monitor::of(is_ours)
    }

    /// Subscribes to changes of the pod network's chains, which are the CNI plugin's.
    pub fn of_pod_network() -> io::Result<Monitor> {
        Monitor::of(is_pod_network)
    }

    fn of(concerns: fn(&str) -> bool) -> io::Result<Monitor> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // Beyond the system's limit only with CAP_NET_ADMIN, which whoever writes rules has.
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket owns its descriptor, and nobody replaces or closes it while the AsyncFd has it.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Monitor { socket, concerns, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Returns when somebody else has changed what concerns us, or may have.
    pub async fn disturbed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            buffer.clear();
            match ready.try_io(|socket| socket.get_ref().recv(buffer, 0)) {
                Ok(Ok(_))
                    if messages(&self.buffer)
                        .any(|message| concerns_us(&message, self.concerns)) =>
                {
                    return Ok(());
                }
                Ok(Ok(_)) | Err(_) => {}
                // Announcements were lost: one of them may have been meant for us.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

fn concerns_us(message: &Message, concerns: fn(&str) -> bool) -> bool {
    if is_own_process(message.port) {
        return false;
    }
    if message.kind == DELETE_TABLE {
        return attribute(message.payload(), TABLE_NAME).is_some_and(|name| {
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            name == b"nat" || name == b"filter"
        });
    }
    CHANGES.contains(&message.kind) && names_us(message.payload(), concerns)
}

/// A rule of ours names its chain; a rule that leads to us names ours as its target.
fn names_us(payload: &[u8], concerns: fn(&str) -> bool) -> bool {
    let end_of_name = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'-';
    payload.windows(6).enumerate().filter(|(_, window)| window == b"SKIFF-").any(|(start, _)| {
        let rest = &payload[start..];
        let length = rest.iter().position(end_of_name).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..length]).is_ok_and(concerns)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_the_cni_plugin_are_not_ours() {
        assert!(names_us(b"\x01\x00SKIFF-SERVICES\0\0", is_ours));
        assert!(!names_us(b"\x01\x00SKIFF-MASQ-0A1B2C3D\0", is_ours));
        assert!(!names_us(b"\x01\x00SKIFF-HP-0A1B2C3D\0", is_ours));
        assert!(names_us(b"SKIFF-MASQ-0A1B2C3D\0SKIFF-SVC-00", is_ours));
        assert!(!names_us(b"KUBE-SERVICES\0", is_ours));
        assert!(names_us(b"\x01\x00SKIFF-HP-0A1B2C3D\0", is_pod_network));
        assert!(!names_us(b"\x01\x00SKIFF-SERVICES\0\0", is_pod_network));
    }
}
