//! Host ports: ports of the node that lead to a container of the network, `runtimeConfig.portMappings` as upstream's
//! portmap plugin has them.
//!
//! What is wanted lies in one small file an attachment beside the leases; the rules are rendered from all of them
//! and brought in as one transaction, so that an ADD, a DEL and a repair after somebody's flush are the same thing.
//!
//! ```text
//! PREROUTING, OUTPUT  to an address of the node -> SKIFF-HP-...
//!   SKIFF-HP-...  -p tcp --dport 8081 -> DNAT 10.42.0.5:8080
//! POSTROUTING -> SKIFF-HM-...
//!   SKIFF-HM-...  from the pods or from 127.0.0.1, to what came by that port -> MASQUERADE
//! ```

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::error::CniError;
use crate::firewall::{self, iptables, jumps_to, restore};
use crate::ipam::lease::Holder;
use crate::names::host_port_chains;

const FOLDER: &str = "hostports";
const LOCK_FILE: &str = "hostports.lock";
/// Where the chains are entered: base chain, and what a packet must be to enter.
const LOCAL: &str = "-m addrtype --dst-type LOCAL";

/// One mapping, in the words of the capability `portMappings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    #[serde(default)]
    pub protocol: Protocol,
    /// Only on this address of the node; none, or the unspecified one, is all.
    #[serde(default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// What one attachment maps, as its file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<PortMapping>,
}

/// The rules of both chains in one family: translation, masquerade.
pub fn rules(
    network: &str,
    ipv4: bool,
    subnets: &[Cidr],
    all: &[Mapped],
) -> (Vec<String>, Vec<String>) {
    let (nat, masquerade) = host_port_chains(network);
    let (mut to, mut back) = (Vec::new(), Vec::new());
    for mapped in all {
        let Some(address) = mapped.addresses.iter().find(|a| a.is_ipv4() == ipv4) else { continue };
        for port in &mapped.ports {
            let host_ip: Option<IpAddr> = port.host_ip.parse().ok();
            let only = host_ip.filter(|ip| !ip.is_unspecified());
            if host_ip.is_some_and(|ip| ip.is_ipv4() != ipv4) {
                continue;
            }
            let (protocol, outer, inner) =
                (port.protocol.name(), port.host_port, port.container_port);
            let dst = only.map_or(String::new(), |ip| format!(" -d {ip}"));
            let target = if ipv4 { format!("{address}") } else { format!("[{address}]") };
            to.push(format!(
                "-A {nat}{dst} -p {protocol} -m {protocol} --dport {outer} -j DNAT --to-destination {target}:{inner}"
            ));
            // The original port tells these from connections that a Service brought to the same place.
            let came = format!("-m conntrack --ctstate DNAT --ctorigdstport {outer}");
            let loopback = if ipv4 { "127.0.0.0/8".to_owned() } else { "::1/128".to_owned() };
            let own = subnets.iter().filter(|subnet| subnet.is_ipv4() == ipv4);
            for source in own.map(Cidr::to_string).chain([loopback]) {
                back.push(format!(
                    "-A {masquerade} -s {source} -d {address} -p {protocol} -m {protocol} --dport {inner} {came} -j MASQUERADE"
                ));
            }
        }
    }
    (to, back)
}

