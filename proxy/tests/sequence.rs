//! Random histories of Services and endpoints: after each step the differences written so far must add up to what
//! rendering from nothing gives, every text must be one that iptables-restore accepts, and every packet must go where
//! the table says. A failure prints its seed; `SEED=n cargo test -p skiff-proxy --test sequence` replays it.

#![allow(clippy::unwrap_used)]

mod plan;

use std::collections::BTreeMap;

use plan::{apply, send, service, settings, slice};
use serde_json::{Value, json};
use skiff_proxy::iptables::render::{Chains, Rendered, render};
use skiff_proxy::iptables::transaction::{Observed, State, delta, full};
use skiff_proxy::table::Table;
use skiff_proxy::tracer::Fate;

const SEEDS: u64 = 30;
const STEPS: usize = 40;

/// Knuth's linear congruential generator: enough for choices, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What iptables-restore --noflush does to our chains, with its refusals.
#[derive(Default)]
struct Kernel {
    tables: BTreeMap<String, Chains>,
}

impl Kernel {
    fn restore(&mut self, text: &str) {
        let mut table = String::new();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
                continue;
            }
            let chains = self.tables.entry(table.clone()).or_default();
            match word {
                "COMMIT" => check_references(chains),
                // Jumps in chains of everybody's are not part of the comparison.
                "-I" | "-D" => {}
                "-A" => {
                    let (chain, rule) = rest.split_once(' ').unwrap();
                    chains.get_mut(chain).expect("a rule needs its chain").push(rule.to_owned());
                }
                "-X" => {
                    let removed = chains.remove(rest).expect("only a chain that is there can go");
                    assert!(removed.is_empty(), "a chain must be empty to go: {rest}");
                }
                _ => {
                    let name =
                        word.strip_prefix(':').unwrap_or_else(|| panic!("bad line {line:?}"));
                    chains.insert(name.to_owned(), Vec::new());
                }
            }
        }
    }

    fn rendered(&self) -> Rendered {
        let table = |name: &str| self.tables.get(name).cloned().unwrap_or_default();
        Rendered { nat: table("nat"), filter: table("filter") }
    }
}

fn check_references(chains: &Chains) {
    for rule in chains.values().flatten() {
        let target = rule.rsplit_once("-j ").unwrap().1;
        assert!(!target.starts_with("SKIFF-") || chains.contains_key(target), "dangling: {rule}");
    }
}

/// One random change of one of a few Services.
fn step(dice: &mut Dice) -> Value {
    let number = dice.below(4);
    let name = format!("s{number}");
    if dice.below(2) == 0 {
        let states = ["ready", "draining", "unready"];
        let endpoints: Vec<String> = (0..dice.below(5))
            .map(|_| {
                let node = dice.below(2);
                let state = states[dice.below(3) as usize];
                format!("10.42.{node}.{}@n{}!{state}", 2 + dice.below(4), node + 1)
            })
            .collect();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        return slice(&name, ("p", "TCP", 8080), &endpoints);
    }
    let policy = |dice: &mut Dice| if dice.below(3) == 0 { "Local" } else { "Cluster" };
    let spec = match dice.below(4) {
        0 => Value::Null,
        kind => json!({
            "type": if kind == 1 { "ClusterIP" } else { "NodePort" },
            "clusterIP": format!("10.43.0.{}", 10 + number),
            "internalTrafficPolicy": policy(dice),
            "externalTrafficPolicy": policy(dice),
            "sessionAffinity": if dice.below(4) == 0 { "ClientIP" } else { "None" },
            "ports": [{"name": "p", "port": 80, "nodePort": 30000 + number}],
        }),
    };
    service(&name, spec)
}

/// Every service's cluster IP sends a pod's connections to each of its endpoints alike, or refuses them.
fn check_meaning(table: &Table, rules: &Rendered) {
    for port in table.ports() {
        let endpoints = port.endpoints(port.service.internal);
        let target = format!("{}:80", port.service.cluster_ips[0]);
        let outcomes = send(rules, "10.42.9.9", &target);
        let sum: f64 = outcomes.iter().map(|outcome| outcome.probability).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{target}: {outcomes:?}");
        if endpoints.is_empty() {
            assert!(matches!(outcomes[0].fate, Fate::Rejected | Fate::Dropped), "{outcomes:?}");
            continue;
        }
        assert_eq!(outcomes.len(), endpoints.len());
        for (outcome, endpoint) in outcomes.iter().zip(endpoints) {
            let fate = Fate::Endpoint { target: endpoint.target, masqueraded: false };
            assert_eq!(outcome.fate, fate);
            assert!((outcome.probability - 1.0 / endpoints.len() as f64).abs() < 1e-6);
        }
    }
}

fn play(seed: u64) {
    let (mut dice, mut table, mut kernel) = (Dice(seed), Table::new("n1"), Kernel::default());
    let first = render(&table, &settings());
    kernel.restore(&full(&Observed::default(), &first));
    let mut state = State::of(&first);
    for _ in 0..STEPS {
        for _ in 0..=dice.below(3) {
            apply(&mut table, &[step(&mut dice)]);
        }
        let rules = render(&table, &settings());
        if let Some(text) = delta(&state, &rules) {
            kernel.restore(&text);
        }
        assert_eq!(kernel.rendered(), rules);
        check_meaning(&table, &rules);
        state = State::of(&rules);
    }
}

#[test]
fn differences_add_up() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    for seed in seeds {
        if std::panic::catch_unwind(|| play(seed)).is_err() {
            panic!("seed {seed} failed; SEED={seed} cargo test -p skiff-proxy --test sequence");
        }
    }
}
