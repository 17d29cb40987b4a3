//! Placement rules of a pod, compiled once when the pod is first seen: node affinity,
//! topology spread, pod affinity. Matching then neither parses nor allocates.

use std::collections::BTreeMap;

use skiff_proto::model::{NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration};
use skiff_proto::selector::Requirement as LabelRequirement;
use skiff_proto::{LabelSelector, Labels, Selector, model};

use crate::nodes::NodeInfo;

/// One `nodeSelectorTerm`: all requirements must hold. An empty term matches no node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeTerm {
    labels: Vec<NodeRequirement>,
    fields: Vec<NodeRequirement>,
}

#[derive(Debug, Clone, PartialEq)]
enum NodeRequirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
    Greater(String, i64),
    Less(String, i64),
    /// An operator or a number that cannot be read; validation refuses these.
    Never,
}

impl NodeRequirement {
    fn compile(r: &NodeSelectorRequirement) -> Self {
        let number = || r.values.first().and_then(|v| v.parse().ok());
        match r.operator.as_str() {
            "In" => Self::In(r.key.clone(), r.values.clone()),
            "NotIn" => Self::NotIn(r.key.clone(), r.values.clone()),
            "Exists" => Self::Exists(r.key.clone()),
            "DoesNotExist" => Self::NotExists(r.key.clone()),
            "Gt" => number().map_or(Self::Never, |n| Self::Greater(r.key.clone(), n)),
            "Lt" => number().map_or(Self::Never, |n| Self::Less(r.key.clone(), n)),
            _ => Self::Never,
        }
    }

    fn holds<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| value(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => value(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => value(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(key) => value(key).is_some(),
            Self::NotExists(key) => value(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|n| n > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|n| n < *bound),
            Self::Never => false,
        }
    }
}

impl NodeTerm {
    pub fn compile(term: &NodeSelectorTerm) -> Self {
        let compile = |list: &[_]| list.iter().map(NodeRequirement::compile).collect();
        Self { labels: compile(&term.match_expressions), fields: compile(&term.match_fields) }
    }

    pub fn matches(&self, node: &NodeInfo) -> bool {
        let label = |key: &str| node.labels.get(key).map(String::as_str);
        let field = |key: &str| (key == "metadata.name").then_some(&*node.name);
        (!self.labels.is_empty() || !self.fields.is_empty())
            && self.labels.iter().all(|r| r.holds(label))
            && self.fields.iter().all(|r| r.holds(field))
    }

    /// The only nodes this term can match, if it names them.
    pub fn node_names(&self) -> Option<&[String]> {
        self.fields.iter().find_map(|r| match r {
            NodeRequirement::In(key, names) if key == "metadata.name" => Some(names.as_slice()),
            _ => None,
        })
    }
}

/// Whether a toleration covers a taint, as the API documents it: an empty key with
/// `Exists` covers every taint, an empty effect every effect.
pub fn tolerates(tolerations: &[Toleration], taint: &model::Taint) -> bool {
    tolerations.iter().any(|t| {
        (t.effect.is_empty() || t.effect == taint.effect)
            && (t.key.is_empty() || t.key == taint.key)
            && match t.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => t.key == taint.key && t.value == taint.value,
                _ => false,
            }
    })
}

/// A topology spread constraint.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: String,
    /// `DoNotSchedule`; otherwise it only scores.
    pub hard: bool,
    /// Which pods count; `None` counts none.
    pub selector: Option<Selector>,
    pub min_domains: i64,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

impl Spread {
    pub fn compile(c: &model::TopologySpreadConstraint, pod_labels: &Labels) -> Self {
        let mut selector = c.label_selector.as_ref().and_then(|s| s.compile().ok());
        if let Some(selector) = &mut selector {
            // A key that the pod does not carry is ignored, as the API documents it.
            for key in &c.match_label_keys {
                if let Some(value) = pod_labels.get(key) {
                    let same = LabelRequirement::In(key.clone(), vec![value.clone()]);
                    selector.requirements.push(same);
                }
            }
        }
        Self {
            max_skew: i64::from(c.max_skew),
            topology_key: c.topology_key.clone(),
            hard: c.when_unsatisfiable != "ScheduleAnyway",
            selector,
            min_domains: i64::from(c.min_domains.unwrap_or(1)),
            honor_affinity: c.node_affinity_policy != "Ignore",
            honor_taints: c.node_taints_policy == "Honor",
        }
    }

    pub fn counts(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|s| s.matches(labels))
    }
}

/// A pod affinity or anti-affinity term.
#[derive(Debug, Clone, PartialEq)]
pub struct PodTerm {
    pub topology_key: String,
    selector: Option<Selector>,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

/// Labels of the namespaces, which namespace selectors look at.
pub type Namespaces = BTreeMap<String, Labels>;

impl PodTerm {
    pub fn compile(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let compile = |s: &Option<LabelSelector>| s.as_ref().and_then(|s| s.compile().ok());
        let mut namespaces = term.namespaces.clone();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: compile(&term.label_selector),
            namespaces,
            namespace_selector: compile(&term.namespace_selector),
        }
    }

    pub fn matches(&self, namespace: &str, labels: &Labels, known: &Namespaces) -> bool {
        self.selector.as_ref().is_some_and(|s| s.matches(labels)) && self.covers(namespace, known)
    }

    fn covers(&self, namespace: &str, known: &Namespaces) -> bool {
        self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                selector.is_empty() || known.get(namespace).is_some_and(|l| selector.matches(l))
            })
    }

    /// The only namespaces whose pods this term can match; `None`: a selector decides.
    pub fn only_namespaces(&self) -> Option<&[String]> {
        self.namespace_selector.is_none().then_some(self.namespaces.as_slice())
    }
}
