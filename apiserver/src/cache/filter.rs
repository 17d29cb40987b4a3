//! Which objects a list or a watch is about: a namespace, labels, fields. Looks only at what
//! lies beside the JSON.

use skiff_proto::selector::FieldTerm;
use skiff_proto::{FieldSelector, Selector, Status};

use super::entry::Entry;
use crate::registry::Kind;
use crate::storage::key;

/// A compiled selection.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Empty: all namespaces.
    namespace: String,
    labels: Selector,
    fields: Vec<(Place, FieldTerm)>,
    /// The one object that can match, when a name is asked for.
    path: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Name,
    Namespace,
    /// Position in `Kind::selectable`.
    Selectable(usize),
}

impl Filter {
    pub fn new(
        kind: &Kind,
        namespace: &str,
        labels: &Selector,
        fields: &FieldSelector,
    ) -> Result<Self, Status> {
        let mut compiled = Vec::with_capacity(fields.terms.len());
        for term in &fields.terms {
            let place =
                place(kind, &term.path).ok_or_else(|| unknown(kind, labels, fields, term))?;
            compiled.push((place, term.clone()));
        }
        let name = compiled.iter().find(|(place, term)| *place == Place::Name && !term.negated);
        let path = name
            .filter(|_| !kind.namespaced || !namespace.is_empty())
            .map(|(_, term)| key::path(namespace, &term.value));
        Ok(Self { namespace: namespace.into(), labels: labels.clone(), fields: compiled, path })
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether only the namespace narrows.
    pub fn is_plain(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one path that can match, when a name is asked for.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        let object = &entry.object;
        (self.namespace.is_empty() || self.namespace == object.namespace())
            && self.fields.iter().all(|(place, term)| {
                let value = match place {
                    Place::Name => object.name(),
                    Place::Namespace => object.namespace(),
                    Place::Selectable(n) => entry.fields.get(*n).map_or("", |v| v),
                };
                (value == term.value) != term.negated
            })
            && (self.labels.is_empty() || self.labels.matches(object.labels()))
    }
}

fn place(kind: &Kind, path: &str) -> Option<Place> {
    match path {
        "metadata.name" => Some(Place::Name),
        "metadata.namespace" => Some(Place::Namespace),
        _ => kind.selectable.iter().position(|p| *p == path).map(Place::Selectable),
    }
}

fn unknown(kind: &Kind, labels: &Selector, fields: &FieldSelector, term: &FieldTerm) -> Status {
    let resource = &kind.resource;
    let why = if kind.selectable.is_empty() {
        format!(
            "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            term.path
        )
    } else {
        format!("field label not supported: {}", term.path)
    };
    Status::bad_request(format!(
        "Unable to find {:?} that match label selector {:?}, field selector {:?}: {why}",
        format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural),
        labels.to_string(),
        fields.to_string(),
    ))
}
