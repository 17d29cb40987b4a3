//! Walks rendered rules as the kernel would, and answers where a packet goes. Pure.
//!
//! Golden text says what the rules are; the tracer says what they mean, so a test can state "a client outside
//! reaches each of three pods with one third, masqueraded" and survive another way to write the rules. It also
//! explains a path to a person. It knows the matches and targets that `render` uses; any other is an error.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::iptables::render::{Chains, JUMPS, Rendered};
use crate::model::Protocol;

/// The first packet of a connection.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: SocketAddr,
    pub protocol: Protocol,
    /// Sent by the node itself: walks OUTPUT instead of PREROUTING.
    pub from_node: bool,
}

/// What the node is, as far as the rules look at it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub addresses: Vec<IpAddr>,
    /// `recent` lists that know the packet's source.
    pub remembered: BTreeSet<String>,
}

/// Where a packet ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Goes to an endpoint.
    Endpoint {
        target: SocketAddr,
        masqueraded: bool,
    },
    /// The rules leave it as it is.
    Untouched {
        masqueraded: bool,
    },
    Rejected,
    Dropped,
}

/// One possible outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub probability: f64,
    pub fate: Fate,
    /// `recent` lists that know the source afterwards.
    pub remembered: BTreeSet<String>,
}

/// A rule the tracer does not understand.
#[derive(Debug, thiserror::Error)]
#[error("the tracer does not know {word:?} in the rule {rule:?}")]
pub struct UnknownRule {
    word: String,
    rule: String,
}

#[derive(Clone)]
struct Walk<'a> {
    packet: &'a Packet,
    node: &'a Node,
    probability: f64,
    mark: u32,
    target: Option<SocketAddr>,
    masqueraded: bool,
    remembered: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Return,
    Accept,
    Reject,
    Drop,
}

type Ends<'a> = Vec<(Walk<'a>, End)>;

/// Every outcome of a packet, with its probability.
pub fn trace(
    rendered: &Rendered,
    packet: &Packet,
    node: &Node,
) -> Result<Vec<Outcome>, UnknownRule> {
    let walk = Walk {
        packet,
        node,
        probability: 1.0,
        mark: 0,
        target: None,
        masqueraded: false,
        remembered: node.remembered.clone(),
    };
    let mut outcomes = Vec::new();
    for (walk, _) in
        base(rendered, "nat", if packet.from_node { "OUTPUT" } else { "PREROUTING" }, walk)?
    {
        let destination = walk.destination();
        let filter = match (packet.from_node, node.addresses.contains(&destination.ip())) {
            (true, _) => "OUTPUT",
            (false, true) => "INPUT",
            (false, false) => "FORWARD",
        };
        for (walk, end) in base(rendered, "filter", filter, walk)? {
            let (probability, remembered) = (walk.probability, walk.remembered.clone());
            match end {
                End::Reject => {
                    outcomes.push(Outcome { probability, remembered, fate: Fate::Rejected })
                }
                End::Drop => {
                    outcomes.push(Outcome { probability, remembered, fate: Fate::Dropped })
                }
                End::Return | End::Accept => {
                    for (walk, _) in base(rendered, "nat", "POSTROUTING", walk)? {
                        let masqueraded = walk.masqueraded;
                        let fate = match walk.target {
                            Some(target) => Fate::Endpoint { target, masqueraded },
                            None => Fate::Untouched { masqueraded },
                        };
                        outcomes.push(Outcome { probability, remembered: walk.remembered, fate });
                    }
                }
            }
        }
    }
    Ok(outcomes)
}

/// Follows our jumps out of a chain of everybody's, in order.
fn base<'a>(
    rendered: &Rendered,
    table: &str,
    base: &str,
    walk: Walk<'a>,
) -> Result<Ends<'a>, UnknownRule> {
    let chains = if table == "nat" { &rendered.nat } else { &rendered.filter };
    let jumps = JUMPS.iter().filter(|jump| jump.table == table && jump.base == base);
    let rules: Vec<String> = jumps.map(|jump| jump.rule()).collect();
    follow(chains, &rules, walk)
}

fn follow<'a>(chains: &Chains, rules: &[String], walk: Walk<'a>) -> Result<Ends<'a>, UnknownRule> {
    let mut ends = Vec::new();
    let mut walks = vec![walk];
    for rule in rules {
        let mut going = Vec::new();
        for walk in walks {
            let parsed = Parsed::read(rule, walk)?;
            going.extend(parsed.passed_by);
            let Some(mut walk) = parsed.matched else { continue };
            match parsed.target.as_slice() {
                ["ACCEPT"] => ends.push((walk, End::Accept)),
                ["RETURN"] => ends.push((walk, End::Return)),
                ["REJECT"] => ends.push((walk, End::Reject)),
                ["DROP"] => ends.push((walk, End::Drop)),
                ["DNAT", "--to-destination", target] => {
                    walk.target = Some(target.parse().map_err(|_| unknown(target, rule))?);
                    ends.push((walk, End::Accept));
                }
                ["MASQUERADE", "--random-fully"] => {
                    walk.masqueraded = true;
                    ends.push((walk, End::Accept));
                }
                ["MARK", operation, value] => {
                    let value = hexadecimal(value).ok_or_else(|| unknown(value, rule))?;
                    walk.mark = match *operation {
                        "--or-mark" => walk.mark | value,
                        "--and-mark" => walk.mark & value,
                        "--xor-mark" => walk.mark ^ value,
                        other => return Err(unknown(other, rule)),
                    };
                    going.push(walk);
                }
                [chain] if chains.contains_key(*chain) => {
                    for (walk, end) in follow(chains, &chains[*chain], walk)? {
                        match end {
                            End::Return => going.push(walk),
                            end => ends.push((walk, end)),
                        }
                    }
                }
                other => return Err(unknown(&other.join(" "), rule)),
            }
        }
        walks = going;
    }
    ends.extend(walks.into_iter().map(|walk| (walk, End::Return)));
    Ok(ends)
}

