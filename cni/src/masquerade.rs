//! Masquerade for what leaves the cluster: the rules (pure text) and the iptables commands that bring them in.
//!
//! One chain a network, not one a container as upstream has it: the number of rules does not grow with pods.
//!
//! ```text
//! POSTROUTING -m comment --comment "skiff-cni pods 5f3a..." -j SKIFF-MASQ-...
//! SKIFF-MASQ-... -d 10.42.0.0/24 -j RETURN          each pod range, each nonMasqueradeCIDR
//! SKIFF-MASQ-... -d 224.0.0.0/4 -j RETURN
//! SKIFF-MASQ-... -s 10.42.0.0/24 -j MASQUERADE      each pod range
//! ```
//!
//! The comment ends with a digest of the chain's rules. So one `iptables -C` of the jump tells whether all is as it
//! should be; only when it is not, the chain is written again in one `iptables-restore` transaction. Who flushes the
//! table is seen by that; who empties our chain alone is seen by CHECK, which looks at the chain too.

use crate::addr::Cidr;
use crate::error::CniError;
use crate::firewall::{self, iptables, jumps_to, restore};
use crate::names::masquerade_chain;

/// The masquerade of one network in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    network: String,
    ipv4: bool,
    sources: Vec<Cidr>,
    spared: Vec<Cidr>,
}

impl Masquerade {
    /// None when the network has no range of this family.
    pub fn of(network: &str, ipv4: bool, subnets: &[Cidr], spared: &[Cidr]) -> Option<Masquerade> {
        let family = |list: &[Cidr]| -> Vec<Cidr> {
            list.iter().copied().filter(|cidr| cidr.is_ipv4() == ipv4).collect()
        };
        let sources = family(subnets);
        if sources.is_empty() {
            return None;
        }
        let mut all = sources.clone();
        all.extend(family(spared));
        all.sort();
        all.dedup();
        Some(Masquerade { network: network.to_owned(), ipv4, sources, spared: all })
    }

    fn chain(&self) -> String {
        masquerade_chain(&self.network)
    }

    fn rules(&self) -> Vec<String> {
        let chain = self.chain();
        let multicast = if self.ipv4 { "224.0.0.0/4" } else { "ff00::/8" };
        let mut rules = Vec::new();
        for cidr in &self.spared {
            rules.push(format!("-A {chain} -d {cidr} -j RETURN"));
        }
        rules.push(format!("-A {chain} -d {multicast} -j RETURN"));
        for cidr in &self.sources {
            rules.push(format!("-A {chain} -s {cidr} -j MASQUERADE --random-fully"));
        }
        rules
    }

    fn comment(&self) -> String {
        firewall::comment(&self.network, &self.rules())
    }

    /// The batch that makes the chain right and leaves one jump to it. `jumps` are the rules of POSTROUTING that
    /// lead to the chain now, as `iptables -S` prints them.
    pub fn render(&self, jumps: &[String]) -> String {
        let chain = self.chain();
        let mut lines = vec!["*nat".to_owned(), format!(":{chain} - [0:0]")];
        lines.extend(jumps.iter().map(|rule| rule.replacen("-A ", "-D ", 1)));
        lines.extend(self.rules());
        lines
            .push(format!("-A POSTROUTING -m comment --comment \"{}\" -j {chain}", self.comment()));
        lines.push("COMMIT\n".to_owned());
        lines.join("\n")
    }

    /// Whether the jump is there; the digest in it stands for the chain's rules.
    pub fn is_present(&self) -> Result<bool, CniError> {
        let (comment, chain) = (self.comment(), self.chain());
        let rule = ["-C", "POSTROUTING", "-m", "comment", "--comment", &comment, "-j", &chain];
        Ok(iptables(self.ipv4, &rule)?.is_ok())
    }

    /// Whether the jump is there and the chain has all its rules.
    pub fn is_complete(&self) -> Result<bool, CniError> {
        if !self.is_present()? {
            return Ok(false);
        }
        let listing = iptables(self.ipv4, &["-S", &self.chain()])?.unwrap_or_default();
        Ok(listing.lines().filter(|line| line.starts_with("-A ")).count() == self.rules().len())
    }

    /// Writes the chain and the jump, whatever is there now.
    pub fn write(&self) -> Result<(), CniError> {
        restore(self.ipv4, &self.render(&jumps_to(self.ipv4, "POSTROUTING", &self.chain())?))
    }
}

/// Removes a network's chain and the jumps to it, in both families; nothing there is fine too.
pub fn remove(network: &str) -> Result<bool, CniError> {
    let chain = masquerade_chain(network);
    let mut removed = false;
    for ipv4 in [true, false] {
        // A host without ip6tables, or without its table, has no chain of ours there.
        if !matches!(iptables(ipv4, &["-S", &chain]), Ok(Ok(_))) {
            continue;
        }
        let mut lines = vec!["*nat".to_owned(), format!(":{chain} - [0:0]")];
        lines.extend(
            jumps_to(ipv4, "POSTROUTING", &chain)?
                .iter()
                .map(|rule| rule.replacen("-A ", "-D ", 1)),
        );
        lines.push(format!("-X {chain}"));
        lines.push("COMMIT\n".to_owned());
        restore(ipv4, &lines.join("\n"))?;
        removed = true;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(list: &[&str]) -> Vec<Cidr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn golden_batch() {
        let masquerade = Masquerade::of(
            "pods",
            true,
            &cidrs(&["10.42.3.0/24", "fd00::/64"]),
            &cidrs(&["10.42.0.0/16"]),
        )
        .unwrap();
        let old = "-A POSTROUTING -m comment --comment \"skiff-cni pods 0\" -j SKIFF-MASQ-E7CB5D1B"
            .to_owned();
        let chain = masquerade_chain("pods");
        let comment = masquerade.comment();
        let expect = format!(
            "*nat\n\
             :{chain} - [0:0]\n\
             -D POSTROUTING -m comment --comment \"skiff-cni pods 0\" -j SKIFF-MASQ-E7CB5D1B\n\
             -A {chain} -d 10.42.0.0/16 -j RETURN\n\
             -A {chain} -d 10.42.3.0/24 -j RETURN\n\
             -A {chain} -d 224.0.0.0/4 -j RETURN\n\
             -A {chain} -s 10.42.3.0/24 -j MASQUERADE --random-fully\n\
             -A POSTROUTING -m comment --comment \"{comment}\" -j {chain}\n\
             COMMIT\n"
        );
        assert_eq!(masquerade.render(&[old]), expect);
    }

    #[test]
    fn the_comment_changes_with_the_rules() {
        let of = |spared: &[&str]| {
            Masquerade::of("pods", true, &cidrs(&["10.42.3.0/24"]), &cidrs(spared)).unwrap()
        };
        assert_eq!(of(&[]).comment(), of(&["10.42.3.0/24"]).comment());
        assert_ne!(of(&[]).comment(), of(&["10.42.0.0/16"]).comment());
    }

    #[test]
    fn a_family_without_range_has_none() {
        assert_eq!(Masquerade::of("pods", false, &cidrs(&["10.42.3.0/24"]), &[]), None);
    }
}
