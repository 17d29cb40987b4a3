//! What to do about one object, given its owners and dependents. Pure.

use skiff_client::Propagation;

use crate::graph::{Dependent, FOREGROUND, ORPHAN, Uid};

#[derive(Debug, Default)]
pub struct Observed {
    /// As the server has it now.
    pub terminating: bool,
    pub foreground: bool,
    pub orphan: bool,
    pub owners: Vec<(String, Owner)>,
    pub dependents: Vec<Dependent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is there, or it cannot be told.
    Solid,
    /// It is gone, or another object has its name now.
    Dangling,
    /// It goes as soon as this one is gone.
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take the references to this object away from its dependents.
    OrphanDependents(Vec<Uid>),
    /// Let these not hold up their owners: they wait for each other in a circle.
    Unblock(Vec<Uid>),
    RemoveFinalizer(&'static str),
    /// Have a look at these as well.
    LookAt(Vec<Uid>),
    /// Drop the references to these owners.
    DropOwners(Vec<String>),
    Delete(Propagation),
}

pub fn plan(observed: Observed) -> Vec<Action> {
    if observed.terminating {
        return plan_terminating(observed);
    }
    let of = |state: Owner| -> Vec<String> {
        let owners = observed.owners.iter();
        owners.filter(|(_, s)| *s == state).map(|(uid, _)| uid.clone()).collect()
    };
    let (solid, dangling, waiting) = (of(Owner::Solid), of(Owner::Dangling), of(Owner::Waiting));
    if !solid.is_empty() {
        let drop: Vec<String> = dangling.into_iter().chain(waiting).collect();
        return if drop.is_empty() { vec![] } else { vec![Action::DropOwners(drop)] };
    }
    if dangling.is_empty() && waiting.is_empty() {
        return vec![];
    }
    if !waiting.is_empty() && !observed.dependents.is_empty() {
        let circle = observed.dependents.iter().any(|d| d.foreground);
        let mut actions = Vec::new();
        if circle {
            // A dependent that waits for its dependents, down to this very object.
            let uids = observed.dependents.into_iter().filter(|d| d.foreground && d.blocks);
            actions.push(Action::Unblock(uids.map(|d| d.uid).collect()));
        }
        actions.push(Action::Delete(Propagation::Foreground));
        return actions;
    }
    // What the object's own finalizers ask for is kept.
    let propagation = if observed.orphan {
        Propagation::Orphan
    } else if observed.foreground {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    vec![Action::Delete(propagation)]
}

fn plan_terminating(observed: Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    if observed.orphan {
        let uids: Vec<Uid> = observed.dependents.iter().map(|d| d.uid.clone()).collect();
        if !uids.is_empty() {
            actions.push(Action::OrphanDependents(uids));
        }
        actions.push(Action::RemoveFinalizer(ORPHAN));
    } else if observed.foreground {
        if observed.dependents.iter().any(|d| d.blocks) {
            let idle = observed.dependents.into_iter().filter(|d| !d.foreground);
            let uids: Vec<Uid> = idle.map(|d| d.uid).collect();
            actions.extend((!uids.is_empty()).then_some(Action::LookAt(uids)));
        } else {
            actions.push(Action::RemoveFinalizer(FOREGROUND));
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(owners: &[Owner]) -> Observed {
        let owners = owners.iter().enumerate().map(|(n, o)| (format!("o{n}"), *o)).collect();
        Observed { owners, ..Observed::default() }
    }

    fn dependent(uid: &str, blocks: bool, foreground: bool) -> Dependent {
        Dependent { uid: uid.into(), blocks, foreground }
    }

    #[test]
    fn only_objects_without_any_owner_left_go() {
        use Owner::{Dangling, Solid, Waiting};
        let background = vec![Action::Delete(Propagation::Background)];
        for (owners, expected) in [
            (&[][..], vec![]),
            (&[Solid], vec![]),
            (&[Dangling], background.clone()),
            (&[Dangling, Dangling], background.clone()),
            (&[Waiting], background),
            (&[Solid, Dangling], vec![Action::DropOwners(vec!["o1".into()])]),
            (&[Waiting, Solid, Dangling], vec![Action::DropOwners(vec!["o2".into(), "o0".into()])]),
        ] {
            assert_eq!(plan(owned(owners)), expected, "{owners:?}");
        }
    }

    #[test]
    fn finalizers_of_the_object_decide_how_it_goes() {
        let orphan = Observed { orphan: true, ..owned(&[Owner::Dangling]) };
        assert_eq!(plan(orphan), [Action::Delete(Propagation::Orphan)]);
        let foreground = Observed { foreground: true, ..owned(&[Owner::Dangling]) };
        assert_eq!(plan(foreground), [Action::Delete(Propagation::Foreground)]);
    }

    #[test]
    fn foreground_goes_down_the_tree_first() {
        let middle = Observed {
            dependents: vec![dependent("leaf", true, false)],
            ..owned(&[Owner::Waiting])
        };
        assert_eq!(plan(middle), [Action::Delete(Propagation::Foreground)]);
        let top = |dependents| Observed {
            terminating: true,
            foreground: true,
            dependents,
            ..Observed::default()
        };
        let dependents = vec![
            dependent("a", true, false),
            dependent("b", true, true),
            dependent("c", false, false),
        ];
        assert_eq!(plan(top(dependents)), [Action::LookAt(vec!["a".into(), "c".into()])]);
        assert_eq!(
            plan(top(vec![dependent("c", false, false)])),
            [Action::RemoveFinalizer(FOREGROUND)]
        );
        assert_eq!(plan(top(vec![])), [Action::RemoveFinalizer(FOREGROUND)]);
    }

    #[test]
    fn a_circle_is_opened() {
        let circle =
            Observed { dependents: vec![dependent("b", true, true)], ..owned(&[Owner::Waiting]) };
        assert_eq!(
            plan(circle),
            [Action::Unblock(vec!["b".into()]), Action::Delete(Propagation::Foreground)]
        );
    }

    #[test]
    fn orphans_are_let_go_before_the_owner() {
        let owner = Observed {
            terminating: true,
            orphan: true,
            dependents: vec![dependent("a", true, false)],
            ..Observed::default()
        };
        assert_eq!(
            plan(owner),
            [Action::OrphanDependents(vec!["a".into()]), Action::RemoveFinalizer(ORPHAN)]
        );
        let plain = Observed { terminating: true, ..owned(&[Owner::Dangling]) };
        assert_eq!(plan(plain), [], "it goes already");
    }
}
