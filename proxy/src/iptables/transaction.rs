//! From what the kernel has to what it should have: the text of one `iptables-restore --noflush`. Pure.
//!
//! A chain that is declared (`:CHAIN`) is emptied and filled again; a chain that is not declared is not touched. So
//! the text names only chains whose rules changed. Of what was written, a digest a chain is kept, not the text.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::iptables::render::{Chains, JUMPS, Jump, Rendered};

/// The start of every chain name of ours.
const PREFIX: &str = "SKIFF-";

/// Chains of the CNI plugin carry our prefix too, and are not the proxy's.
const FOREIGN_PREFIXES: [&str; 3] = ["SKIFF-MASQ-", "SKIFF-HP-", "SKIFF-HM-"];

const TABLES: [&str; 2] = ["nat", "filter"];

/// Whether a chain belongs to the proxy.
pub fn is_ours(chain: &str) -> bool {
    chain.starts_with(PREFIX) && !is_pod_network(chain)
}

/// Whether a chain is the CNI plugin's: masquerade and host ports.
pub fn is_pod_network(chain: &str) -> bool {
    FOREIGN_PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// A chain as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    digest: u64,
    rules: usize,
}

/// What the kernel should have since the last transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    chains: BTreeMap<(&'static str, String), Written>,
}

/// What the kernel has, as `iptables-save` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Our chains, by table, with the number of their rules.
    chains: BTreeMap<(&'static str, String), usize>,
    /// Rules elsewhere that lead to a chain of ours: table, and the rule with its `-A BASE`.
    jumps: Vec<(&'static str, String)>,
}

impl State {
    pub fn of(rendered: &Rendered) -> State {
        let mut chains = BTreeMap::new();
        for (table, of_table) in tables(rendered) {
            for (name, rules) in of_table {
                let mut hasher = DefaultHasher::new();
                rules.hash(&mut hasher);
                let written = Written { digest: hasher.finish(), rules: rules.len() };
                chains.insert((table, name.clone()), written);
            }
        }
        State { chains }
    }
}

impl Observed {
    /// Reads the output of `iptables-save` for one or more tables.
    pub fn parse(saved: &str) -> Observed {
        let mut observed = Observed::default();
        let mut table = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = TABLES.into_iter().find(|known| *known == name);
            }
            let Some(table) = table else { continue };
            if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                if is_ours(chain) {
                    observed.chains.insert((table, chain.to_owned()), 0);
                }
            } else if let Some(chain) =
                line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next())
            {
                if let Some(rules) = observed.chains.get_mut(&(table, chain.to_owned())) {
                    *rules += 1;
                } else if target(line).is_some_and(is_ours) {
                    observed.jumps.push((table, line.to_owned()));
                }
            }
        }
        observed
    }

    /// Nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Whether the kernel still has what was written: every chain with its number of rules, and one jump each. Who
    /// edits a rule of ours by hand in place is not seen; who flushes or restores is.
    pub fn holds(&self, state: &State) -> bool {
        let chains = self.chains.len() == state.chains.len()
            && state
                .chains
                .iter()
                .all(|(key, written)| self.chains.get(key) == Some(&written.rules));
        chains && self.jumps.len() == JUMPS.len() && JUMPS.iter().all(|jump| self.has(jump))
    }

    fn has(&self, jump: &Jump) -> bool {
        self.jumps.iter().any(|(table, rule)| {
            *table == jump.table
                && base(rule) == Some(jump.base)
                && target(rule) == Some(jump.target)
        })
    }
}

fn tables(rendered: &Rendered) -> [(&'static str, &Chains); 2] {
    [("nat", &rendered.nat), ("filter", &rendered.filter)]
}

fn target(rule: &str) -> Option<&str> {
    let (_, target) = rule.rsplit_once("-j ")?;
    target.split(' ').next()
}

fn base(rule: &str) -> Option<&str> {
    rule.strip_prefix("-A ")?.split(' ').next()
}

/// Everything anew, whatever is there: our chains filled, others of ours gone, exactly one jump each, in front.
pub fn full(observed: &Observed, rendered: &Rendered) -> String {
    let mut text = String::new();
    for (table, chains) in tables(rendered) {
        let there = observed.chains.keys().filter(|(of, _)| *of == table).map(|(_, chain)| chain);
        let gone: Vec<&String> = there.filter(|chain| !chains.contains_key(*chain)).collect();
        let names: BTreeSet<&String> = chains.keys().collect();
        let mut rules = Vec::new();
        for (_, rule) in observed.jumps.iter().filter(|(of, _)| *of == table) {
            rules.push(rule.replacen("-A ", "-D ", 1));
        }
        // Each is put in front of the one before: backwards, so that they end up in order.
        for jump in JUMPS.iter().rev().filter(|jump| jump.table == table) {
            rules.push(format!("-I {} 1 {}", jump.base, jump.rule()));
        }
        write_table(&mut text, table, chains, &names, &gone, &rules);
    }
    text
}

/// What changed since `state`; none when nothing did.
pub fn delta(state: &State, rendered: &Rendered) -> Option<String> {
    let next = State::of(rendered);
    let mut text = String::new();
    for (table, chains) in tables(rendered) {
        let key = |name: &String| (table, name.clone());
        let differs = |name: &&String| state.chains.get(&key(name)) != next.chains.get(&key(name));
        let names: BTreeSet<&String> = chains.keys().filter(differs).collect();
        let before = state.chains.keys().filter(|(of, _)| *of == table).map(|(_, chain)| chain);
        let gone: Vec<&String> = before.filter(|chain| !chains.contains_key(*chain)).collect();
        if !names.is_empty() || !gone.is_empty() {
            write_table(&mut text, table, chains, &names, &gone, &[]);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Takes everything of ours away; none when nothing is there.
pub fn removal(observed: &Observed) -> Option<String> {
    let mut text = String::new();
    for table in TABLES {
        let gone: Vec<&String> =
            observed.chains.keys().filter(|(of, _)| *of == table).map(|(_, chain)| chain).collect();
        let jumps = observed.jumps.iter().filter(|(of, _)| *of == table);
        let rules: Vec<String> = jumps.map(|(_, rule)| rule.replacen("-A ", "-D ", 1)).collect();
        if !gone.is_empty() || !rules.is_empty() {
            write_table(&mut text, table, &Chains::new(), &BTreeSet::new(), &gone, &rules);
        }
    }
    (!text.is_empty()).then_some(text)
}

fn write_table(
    text: &mut String,
    table: &str,
    chains: &Chains,
    names: &BTreeSet<&String>,
    gone: &[&String],
    jumps: &[String],
) {
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| text.push_str(part));
        text.push('\n');
    };
    line(&["*", table]);
    for chain in names.iter().chain(gone) {
        line(&[":", chain, " - [0:0]"]);
    }
    for rule in jumps {
        line(&[rule]);
    }
    for chain in names {
        for rule in chains.get(*chain).into_iter().flatten() {
            line(&["-A ", chain, " ", rule]);
        }
    }
    for chain in gone {
        line(&["-X ", chain]);
    }
    line(&["COMMIT"]);
}
