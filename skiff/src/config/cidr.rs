//! An IPv4 range in CIDR form.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    pub const fn new(octets: [u8; 4], prefix: u8) -> Self {
        Self { base: u32::from_be_bytes(octets), prefix }
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = self.mask() & other.mask();
        self.base & mask == other.base & mask
    }

    /// The `n`th address; the network's own is number 0.
    pub fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(n))
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || "expected a form such as 10.42.0.0/16".to_owned();
        let (ip, prefix) = text.split_once('/').ok_or_else(fault)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| fault())?;
        let prefix: u8 = prefix.parse().map_err(|_| fault())?;
        if !(8..=30).contains(&prefix) {
            return Err("the prefix must be from 8 to 30".into());
        }
        let cidr = Self { base: u32::from(ip), prefix };
        if cidr.base & !cidr.mask() != 0 {
            return Err(format!(
                "bits are set behind the prefix; did you mean {}/{prefix}",
                Ipv4Addr::from(cidr.base & cidr.mask())
            ));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn reads_and_compares() {
        let cidr: Cidr = "10.43.0.0/16".parse().expect("a range");
        assert_eq!(cidr.address(1).to_string(), "10.43.0.1");
        assert!(cidr.overlaps(&"10.43.5.0/24".parse().expect("a range")));
        assert!(!cidr.overlaps(&"10.42.0.0/16".parse().expect("a range")));
        assert_eq!(
            "10.43.1.0/16".parse::<Cidr>().expect_err("bits"),
            "bits are set behind the prefix; did you mean 10.43.0.0/16"
        );
        assert!("10.43.0.0".parse::<Cidr>().is_err());
    }
}
