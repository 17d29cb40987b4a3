//! ConfigMaps.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::config::CONFIG_MAP;
use crate::registry::validation::config;

pub static CONFIG_MAP_KIND: Kind = Kind {
    resource: skiff_proto::resource::CONFIG_MAPS,
    kind: "ConfigMap",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &CONFIG_MAP,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules {
    validate: config::config_map,
    validate_change: config::immutable_data,
    ..Rules::NAMESPACED
};
