//! The graph of owner references. Pure: changes in, uids to look at out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use skiff_proto::{Object, ObjectKey};

pub type Uid = Arc<str>;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// A place in the feed's table of resources.
    pub resource: usize,
    pub key: ObjectKey,
    pub owners: Vec<Owner>,
    pub terminating: bool,
    /// Waits for its dependents to go before it goes itself.
    pub foreground: bool,
    /// Lets its dependents live.
    pub orphan: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub uid: Uid,
    /// The owner may not go before this dependent does.
    pub blocks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    Present,
    /// Going, but only after its dependents.
    WaitingForDependents,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    pub uid: Uid,
    pub blocks: bool,
    /// It is being removed in the foreground already.
    pub foreground: bool,
}

/// What follows from a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Objects the garbage collector should look at.
    pub suspects: BTreeSet<Uid>,
    /// Namespaces where the last object of some kind has gone.
    pub emptied: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    /// By the owner's uid, whether or not the owner is known.
    dependents: HashMap<Uid, HashSet<Uid>>,
    /// Objects by resource and namespace.
    counts: HashMap<(usize, String), usize>,
}

impl Node {
    pub fn of(resource: usize, object: &Object) -> Self {
        let meta = &object.index.metadata;
        let owner = |o: &skiff_proto::OwnerReference| Owner {
            uid: o.uid.as_str().into(),
            blocks: o.block_owner_deletion,
        };
        Self {
            resource,
            key: object.key(),
            owners: meta.owner_references.iter().map(owner).collect(),
            terminating: object.is_terminating(),
            foreground: meta.finalizers.iter().any(|f| f == FOREGROUND),
            orphan: meta.finalizers.iter().any(|f| f == ORPHAN),
        }
    }

    fn waits_for_dependents(&self) -> bool {
        self.terminating && self.foreground
    }
}

impl Graph {
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn owner_state(&self, uid: &str) -> Option<OwnerState> {
        self.nodes.get(uid).map(|node| {
            if node.waits_for_dependents() {
                OwnerState::WaitingForDependents
            } else {
                OwnerState::Present
            }
        })
    }

    pub fn dependents(&self, uid: &str) -> Vec<Dependent> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        let mut dependents: Vec<Dependent> = uids
            .filter_map(|dependent| {
                let node = self.nodes.get(dependent)?;
                let blocks = node.owners.iter().any(|o| &*o.uid == uid && o.blocks);
                let foreground = node.waits_for_dependents();
                Some(Dependent { uid: dependent.clone(), blocks, foreground })
            })
            .collect();
        dependents.sort_by(|a, b| a.uid.cmp(&b.uid));
        dependents
    }

    pub fn upsert(&mut self, uid: &str, node: Node) -> Effects {
        let mut effects = Effects::default();
        let uid: Uid = uid.into();
        let old = self.nodes.get(&uid).cloned();
        if old.as_ref() == Some(&node) {
            return effects;
        }
        match &old {
            Some(old) => self.unlink(&uid, old, &node, &mut effects),
            None => *self.counts.entry(place(&node)).or_default() += 1,
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let starts_waiting =
            node.waits_for_dependents() && !old.is_some_and(|old| old.waits_for_dependents());
        if starts_waiting {
            effects.suspects.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        self.nodes.insert(uid.clone(), node);
        if self.is_suspect(&uid) {
            effects.suspects.insert(uid);
        }
        effects
    }

    /// Owners that are no longer named, or no longer blocked, may go now.
    fn unlink(&mut self, uid: &Uid, old: &Node, new: &Node, effects: &mut Effects) {
        for owner in &old.owners {
            let still = new.owners.iter().find(|o| o.uid == owner.uid);
            if still.is_none() {
                self.drop_dependent(&owner.uid, uid);
            }
            let unblocked = owner.blocks && !still.is_some_and(|o| o.blocks);
            if unblocked && self.owner_state(&owner.uid) == Some(OwnerState::WaitingForDependents) {
                effects.suspects.insert(owner.uid.clone());
            }
        }
    }

    fn drop_dependent(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    pub fn remove(&mut self, uid: &str) -> Effects {
        let mut effects = Effects::default();
        let Some((uid, node)) = self.nodes.remove_entry(uid) else { return effects };
        effects.suspects.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        for owner in &node.owners {
            self.drop_dependent(&owner.uid, &uid);
            if self.owner_state(&owner.uid) == Some(OwnerState::WaitingForDependents) {
                effects.suspects.insert(owner.uid.clone());
            }
        }
        let place = place(&node);
        if let Some(count) = self.counts.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place);
                effects.emptied.extend(Some(place.1).filter(|namespace| !namespace.is_empty()));
            }
        }
        effects
    }

    /// Uids of one resource that are not among those listed: they went unnoticed.
    pub fn missing(&self, resource: usize, listed: &HashSet<&str>) -> Vec<Uid> {
        let of_resource = self.nodes.iter().filter(|(_, node)| node.resource == resource);
        of_resource
            .filter(|(uid, _)| !listed.contains(&***uid))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// Everything worth a look, after a list brought changes whose order is unknown.
    pub fn suspects(&self) -> Vec<Uid> {
        self.nodes.keys().filter(|uid| self.is_suspect(uid)).cloned().collect()
    }

    fn is_suspect(&self, uid: &Uid) -> bool {
        let Some(node) = self.nodes.get(uid) else { return false };
        if node.terminating {
            return node.foreground || node.orphan;
        }
        let present = |o: &Owner| self.owner_state(&o.uid) == Some(OwnerState::Present);
        !node.owners.iter().all(present)
    }
}

