//! The next free share. Pure.

use std::collections::HashSet;

use super::cidr::Cidr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Assign(Cidr),
    /// All shares are taken.
    Exhausted,
}

/// `own` is what the node has; `taken` what all nodes have.
pub fn plan(own: &str, taken: &[Cidr], cluster: Cidr, bits: u8) -> Option<Action> {
    if !own.is_empty() {
        return None;
    }
    // Shares of our own size compare by equality; others (nodes that brought theirs, an
    // earlier mask size) by overlap.
    let (same, odd): (Vec<&Cidr>, Vec<&Cidr>) = taken.iter().partition(|cidr| cidr.bits == bits);
    let same: HashSet<&Cidr> = same.into_iter().collect();
    let is_free = |part: &Cidr| !same.contains(part) && !odd.iter().any(|cidr| cidr.overlaps(part));
    Some(cluster.parts(bits).find(is_free).map_or(Action::Exhausted, Action::Assign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).expect("parses")
    }

    #[test]
    fn the_first_free_share_is_given() {
        let cluster = cidr("10.42.0.0/22");
        let given = |taken: &[&str]| {
            let taken: Vec<Cidr> = taken.iter().map(|text| cidr(text)).collect();
            plan("", &taken, cluster, 24)
        };
        let assign = |text: &str| Some(Action::Assign(cidr(text)));
        assert_eq!(given(&[]), assign("10.42.0.0/24"));
        assert_eq!(given(&["10.42.0.0/24", "10.42.2.0/24"]), assign("10.42.1.0/24"));
        assert_eq!(given(&["10.42.0.0/23", "10.42.2.128/25"]), assign("10.42.3.0/24"));
        assert_eq!(given(&["10.42.0.0/22"]), Some(Action::Exhausted));
        assert_eq!(plan("10.42.1.0/24", &[], cluster, 24), None);
    }
}
