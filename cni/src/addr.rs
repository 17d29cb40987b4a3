//! Addresses with a prefix, for both families.
//!
//! Everything the plugin computes (first, last and next address of a range, the gateway, broadcast) is integer
//! arithmetic on the address. Both families go through `u128`, so that IPv6 needs no second code path.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// An address and the length of its network prefix, as in `10.42.0.5/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    pub addr: IpAddr,
    pub prefix: u8,
}

/// Why a text is not an address with a prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an address with a prefix length, such as 10.42.0.0/24")]
pub struct BadCidr(String);

impl Cidr {
    pub fn new(addr: IpAddr, prefix: u8) -> Cidr {
        Cidr { addr, prefix }
    }

    /// The prefix that covers every address of the family of `like`: `0.0.0.0/0` or `::/0`.
    pub fn default_route(like: IpAddr) -> Cidr {
        Cidr::new(from_bits(0, like.is_ipv4()), 0)
    }

    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Bits of an address of this family: 32 or 128.
    pub fn width(&self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    fn host_mask(&self) -> u128 {
        let host_bits = u32::from(self.width() - self.prefix);
        1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1)
    }

    /// The lowest address: the host bits are zero.
    pub fn network(&self) -> IpAddr {
        from_bits(to_bits(self.addr) & !self.host_mask(), self.is_ipv4())
    }

    /// The highest address: the host bits are one. IPv4 broadcasts to it.
    pub fn highest(&self) -> IpAddr {
        from_bits(to_bits(self.addr) | self.host_mask(), self.is_ipv4())
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        self.is_ipv4() == addr.is_ipv4()
            && to_bits(addr) & !self.host_mask() == to_bits(self.network())
    }

    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// The same prefix without host bits: `10.42.0.5/24` becomes `10.42.0.0/24`.
    pub fn truncated(&self) -> Cidr {
        Cidr::new(self.network(), self.prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Cidr, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (addr, prefix) = text.split_once('/').ok_or_else(bad)?;
        let cidr = Cidr::new(addr.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?);
        if cidr.prefix > cidr.width() {
            return Err(bad());
        }
        Ok(cidr)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cidr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn from_bits(bits: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

/// The address `count` after this one, within its family.
pub fn offset(addr: IpAddr, count: u128) -> IpAddr {
    from_bits(to_bits(addr).wrapping_add(count), addr.is_ipv4())
}

/// The address before this one.
pub fn previous(addr: IpAddr) -> IpAddr {
    from_bits(to_bits(addr).wrapping_sub(1), addr.is_ipv4())
}

/// How many addresses lie between the two, both counted; saturating for the widest IPv6 ranges.
pub fn count(first: IpAddr, last: IpAddr) -> u128 {
    to_bits(last).saturating_sub(to_bits(first)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn edges_of_a_prefix() {
        let subnet = cidr("10.42.3.9/24");
        assert_eq!(subnet.network().to_string(), "10.42.3.0");
        assert_eq!(subnet.highest().to_string(), "10.42.3.255");
        assert_eq!(subnet.truncated().to_string(), "10.42.3.0/24");
        assert_eq!(cidr("fd00::5/64").highest().to_string(), "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(cidr("::/0").highest().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(cidr("10.0.0.1/32").network(), cidr("10.0.0.1/32").highest());
    }

    #[test]
    fn families_never_mix() {
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("10.42.0.0/16").overlaps(&cidr("10.42.7.0/24")));
        assert!(!cidr("10.42.0.0/16").overlaps(&cidr("10.43.0.0/16")));
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "/8", "a/8", ""] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
