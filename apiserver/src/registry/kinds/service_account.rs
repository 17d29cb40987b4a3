//! ServiceAccounts: who a pod is.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::config::SERVICE_ACCOUNT;

pub static SERVICE_ACCOUNT_KIND: Kind = Kind {
    resource: skiff_proto::resource::SERVICE_ACCOUNTS,
    kind: "ServiceAccount",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &SERVICE_ACCOUNT,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules { ..Rules::NAMESPACED };
