//! What a user may do. The core asks before anything else happens; `table` answers until
//! roles can be given.

pub mod table;

use skiff_proto::status::reason;
use skiff_proto::{Resource, Status};

use crate::authn::User;

/// One request, as authorization sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    pub resource: &'a Resource,
    pub subresource: &'a str,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: &'a str,
    /// Empty: a collection.
    pub name: &'a str,
}

/// Decides. Must not block: it is asked on every request.
pub trait Authorizer: Send + Sync + 'static {
    fn allows(&self, user: &User, attributes: &Attributes<'_>) -> bool;
}

/// `Forbidden`, in upstream's words, unless the authorizer allows it.
pub fn check(
    authorizer: &dyn Authorizer,
    user: &User,
    attributes: &Attributes<'_>,
) -> Result<(), Status> {
    if authorizer.allows(user, attributes) { Ok(()) } else { Err(forbidden(user, attributes)) }
}

fn forbidden(user: &User, attributes: &Attributes<'_>) -> Status {
    let Attributes { verb, resource, subresource, namespace, name } = *attributes;
    let mut plural = resource.plural.to_string();
    if !subresource.is_empty() {
        plural = format!("{plural}/{subresource}");
    }
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let why = format!(
        "User {:?} cannot {verb} resource {plural:?} in API group {:?} {place}",
        user.name, resource.group
    );
    if !name.is_empty() {
        return Status::forbidden(resource, name, &why);
    }
    // Upstream leaves the name out where there is none.
    let mut status = Status::forbidden(resource, name, &why);
    status.message = format!("{} is forbidden: {why}", resource.group_resource());
    status.code = reason::FORBIDDEN.1;
    status
}

#[cfg(test)]
mod tests {
    use skiff_proto::resource::{DEPLOYMENTS, NODES, PODS};

    use super::*;

    struct Nobody;

    impl Authorizer for Nobody {
        fn allows(&self, _: &User, _: &Attributes<'_>) -> bool {
            false
        }
    }

    fn words(verb: &str, resource: &Resource, namespace: &str, name: &str) -> String {
        let attributes = Attributes { verb, resource, subresource: "", namespace, name };
        check(&Nobody, &User::new("x", &[]), &attributes).expect_err("refused").message
    }

    #[test]
    fn refuses_in_upstreams_words() {
        assert_eq!(
            words("list", &PODS, "y", ""),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        assert_eq!(
            words("list", &NODES, "", ""),
            r#"nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            words("delete", &DEPLOYMENTS, "y", "web"),
            r#"deployments.apps "web" is forbidden: User "x" cannot delete resource "deployments" in API group "apps" in the namespace "y""#
        );
    }
}
