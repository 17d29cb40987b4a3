//! Runs iptables on the nat table of the calling thread's network namespace.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::error::CniError;

/// Seconds to wait for another program that holds the xtables lock.
const LOCK_WAIT_SECONDS: &str = "10";

/// The comment of a jump: whose it is, and a digest that stands for the rules it leads to.
pub fn comment(network: &str, rules: &[String]) -> String {
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    for byte in rules.join("\n").bytes() {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("skiff-cni {network} {digest:016x}")
}

/// The rules of a built-in chain of the nat table that lead to `chain` now, as `iptables -S` prints them.
pub fn jumps_to(ipv4: bool, base: &str, chain: &str) -> Result<Vec<String>, CniError> {
    let target = format!("-j {chain}");
    match iptables(ipv4, &["-S", base])? {
        Ok(listing) => {
            Ok(listing.lines().filter(|rule| rule.ends_with(&target)).map(str::to_owned).collect())
        }
        Err(detail) => {
            Err(CniError::Firewall { command: format!("{} -S {base}", program(ipv4, "")), detail })
        }
    }
}

fn program(ipv4: bool, suffix: &str) -> String {
    format!("{}{suffix}", if ipv4 { "iptables" } else { "ip6tables" })
}

/// One command on the nat table. The outer error is that iptables cannot be run; the inner one is what it said.
pub fn iptables(ipv4: bool, args: &[&str]) -> Result<Result<String, String>, CniError> {
    let name = program(ipv4, "");
    let output = Command::new(&name)
        .args(["-w", LOCK_WAIT_SECONDS, "-t", "nat"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_run(&name, &error))?;
    if output.status.success() {
        Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else {
        Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Brings a batch in, all of it or nothing.
pub fn restore(ipv4: bool, batch: &str) -> Result<(), CniError> {
    let name = program(ipv4, "-restore");
    let mut child = Command::new(&name)
        .args(["-w", LOCK_WAIT_SECONDS, "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_run(&name, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes()).map_err(|error| cannot_run(&name, &error))?;
    }
    let output = child.wait_with_output().map_err(|error| cannot_run(&name, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(CniError::Firewall { command: format!("{name} --noflush"), detail })
}

fn cannot_run(name: &str, error: &std::io::Error) -> CniError {
    let detail = format!("cannot be run ({error}); install the iptables package");
    CniError::Firewall { command: name.to_owned(), detail }
}
