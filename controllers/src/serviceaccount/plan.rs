//! What a namespace lacks. Pure.

use serde_json::{Value, json};
use skiff_proto::model::ConfigMap;

pub const DEFAULT_ACCOUNT: &str = "default";
pub const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct Observed<'a> {
    pub has_account: bool,
    pub root_ca: Option<&'a ConfigMap>,
    /// `None`: not published.
    pub ca_pem: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    CreateAccount,
    CreateRootCa,
    UpdateRootCa,
}

pub fn plan(observed: &Observed<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    if !observed.has_account {
        actions.push(Action::CreateAccount);
    }
    if let Some(pem) = observed.ca_pem {
        match observed.root_ca {
            None => actions.push(Action::CreateRootCa),
            Some(map)
                if map.data.len() != 1 || map.data.get(CA_KEY).map(String::as_str) != Some(pem) =>
            {
                actions.push(Action::UpdateRootCa);
            }
            Some(_) => {}
        }
    }
    actions
}

pub fn account(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": DEFAULT_ACCOUNT, "namespace": namespace},
    })
}

pub fn root_ca(namespace: &str, pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ROOT_CA,
            "namespace": namespace,
            "annotations": {"kubernetes.io/description": DESCRIPTION},
        },
        "data": {CA_KEY: pem},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_or_wrong_is_written() {
        let map = |pem: &str| ConfigMap {
            data: [(CA_KEY.to_owned(), pem.to_owned())].into(),
            ..ConfigMap::default()
        };
        let (right, wrong) = (map("pem"), map("old"));
        for (has_account, root_ca, ca_pem, expected) in [
            (false, None, None, &[Action::CreateAccount][..]),
            (true, None, None, &[]),
            (false, None, Some("pem"), &[Action::CreateAccount, Action::CreateRootCa]),
            (true, Some(&wrong), Some("pem"), &[Action::UpdateRootCa]),
            (true, Some(&right), Some("pem"), &[]),
            (true, Some(&right), None, &[]),
        ] {
            assert_eq!(plan(&Observed { has_account, root_ca, ca_pem }), expected);
        }
    }
}