fn unknown(word: &str, rule: &str) -> UnknownRule {
    UnknownRule { word: word.to_owned(), rule: rule.to_owned() }
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// A rule against one walk: the part of it that matches, the part that does not (both, where a die is cast).
struct Parsed<'a, 'r> {
    matched: Option<Walk<'a>>,
    passed_by: Vec<Walk<'a>>,
    target: Vec<&'r str>,
}

impl<'a, 'r> Parsed<'a, 'r> {
    fn read(rule: &'r str, walk: Walk<'a>) -> Result<Parsed<'a, 'r>, UnknownRule> {
        let words = split(rule);
        let mut words = words.iter().copied().peekable();
        let mut parsed = Parsed { matched: Some(walk), passed_by: Vec::new(), target: Vec::new() };
        let (mut negated, mut list) = (false, "");
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| unknown(word, rule));
            let fits = match word {
                "!" => {
                    negated = true;
                    continue;
                }
                "-j" => {
                    parsed.target = words.collect();
                    break;
                }
                "-m" | "--mode" | "--comment" | "--seconds" => {
                    value()?;
                    continue;
                }
                "--reap" => continue,
                "--name" => {
                    list = value()?;
                    continue;
                }
                "--set" => {
                    parsed.remember(list);
                    continue;
                }
                "--probability" => {
                    let probability: f64 = value()?.parse().map_err(|_| unknown(word, rule))?;
                    parsed.cast(probability);
                    continue;
                }
                "--rcheck" => parsed.ask(|walk| Some(walk.remembered.contains(list))),
                "-s" => {
                    let prefix = value()?;
                    parsed.ask(|walk| within(walk.packet.source, prefix))
                }
                "-d" => {
                    let prefix = value()?;
                    parsed.ask(|walk| within(walk.destination().ip(), prefix))
                }
                "-p" => {
                    let protocol = value()?;
                    parsed.ask(|walk| Some(walk.packet.protocol.to_string() == protocol))
                }
                "--dport" => {
                    let port = value()?;
                    parsed.ask(|walk| Some(walk.destination().port().to_string() == port))
                }
                "--dst-type" | "--src-type" => {
                    value()?;
                    parsed.ask(|walk| {
                        let address = if word == "--dst-type" {
                            walk.destination().ip()
                        } else {
                            walk.packet.source
                        };
                        Some(address.is_loopback() || walk.node.addresses.contains(&address))
                    })
                }
                "--mark" => {
                    let (mark, mask) = value()?.split_once('/').unwrap_or_default();
                    let pair = hexadecimal(mark)
                        .zip(hexadecimal(mask))
                        .ok_or_else(|| unknown(word, rule))?;
                    parsed.ask(|walk| Some(walk.mark & pair.1 == pair.0))
                }
                "--ctstate" => {
                    let states = value()?;
                    parsed.ask(|walk| {
                        let has = |state| states.split(',').any(|listed| listed == state);
                        Some(has("NEW") || (has("DNAT") && walk.target.is_some()))
                    })
                }
                other => return Err(unknown(other, rule)),
            };
            let fits = fits.ok_or_else(|| unknown(word, rule))?;
            parsed.require(fits != std::mem::take(&mut negated));
        }
        Ok(parsed)
    }

    /// True for a walk that is past already: nothing more can keep it here.
    fn ask(&self, question: impl Fn(&Walk) -> Option<bool>) -> Option<bool> {
        self.matched.as_ref().map_or(Some(true), question)
    }

    fn require(&mut self, fits: bool) {
        if !fits {
            self.passed_by.extend(self.matched.take());
        }
    }

    fn cast(&mut self, probability: f64) {
        if let Some(walk) = &mut self.matched {
            let mut other = walk.clone();
            other.probability *= 1.0 - probability;
            walk.probability *= probability;
            self.passed_by.push(other);
        }
    }

    fn remember(&mut self, list: &str) {
        if let Some(walk) = &mut self.matched {
            walk.remembered.insert(list.to_owned());
        }
    }
}

impl Walk<'_> {
    fn destination(&self) -> SocketAddr {
        self.target.unwrap_or(self.packet.destination)
    }
}

/// Words, with what stands in quotes as one word.
fn split(rule: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (index, part) in rule.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part);
        } else {
            words.extend(part.split_whitespace());
        }
    }
    words
}

/// Whether an address is in a prefix; an address alone is a prefix of its full length.
fn within(address: IpAddr, prefix: &str) -> Option<bool> {
    let (network, length) = match prefix.split_once('/') {
        Some((network, length)) => (network, length.parse::<u32>().ok()?),
        None => (prefix, if address.is_ipv4() { 32 } else { 128 }),
    };
    let network: IpAddr = network.parse().ok()?;
    Some(match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    })
}
