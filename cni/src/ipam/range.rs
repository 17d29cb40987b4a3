//! Which address comes next.
//!
//! Round robin from the address after the last one given, as host-local does it: an address that was just freed
//! rests for a whole turn, so that neighbours' ARP entries and conntrack entries of its last holder have gone.

use std::fmt;
use std::net::IpAddr;

use crate::addr::{Cidr, count, offset, previous};

/// Addresses from `first` to `last` of one subnet; the gateway is never given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub subnet: Cidr,
    pub first: IpAddr,
    pub last: IpAddr,
    pub gateway: IpAddr,
}

impl Range {
    /// Fills in what is missing as host-local documents it: all hosts of the subnet, the first of them the gateway.
    pub fn new(
        subnet: Cidr,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Range, String> {
        if subnet.truncated() != subnet {
            return Err(format!(
                "{subnet} has host bits set; the network is {}",
                subnet.truncated()
            ));
        }
        if subnet.width() - subnet.prefix < 2 {
            return Err(format!("{subnet} is too small to allocate from"));
        }
        let lowest = offset(subnet.network(), 1);
        // IPv4 keeps the highest address for broadcast; IPv6 has none.
        let highest = if subnet.is_ipv4() { previous(subnet.highest()) } else { subnet.highest() };
        let range = Range {
            subnet,
            first: first.unwrap_or(lowest),
            last: last.unwrap_or(highest),
            gateway: gateway.unwrap_or(lowest),
        };
        for (what, address) in [("rangeStart", range.first), ("rangeEnd", range.last)] {
            if !subnet.contains(address) {
                return Err(format!("{what} {address} is not in {subnet}"));
            }
        }
        if range.first > range.last {
            return Err(format!("rangeStart {} is after rangeEnd {}", range.first, range.last));
        }
        if range.gateway.is_ipv4() != subnet.is_ipv4() {
            return Err(format!("gateway {} is of another family than {subnet}", range.gateway));
        }
        Ok(range)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address) && self.first <= address && address <= self.last
    }

    pub fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.first)
            || self.contains(other.last)
            || other.contains(self.first)
            || other.contains(self.last)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Ranges that together give one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    pub ranges: Vec<Range>,
}

impl RangeSet {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.range_of(address).is_some()
    }

    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(address))
    }

    pub fn overlaps(&self, other: &RangeSet) -> bool {
        self.ranges.iter().any(|range| other.ranges.iter().any(|theirs| theirs.overlaps(range)))
    }

    /// The next address that is not the gateway and not `taken`, starting after `last_reserved`.
    pub fn next_free(
        &self,
        last_reserved: Option<IpAddr>,
        mut taken: impl FnMut(IpAddr) -> bool,
    ) -> Option<(IpAddr, &Range)> {
        let start = last_reserved.and_then(|last| {
            self.ranges.iter().position(|range| range.contains(last)).map(|at| (at, last))
        });
        let (at, skip) = match start {
            Some((at, last)) => (at, count(self.ranges[at].first, last)),
            None => (0, 0),
        };
        // The tail of the range that served last, then the other ranges, then the head of that range again.
        let turns = self.ranges.len() + usize::from(skip > 0);
        for turn in 0..turns {
            let range = &self.ranges[(at + turn) % self.ranges.len()];
            let total = count(range.first, range.last);
            let from = if turn == 0 { skip } else { 0 };
            let until = if turn == self.ranges.len() { skip.min(total) } else { total };
            let mut index = from;
            while index < until {
                let address = offset(range.first, index);
                if address != range.gateway && !taken(address) {
                    return Some((address, range));
                }
                index += 1;
            }
        }
        None
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(&str, &str, &str)]) -> RangeSet {
        let parse = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let ranges = ranges
            .iter()
            .map(|(subnet, first, last)| {
                Range::new(subnet.parse().unwrap(), parse(first), parse(last), None).unwrap()
            })
            .collect();
        RangeSet { ranges }
    }

    /// Takes `steps` addresses in turn, with `held` in use from the start.
    fn check(set: &RangeSet, last: Option<&str>, held: &[&str], steps: usize, expect: &[&str]) {
        let mut held: Vec<IpAddr> = held.iter().map(|text| text.parse().unwrap()).collect();
        let mut last = last.map(|text| text.parse().unwrap());
        let mut given = Vec::new();
        for _ in 0..steps {
            match set.next_free(last, |address| held.contains(&address)) {
                Some((address, _)) => {
                    held.push(address);
                    last = Some(address);
                    given.push(address.to_string());
                }
                None => given.push("none".to_owned()),
            }
        }
        assert_eq!(given, expect);
    }

    #[test]
    fn the_gateway_is_never_given() {
        check(&set(&[("10.0.0.0/30", "", "")]), None, &[], 2, &["10.0.0.2", "none"]);
    }

    #[test]
    fn goes_round_from_the_last_one() {
        let set = set(&[("10.0.0.0/29", "", "")]);
        check(
            &set,
            Some("10.0.0.5"),
            &["10.0.0.3"],
            5,
            &["10.0.0.6", "10.0.0.2", "10.0.0.4", "10.0.0.5", "none"],
        );
    }

    #[test]
    fn ranges_follow_each_other() {
        let set = set(&[
            ("10.0.0.0/24", "10.0.0.10", "10.0.0.11"),
            ("10.9.0.0/24", "10.9.0.7", "10.9.0.8"),
        ]);
        let expect = ["10.0.0.11", "10.9.0.7", "10.9.0.8", "10.0.0.10", "none"];
        check(&set, Some("10.0.0.10"), &[], 5, &expect);
    }

    #[test]
    fn a_last_one_outside_is_ignored() {
        check(&set(&[("10.0.0.0/29", "", "")]), Some("10.7.0.1"), &[], 1, &["10.0.0.2"]);
    }

    #[test]
    fn ipv6_takes_the_same_path() {
        check(&set(&[("fd00::/64", "", "")]), None, &[], 2, &["fd00::2", "fd00::3"]);
    }
}
