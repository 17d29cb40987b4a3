//! Secrets.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::config::SECRET;

pub static SECRET_KIND: Kind = Kind {
    resource: skiff_proto::resource::SECRETS,
    kind: "Secret",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &SECRET,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &["type"],
};

static RULES: Rules = Rules { ..Rules::NAMESPACED };