/// The batch that makes both chains right with one jump from each place; `old` are the jumps there now. Without a
/// rule, the chains go.
pub fn render(network: &str, to: &[String], back: &[String], old: &[String]) -> String {
    let (nat, masquerade) = host_port_chains(network);
    let mut lines =
        vec!["*nat".to_owned(), format!(":{nat} - [0:0]"), format!(":{masquerade} - [0:0]")];
    lines.extend(old.iter().map(|rule| rule.replacen("-A ", "-D ", 1)));
    if to.is_empty() {
        lines.extend([format!("-X {nat}"), format!("-X {masquerade}")]);
    } else {
        lines.extend(to.iter().chain(back).cloned());
        let comment = comment(network, to, back);
        let note = format!("-m comment --comment \"{comment}\"");
        for base in ["PREROUTING", "OUTPUT"] {
            lines.push(format!("-A {base} {LOCAL} {note} -j {nat}"));
        }
        lines.push(format!("-A POSTROUTING {note} -j {masquerade}"));
    }
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

fn comment(network: &str, to: &[String], back: &[String]) -> String {
    firewall::comment(network, &[to, back].concat())
}

/// The host ports of one network, locked for as long as this value lives.
pub struct HostPorts {
    network: String,
    dir: PathBuf,
    _lock: Flock<File>,
}

impl HostPorts {
    pub fn open(data_dir: &Path, network: &str) -> Result<HostPorts, CniError> {
        let dir = data_dir.join(network).join(FOLDER);
        fs::create_dir_all(&dir).map_err(failed("create the folder", &dir))?;
        let path = data_dir.join(network).join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed("open the lock", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock", &path)(io::Error::from(errno)))?;
        Ok(HostPorts { network: network.to_owned(), dir, _lock: lock })
    }

    /// None where no attachment ever mapped a port: the usual case costs nothing.
    pub fn open_existing(data_dir: &Path, network: &str) -> Result<Option<HostPorts>, CniError> {
        match data_dir.join(network).join(FOLDER).is_dir() {
            true => HostPorts::open(data_dir, network).map(Some),
            false => Ok(None),
        }
    }

    /// Notes what the holder maps and brings the rules in. Noted first: a kill in between must not leave rules
    /// that nobody knows of.
    pub fn map(&self, holder: &Holder, mapped: &Mapped, subnets: &[Cidr]) -> Result<(), CniError> {
        let path = self.path(holder);
        let text = serde_json::to_vec(mapped).map_err(|e| CniError::Decode(e.to_string()))?;
        let pending = self.dir.join(".pending");
        fs::write(&pending, text)
            .and_then(|()| fs::rename(&pending, &path))
            .map_err(failed("write the host ports", &path))?;
        self.apply(subnets)?;
        forget_flows(mapped);
        Ok(())
    }

    /// Takes the holder's ports away; none is fine too.
    pub fn unmap(&self, holder: &Holder, subnets: &[Cidr]) -> Result<(), CniError> {
        let path = self.path(holder);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ => {}
        }
        // The rules go first: a failure leaves the file, and the next DEL tries again.
        let rest = self.mapped_but(Some(&path))?;
        self.write(&rest, subnets)?;
        fs::remove_file(&path).map_err(failed("remove the host ports", &path))
    }

    /// Who maps ports.
    pub fn holders(&self) -> Result<Vec<Holder>, CniError> {
        let named = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.to_owned();
            let (ifname, container) = name.split_once(',')?;
            Some(Holder { container: container.to_owned(), ifname: ifname.to_owned() })
        };
        Ok(self.files()?.into_iter().filter_map(named).collect())
    }

    /// Whether the jumps are there; the digest in them stands for the chains' rules.
    pub fn are_present(&self, subnets: &[Cidr]) -> Result<bool, CniError> {
        let all = self.mapped_but(None)?;
        for ipv4 in [true, false] {
            let (to, back) = rules(&self.network, ipv4, subnets, &all);
            if to.is_empty() {
                continue;
            }
            let (nat, masquerade) = host_port_chains(&self.network);
            let comment = comment(&self.network, &to, &back);
            for (base, chain) in
                [("PREROUTING", &nat), ("OUTPUT", &nat), ("POSTROUTING", &masquerade)]
            {
                if !jumps_to(ipv4, base, chain)?.iter().any(|jump| jump.contains(&comment)) {
                    return Ok(false);
                }
            }
            for (chain, wanted) in [(&nat, to.len()), (&masquerade, back.len())] {
                let listing = iptables(ipv4, &["-S", chain])?.unwrap_or_default();
                if listing.lines().filter(|line| line.starts_with("-A ")).count() != wanted {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes the rules anew, whatever is there.
    pub fn apply(&self, subnets: &[Cidr]) -> Result<(), CniError> {
        self.write(&self.mapped_but(None)?, subnets)
    }

    fn write(&self, all: &[Mapped], subnets: &[Cidr]) -> Result<(), CniError> {
        for ipv4 in [true, false] {
            let (to, back) = rules(&self.network, ipv4, subnets, all);
            // A host without this family needs no rules taken away, and may lack the program.
            if to.is_empty() && !is_there(&self.network, ipv4) {
                continue;
            }
            restore(ipv4, &render(&self.network, &to, &back, &old_jumps(&self.network, ipv4)?))?;
        }
        Ok(())
    }

    fn mapped_but(&self, without: Option<&Path>) -> Result<Vec<Mapped>, CniError> {
        let mut all = Vec::new();
        for path in self.files()?.iter().filter(|path| Some(path.as_path()) != without) {
            let text = fs::read(path).map_err(failed("read the host ports", path))?;
            // A power loss may leave an empty file; its container is gone with it.
            all.extend(serde_json::from_slice::<Mapped>(&text).ok());
        }
        Ok(all)
    }

    fn files(&self) -> Result<Vec<PathBuf>, CniError> {
        let entries = fs::read_dir(&self.dir).map_err(failed("list", &self.dir))?;
        let hidden = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| !hidden(path)).collect();
        files.sort();
        Ok(files)
    }

    fn path(&self, holder: &Holder) -> PathBuf {
        self.dir.join(format!("{},{}", holder.ifname, holder.container))
    }
}

/// Removes a network's chains and the jumps to them; nothing there is fine too.
pub fn remove(network: &str) -> Result<bool, CniError> {
    let mut removed = false;
    for ipv4 in [true, false] {
        if is_there(network, ipv4) {
            restore(ipv4, &render(network, &[], &[], &old_jumps(network, ipv4)?))?;
            removed = true;
        }
    }
    Ok(removed)
}

fn is_there(network: &str, ipv4: bool) -> bool {
    let (nat, masquerade) = host_port_chains(network);
    [nat, masquerade].iter().any(|chain| matches!(iptables(ipv4, &["-S", chain]), Ok(Ok(_))))
}

fn old_jumps(network: &str, ipv4: bool) -> Result<Vec<String>, CniError> {
    let (nat, masquerade) = host_port_chains(network);
    let mut old = jumps_to(ipv4, "PREROUTING", &nat)?;
    old.extend(jumps_to(ipv4, "OUTPUT", &nat)?);
    old.extend(jumps_to(ipv4, "POSTROUTING", &masquerade)?);
    Ok(old)
}

/// A flow of datagrams that was there before goes on to where it went: the kernel looks at the rules once a flow.
fn forget_flows(mapped: &Mapped) {
    for port in mapped.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        // Found nothing is a failure to the program, and a host without it keeps old flows for half a minute.
        let _ = std::process::Command::new("conntrack")
            .args(["-D", "-p", "udp", "--dport", &port.host_port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
    let path = path.to_owned();
    move |source| CniError::Io { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_batch() {
        let ports = serde_json::from_str(
            r#"[{"hostPort":8081,"containerPort":80,"protocol":"tcp"},
                {"hostPort":53,"containerPort":5353,"protocol":"udp","hostIP":"192.0.2.1"},
                {"hostPort":54,"containerPort":54,"protocol":"udp","hostIP":"fd00::1"}]"#,
        )
        .unwrap();
        let all = [Mapped { addresses: vec!["10.42.0.5".parse().unwrap()], ports }];
        let subnets = ["10.42.0.0/24".parse().unwrap()];
        let (to, back) = rules("pods", true, &subnets, &all);
        let (nat, masq) = host_port_chains("pods");
        let comment = comment("pods", &to, &back);
        let old = ["-A PREROUTING -j old".to_owned()];
        let came = |port: u16| format!("-m conntrack --ctstate DNAT --ctorigdstport {port}");
        let (first, second) = (came(8081), came(53));
        let expect = format!(
            "*nat\n\
             :{nat} - [0:0]\n\
             :{masq} - [0:0]\n\
             -D PREROUTING -j old\n\
             -A {nat} -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.42.0.5:80\n\
             -A {nat} -d 192.0.2.1 -p udp -m udp --dport 53 -j DNAT --to-destination 10.42.0.5:5353\n\
             -A {masq} -s 10.42.0.0/24 -d 10.42.0.5 -p tcp -m tcp --dport 80 {first} -j MASQUERADE\n\
             -A {masq} -s 127.0.0.0/8 -d 10.42.0.5 -p tcp -m tcp --dport 80 {first} -j MASQUERADE\n\
             -A {masq} -s 10.42.0.0/24 -d 10.42.0.5 -p udp -m udp --dport 5353 {second} -j MASQUERADE\n\
             -A {masq} -s 127.0.0.0/8 -d 10.42.0.5 -p udp -m udp --dport 5353 {second} -j MASQUERADE\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment \"{comment}\" -j {nat}\n\
             -A OUTPUT -m addrtype --dst-type LOCAL -m comment --comment \"{comment}\" -j {nat}\n\
             -A POSTROUTING -m comment --comment \"{comment}\" -j {masq}\n\
             COMMIT\n"
        );
        assert_eq!(render("pods", &to, &back, &old), expect);
        let (to, back) = rules("pods", false, &subnets, &all);
        assert!(to.is_empty() && back.is_empty(), "the pod has no address of that family");
        assert!(render("pods", &to, &back, &[]).contains(&format!("-X {nat}\n-X {masq}\n")));
    }
}
