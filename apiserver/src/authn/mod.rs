//! Who speaks. A user is what the client's certificate says: the common name is the user's
//! name, the organizations are the groups. Nobody is anonymous.

use std::sync::Arc;

use skiff_kit::tls::Peer;
use skiff_proto::Status;
use skiff_proto::status::reason;

/// The group of cluster administrators: no authorizer is asked.
pub const MASTERS: &str = "system:masters";
/// Every user who proved who they are is in it.
pub const AUTHENTICATED: &str = "system:authenticated";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        Self { name: name.into(), groups }
    }

    /// The server's own parts that may do everything, such as making the default namespaces.
    pub fn server() -> Self {
        Self::new("system:apiserver", &[MASTERS])
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node that this user is, by its name and group.
    pub fn node(&self) -> Option<&str> {
        self.in_group("system:nodes").then_some(())?;
        self.name.strip_prefix("system:node:").filter(|n| !n.is_empty())
    }
}

/// The user of a connection. `peer` is absent when the client showed no certificate.
pub fn authenticate(peer: Option<Peer>) -> Option<Arc<User>> {
    let peer = peer.filter(|p| !p.common_name.is_empty())?;
    let mut groups = peer.organizations;
    groups.push(AUTHENTICATED.into());
    Some(Arc::new(User { name: peer.common_name, groups }))
}

/// What a request without a user gets.
pub fn unauthorized() -> Status {
    Status::new(reason::UNAUTHORIZED, "Unauthorized")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_user_and_groups() {
        let peer = Peer {
            common_name: "system:node:n1".into(),
            organizations: vec!["system:nodes".into()],
        };
        let user = authenticate(Some(peer)).expect("a user");
        assert_eq!(user.node(), Some("n1"));
        assert!(user.in_group(AUTHENTICATED));
        assert_eq!(authenticate(None), None);
        assert_eq!(authenticate(Some(Peer::default())), None);
    }

    #[test]
    fn a_node_needs_name_and_group() {
        assert_eq!(User::new("system:node:n1", &[]).node(), None);
        assert_eq!(User::new("n1", &["system:nodes"]).node(), None);
    }
}
