//! IPv4 networks and their division among nodes. Pure.

use std::fmt;
use std::net::Ipv4Addr;

/// A network such as `10.42.0.0/16`, host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    pub base: Ipv4Addr,
    pub bits: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let (base, bits): (Ipv4Addr, u8) = (base.parse().ok()?, bits.parse().ok()?);
        let cidr = Self { base, bits };
        (bits <= 32 && cidr.mask() & u32::from(base) == u32::from(base)).then_some(cidr)
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.base) & mask == u32::from(other.base) & mask
    }

    /// Its parts of `bits` size, in order.
    pub fn parts(self, bits: u8) -> impl Iterator<Item = Cidr> {
        let count = 1u64 << bits.saturating_sub(self.bits);
        let size = 1u64 << (32 - u32::from(bits.min(32)));
        (0..count).map(move |n| {
            // Below 2^32, since the parts lie inside an IPv4 network.
            let base = u64::from(u32::from(self.base)) + n * size;
            Cidr { base: Ipv4Addr::from(base as u32), bits }
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_networks() {
        let cidr = Cidr::parse("10.42.0.0/16").expect("parses");
        assert_eq!(cidr.to_string(), "10.42.0.0/16");
        for text in ["10.42.0.1/16", "10.42.0.0", "10.42.0.0/33", "x/8", "fd00::/8"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn divides_and_compares() {
        let cidr = Cidr::parse("10.42.0.0/22").expect("parses");
        let parts: Vec<String> = cidr.parts(24).map(|c| c.to_string()).collect();
        assert_eq!(parts, ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24"]);
        let inner = Cidr::parse("10.42.2.128/25").expect("parses");
        assert!(cidr.overlaps(&inner) && inner.overlaps(&cidr));
        assert!(!inner.overlaps(&Cidr::parse("10.42.1.0/24").expect("parses")));
    }
}
