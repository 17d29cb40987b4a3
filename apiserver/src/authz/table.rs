//! The built-in permissions: coarse forms of upstream's bootstrap roles, for the cluster's own
//! parts. Administrators are in `system:masters`; everybody else may do nothing.

use skiff_proto::Resource;
use skiff_proto::resource as known;

use super::{Attributes, Authorizer};
use crate::authn::{MASTERS, User};

/// The authorizer that reads this table.
#[derive(Debug, Default)]
pub struct Table;

/// One permission: `*` as the only resource or verb means all. A resource may name its
/// subresource: `pods/status`.
struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
}

const fn rule(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule { group, resources, verbs }
}

const ALL: &[&str] = &["*"];
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const CHANGE: &[&str] = &["update", "patch"];
const COORDINATION: &str = "coordination.k8s.io";

/// upstream: `system:kube-controller-manager` and its controllers, taken together.
const CONTROLLERS: &[Rule] = &[rule("*", ALL, ALL)];

/// upstream: `system:kube-scheduler`
const SCHEDULER: &[Rule] = &[
    rule("", &["events"], WRITE),
    rule("events.k8s.io", &["events"], WRITE),
    rule(COORDINATION, &["leases"], &["create", "get", "list", "watch", "update", "patch"]),
    rule("", &["nodes", "namespaces", "services", "endpoints", "replicationcontrollers"], READ),
    rule("", &["persistentvolumes", "persistentvolumeclaims"], READ),
    rule("", &["pods"], &["get", "list", "watch", "delete"]),
    rule("", &["pods/binding", "bindings"], &["create"]),
    rule("", &["pods/status"], CHANGE),
    rule("apps", &["replicasets", "statefulsets"], READ),
    rule("policy", &["poddisruptionbudgets"], READ),
    rule("storage.k8s.io", ALL, READ),
    rule("scheduling.k8s.io", ALL, READ),
];

/// upstream: `system:node-proxier`
const PROXY: &[Rule] = &[
    rule("", &["services", "endpoints"], &["list", "watch"]),
    rule("", &["nodes"], READ),
    rule("", &["events"], WRITE),
    rule("events.k8s.io", &["events"], WRITE),
    rule("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
];

/// The L7 edge: routes, backends and their certificates.
const INGRESS: &[Rule] = &[
    rule("", &["services", "endpoints", "secrets", "configmaps", "nodes", "namespaces"], READ),
    rule("", &["events"], WRITE),
    rule("discovery.k8s.io", &["endpointslices"], READ),
    rule("networking.k8s.io", &["ingresses", "ingressclasses"], READ),
    // It makes its own class at the first start.
    rule("networking.k8s.io", &["ingressclasses"], &["create"]),
    rule("networking.k8s.io", &["ingresses/status"], CHANGE),
    rule(COORDINATION, &["leases"], &["get", "list", "watch", "create", "update"]),
];

/// upstream: `system:coredns`
const DNS: &[Rule] = &[
    rule("", &["services", "endpoints", "pods", "namespaces", "nodes"], READ),
    rule("discovery.k8s.io", &["endpointslices"], READ),
];

/// upstream: `system:node`, without what the node authorizer narrows by name (see `node_allows`).
const NODE: &[Rule] = &[
    rule("", &["nodes", "pods", "services", "endpoints", "configmaps", "secrets"], READ),
    rule("", &["namespaces", "serviceaccounts", "persistentvolumes"], READ),
    rule("", &["persistentvolumeclaims"], READ),
    // A mirror of a static pod; and removing a pod of its own, which has finished.
    rule("", &["pods"], &["create", "delete"]),
    rule("", &["pods/status"], CHANGE),
    rule("", &["pods/eviction"], &["create"]),
    rule("", &["serviceaccounts/token"], &["create"]),
    rule("", &["nodes"], &["create"]),
    rule("", &["events"], WRITE),
    rule("events.k8s.io", &["events"], WRITE),
    rule("discovery.k8s.io", &["endpointslices"], READ),
    rule("storage.k8s.io", ALL, READ),
    rule("node.k8s.io", ALL, READ),
    rule(
        "certificates.k8s.io",
        &["certificatesigningrequests"],
        &["create", "get", "list", "watch"],
    ),
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
];

const USERS: &[(&str, &[Rule])] = &[
    ("system:kube-controller-manager", CONTROLLERS),
    ("system:kube-scheduler", SCHEDULER),
    ("system:kube-proxy", PROXY),
    ("system:ingress", INGRESS),
    ("system:dns", DNS),
];

impl Authorizer for Table {
    fn allows(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        if user.in_group(MASTERS) {
            return true;
        }
        if let Some(node) = user.node() {
            // A node's own proxy speaks as the node where both share a process.
            return node_allows(node, attributes)
                || any(NODE, attributes)
                || any(PROXY, attributes);
        }
        USERS.iter().any(|(name, rules)| *name == user.name && any(rules, attributes))
    }
}

/// What a node may do to its own objects only: its Node and its heartbeat.
fn node_allows(node: &str, attributes: &Attributes<'_>) -> bool {
    let Attributes { verb, resource, subresource, namespace, name } = *attributes;
    let is = |wanted: &Resource| resource.group == wanted.group && resource.plural == wanted.plural;
    if is(&known::NODES) {
        return name == node && CHANGE.contains(&verb) && matches!(subresource, "" | "status");
    }
    // A create names no object yet: the body does, and only this namespace holds heartbeats.
    is(&known::LEASES)
        && namespace == "kube-node-lease"
        && (name == node && matches!(verb, "get" | "update" | "patch" | "delete")
            || name.is_empty() && verb == "create")
}

fn any(rules: &[Rule], attributes: &Attributes<'_>) -> bool {
    rules.iter().any(|rule| rule.allows(attributes))
}

impl Rule {
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let Attributes { verb, resource, subresource, .. } = *attributes;
        (self.group == "*" || self.group == resource.group)
            && (self.verbs == ALL || self.verbs.contains(&verb))
            && self.resources.iter().any(|named| match named.split_once('/') {
                None if *named == "*" => true,
                None => *named == resource.plural && subresource.is_empty(),
                Some((plural, sub)) => plural == resource.plural && sub == subresource,
            })
    }
}