fn place(node: &Node) -> (usize, String) {
    (node.resource, node.key.namespace.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, owners: &[(&str, bool)]) -> Node {
        let owner = |(uid, blocks): &(&str, bool)| Owner { uid: (*uid).into(), blocks: *blocks };
        Node {
            resource: 0,
            key: ObjectKey::new("shop", name),
            owners: owners.iter().map(owner).collect(),
            terminating: false,
            foreground: false,
            orphan: false,
        }
    }

    fn foreground(node: Node) -> Node {
        Node { terminating: true, foreground: true, ..node }
    }

    fn suspects(effects: Effects) -> Vec<String> {
        effects.suspects.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dependents_of_what_goes_are_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(suspects(graph.upsert("rs", node("rs", &[]))), Vec::<String>::new());
        assert_eq!(suspects(graph.upsert("a", node("a", &[("rs", true)]))), Vec::<String>::new());
        graph.upsert("b", node("b", &[("rs", true)]));
        let effects = graph.remove("rs");
        assert!(effects.emptied.is_empty());
        assert_eq!(suspects(effects), ["a", "b"]);
        graph.remove("a");
        assert_eq!(graph.remove("b").emptied, BTreeSet::from(["shop".to_owned()]));
    }

    #[test]
    fn an_unknown_owner_makes_a_suspect() {
        let mut graph = Graph::default();
        assert_eq!(suspects(graph.upsert("a", node("a", &[("rs", true)]))), ["a"]);
        graph.upsert("rs", node("rs", &[]));
        assert_eq!(graph.suspects(), Vec::<Uid>::new(), "the owner was only late");
    }

    #[test]
    fn foreground_removal_wakes_dependents_and_then_the_owner() {
        let mut graph = Graph::default();
        graph.upsert("rs", node("rs", &[]));
        graph.upsert("a", node("a", &[("rs", true)]));
        graph.upsert("b", node("b", &[("rs", true)]));
        assert_eq!(suspects(graph.upsert("rs", foreground(node("rs", &[])))), ["a", "b", "rs"]);
        assert_eq!(suspects(graph.remove("a")), ["rs"]);
        // b is let go instead of being removed.
        assert_eq!(suspects(graph.upsert("b", node("b", &[]))), ["rs"]);
        assert_eq!(graph.dependents("rs"), []);
    }

    #[test]
    fn objects_that_a_new_list_lacks_are_found() {
        let mut graph = Graph::default();
        graph.upsert("a", node("a", &[]));
        graph.upsert("b", node("b", &[]));
        graph.upsert("c", Node { resource: 1, ..node("c", &[]) });
        assert_eq!(graph.missing(0, &HashSet::from(["b"])), ["a".into()]);
    }
}
