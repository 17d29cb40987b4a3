//! Runs iptables. Blocking: the driver calls it on a thread for that.

use std::collections::VecDeque;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::error::ProxyError;
use crate::iptables::Family;
use crate::iptables::transaction::Observed;

/// Seconds to wait for another program that holds the xtables lock (the legacy variant has one).
const LOCK_WAIT_SECONDS: &str = "10";

/// Processes remembered as our own, for telling their changes from others'. A transaction is one process, and its
/// notifications come while it runs or soon after.
const REMEMBERED_PROCESSES: usize = 64;

static OWN_PROCESSES: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());

/// Whether a process was one that this program ran to change rules.
pub fn is_own_process(pid: u32) -> bool {
    OWN_PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}

fn remember(child: &Child) {
    let mut own = OWN_PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    if own.len() == REMEMBERED_PROCESSES {
        own.pop_front();
    }
    own.push_back(child.id());
}

/// Brings one transaction in.
pub fn restore(family: Family, text: &str) -> Result<(), ProxyError> {
    let program = match family {
        Family::Ipv4 => "iptables-restore",
        Family::Ipv6 => "ip6tables-restore",
    };
    let cannot_run = |source| ProxyError::CannotRun { program, source };
    let mut child = Command::new(program)
        .args(["--noflush", "-w", LOCK_WAIT_SECONDS])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    remember(&child);
    // It may end early over a bad line; what it says about that is worth more than the broken pipe.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(cannot_run)?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ProxyError::Refused { program, detail });
    }
    written.map_err(cannot_run)
}

/// What is there of ours.
pub fn observe(family: Family) -> Result<Observed, ProxyError> {
    let program = match family {
        Family::Ipv4 => "iptables-save",
        Family::Ipv6 => "ip6tables-save",
    };
    let mut saved = String::new();
    for table in ["nat", "filter"] {
        let output = Command::new(program)
            .args(["-t", table])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| ProxyError::CannotRun { program, source })?;
        if !output.status.success() {
            let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ProxyError::Refused { program, detail });
        }
        saved.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    Ok(Observed::parse(&saved))
}

/// Whether iptables works through nftables, whose changes the kernel announces.
pub fn is_nft_variant() -> Result<bool, ProxyError> {
    let program = "iptables";
    let output = Command::new(program)
        .arg("-V")
        .output()
        .map_err(|source| ProxyError::CannotRun { program, source })?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("nf_tables"))
}