#[cfg(test)]
mod tests {
    use skiff_proto::resource::{EVENTS, LEASES, NODES, PODS, SECRETS, SERVICES};

    use super::*;

    fn allows(
        user: &User,
        verb: &str,
        resource: &Resource,
        sub: &str,
        ns: &str,
        name: &str,
    ) -> bool {
        let attributes = Attributes { verb, resource, subresource: sub, namespace: ns, name };
        Table.allows(user, &attributes)
    }

    #[test]
    fn masters_may_everything_and_strangers_nothing() {
        let admin = User::new("a", &[MASTERS]);
        let stranger = User::new("s", &["devs"]);
        for verb in ["get", "list", "delete", "deletecollection"] {
            assert!(allows(&admin, verb, &SECRETS, "", "", ""));
            assert!(!allows(&stranger, verb, &PODS, "", "default", "x"));
        }
    }

    #[test]
    fn a_node_changes_only_itself() {
        let node = User::new("system:node:n1", &["system:nodes"]);
        assert!(allows(&node, "patch", &NODES, "status", "", "n1"));
        assert!(!allows(&node, "patch", &NODES, "status", "", "n2"));
        assert!(!allows(&node, "delete", &NODES, "", "", "n1"));
        assert!(allows(&node, "update", &LEASES, "", "kube-node-lease", "n1"));
        assert!(!allows(&node, "update", &LEASES, "", "kube-node-lease", "n2"));
        assert!(!allows(&node, "update", &LEASES, "", "kube-system", "n1"));
        assert!(allows(&node, "patch", &PODS, "status", "default", "web"));
        assert!(!allows(&node, "patch", &PODS, "", "default", "web"));
        assert!(allows(&node, "create", &EVENTS, "", "default", ""));
        assert!(!allows(&node, "update", &SECRETS, "", "default", "x"));
    }

    #[test]
    fn components_have_their_own_rules() {
        let scheduler = User::new("system:kube-scheduler", &[]);
        assert!(allows(&scheduler, "create", &PODS, "binding", "default", "web"));
        assert!(!allows(&scheduler, "get", &SECRETS, "", "default", "x"));
        let proxy = User::new("system:kube-proxy", &[]);
        assert!(allows(&proxy, "watch", &SERVICES, "", "", ""));
        assert!(!allows(&proxy, "update", &SERVICES, "", "default", "x"));
    }
}
