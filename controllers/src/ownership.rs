//! Which objects a controller counts as its own: those that name it and match its
//! selector, orphans it may adopt, and those it must let go.

use serde_json::{Value, json};
use skiff_proto::{Object, Selector};

use crate::caches::pod::controller_of;

/// What to do about one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Owned,
    Adopt,
    Release,
    Foreign,
}

/// The claiming side.
pub struct Owner<'a> {
    pub uid: &'a str,
    pub selector: &'a Selector,
    pub terminating: bool,
}

impl Owner<'_> {
    pub fn claim(&self, candidate: &Object) -> Claim {
        let matches = self.selector.matches(candidate.labels());
        match controller_of(candidate) {
            Some(owner) if owner.uid != self.uid => Claim::Foreign,
            Some(_) if matches => Claim::Owned,
            Some(_) if self.terminating => Claim::Foreign,
            Some(_) => Claim::Release,
            None if matches && !self.terminating && !candidate.is_terminating() => Claim::Adopt,
            None => Claim::Foreign,
        }
    }
}

/// A controller's reference to itself for what it makes.
pub fn controller_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.index.api_version,
        "kind": owner.index.kind,
        "name": owner.name(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Adds the controller reference to an orphan.
pub fn adopt(object: &mut Value, owner: &Object) {
    let references = &mut object["metadata"]["ownerReferences"];
    match references.as_array_mut() {
        Some(references) => references.push(controller_reference(owner)),
        None => *references = json!([controller_reference(owner)]),
    }
}

/// Takes away all references to an owner.
pub fn release(object: &mut Value, owner_uid: &str) {
    let references = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    if let Some(references) = references {
        references.retain(|reference| reference["uid"] != owner_uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    #[test]
    fn claims_follow_reference_and_selector() {
        let selector = Selector::parse("app=web").expect("parses");
        let live = Owner { uid: "me", selector: &selector, terminating: false };
        let going = Owner { terminating: true, ..live };
        let candidate = |owner: Option<&str>, app: &str, gone: bool| {
            let mut json = json!({"metadata": {"name": "x", "labels": {"app": app}}});
            if let Some(uid) = owner {
                json["metadata"]["ownerReferences"] = json!([{"uid": uid, "controller": true}]);
            }
            if gone {
                json["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
            }
            object(&json)
        };
        for (owner, app, gone, by_live, by_going) in [
            (Some("me"), "web", false, Claim::Owned, Claim::Owned),
            (Some("me"), "db", false, Claim::Release, Claim::Foreign),
            (Some("other"), "web", false, Claim::Foreign, Claim::Foreign),
            (None, "web", false, Claim::Adopt, Claim::Foreign),
            (None, "web", true, Claim::Foreign, Claim::Foreign),
            (None, "db", false, Claim::Foreign, Claim::Foreign),
        ] {
            let candidate = candidate(owner, app, gone);
            assert_eq!(live.claim(&candidate), by_live, "{owner:?} {app} {gone}");
            assert_eq!(going.claim(&candidate), by_going, "{owner:?} {app} {gone}, owner going");
        }
    }

    #[test]
    fn references_are_added_and_taken_away() {
        let owner = object(
            &json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs", "uid": "me"}}),
        );
        let mut pod = json!({"metadata": {"name": "p"}});
        adopt(&mut pod, &owner);
        assert_eq!(
            pod["metadata"]["ownerReferences"],
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "me", "controller": true, "blockOwnerDeletion": true}])
        );
        release(&mut pod, "me");
        assert_eq!(pod["metadata"]["ownerReferences"], json!([]));
    }
}
