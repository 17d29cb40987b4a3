//! A container's environment: values, references to ConfigMaps and Secrets, the downward
//! API, service variables and `$(VAR)` expansion, by upstream's rules. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use skiff_proto::model::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

use crate::downward::{self, Facts};

/// The ConfigMaps and Secrets a pod refers to, as far as they exist.
#[derive(Debug, Clone, Default)]
pub struct Lookups {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
}

/// Upstream's words; a container that hits one waits with `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey { namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey { namespace: String, name: String, key: String },
    #[error("{0}")]
    Field(String),
}

/// `KEY=value`; later ones override earlier ones of the image. `services` are those the pod
/// is told about.
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    lookups: &Lookups,
    facts: &Facts,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut all = Ordered::default();
    for source in &container.env_from {
        if let Some(reference) = &source.config_map_ref {
            match lookups.config_maps.get(&reference.name) {
                Some(map) => all.add_all(&source.prefix, map.data.clone()),
                None if reference.optional => {}
                None => return Err(EnvError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match lookups.secrets.get(&reference.name) {
                Some(secret) => all.add_all(&source.prefix, texts(secret)),
                None if reference.optional => {}
                None => return Err(EnvError::NoSecret(reference.name.clone())),
            }
        }
    }
    for var in &container.env {
        let value = match &var.value_from {
            Some(source) if var.value.is_empty() => {
                match from_source(pod, container, source, lookups, facts)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            _ => expand(&var.value, |name| {
                all.get(name).or_else(|| services.get(name).map(String::as_str)).map(str::to_owned)
            }),
        };
        all.set(&var.name, value);
    }
    let mut result: Vec<(String, String)> = services
        .iter()
        .filter(|(name, _)| all.get(name).is_none())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    result.extend(all.0);
    Ok(result)
}

/// Variables in the order in which they were first named.
#[derive(Default)]
struct Ordered(Vec<(String, String)>);

impl Ordered {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(known) => known.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn add_all(&mut self, prefix: &str, values: BTreeMap<String, String>) {
        for (key, value) in values {
            let name = format!("{prefix}{key}");
            // Keys that are no names are left out, as upstream does.
            if !name.is_empty() && !name.contains('=') && !name.contains('\0') {
                self.set(&name, value);
            }
        }
    }
}

fn decode(value: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(value).ok()
}

fn texts(secret: &Secret) -> BTreeMap<String, String> {
    let decoded = secret.data.iter().filter_map(|(key, value)| {
        Some((key.clone(), String::from_utf8_lossy(&decode(value)?).into_owned()))
    });
    decoded.collect()
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    lookups: &Lookups,
    facts: &Facts,
) -> Result<Option<String>, EnvError> {
    let namespace = || pod.metadata.namespace.clone();
    if let Some(reference) = &source.field_ref {
        return downward::field(pod, &reference.field_path, facts)
            .map(Some)
            .map_err(EnvError::Field);
    }
    if let Some(selector) = &source.resource_field_ref {
        return downward::resource(pod, &container.name, selector, facts)
            .map(Some)
            .map_err(EnvError::Field);
    }
    if let Some(key) = &source.config_map_key_ref {
        let Some(map) = lookups.config_maps.get(&key.name) else {
            return if key.optional {
                Ok(None)
            } else {
                Err(EnvError::NoConfigMap(key.name.clone()))
            };
        };
        return match map.data.get(&key.key) {
            Some(value) => Ok(Some(value.clone())),
            None if key.optional => Ok(None),
            None => Err(EnvError::NoConfigMapKey {
                namespace: namespace(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let Some(secret) = lookups.secrets.get(&key.name) else {
            return if key.optional { Ok(None) } else { Err(EnvError::NoSecret(key.name.clone())) };
        };
        return match secret.data.get(&key.key).and_then(|v| decode(v)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if key.optional => Ok(None),
            None => Err(EnvError::NoSecretKey {
                namespace: namespace(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
        };
    }
    Ok(Some(String::new()))
}

/// `$(VAR)` becomes its value, `$$` one `$`; a name nobody knows stays as it is written.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            result.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => result.push_str(&value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = tail;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// Docker-link style variables for each Service with a cluster address, upstream's
/// `envvars.FromServices`.
pub fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for service in services {
        let ip = service.spec.cluster_ip.as_str();
        if ip.is_empty() || ip == "None" || service.spec.ports.is_empty() {
            continue;
        }
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let upper = |text: &str| text.to_ascii_uppercase().replace('-', "_");
        let name = upper(&service.metadata.name);
        let ports = &service.spec.ports;
        all.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
        all.insert(format!("{name}_SERVICE_PORT"), ports[0].port.to_string());
        for (place, port) in ports.iter().enumerate() {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            let number = port.port;
            let url = format!("{}://{host}:{number}", protocol.to_ascii_lowercase());
            if !port.name.is_empty() {
                let key = format!("{name}_SERVICE_PORT_{}", upper(&port.name));
                all.insert(key, number.to_string());
            }
            if place == 0 {
                all.insert(format!("{name}_PORT"), url.clone());
            }
            let key = format!("{name}_PORT_{number}_{}", protocol.to_ascii_uppercase());
            all.insert(format!("{key}_PROTO"), protocol.to_ascii_lowercase());
            all.insert(format!("{key}_PORT"), number.to_string());
            all.insert(format!("{key}_ADDR"), ip.to_owned());
            all.insert(key, url);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(container: serde_json::Value, lookups: &Lookups) -> Result<String, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]}
        }))
        .expect("a pod");
        let services = BTreeMap::from([("DB_SERVICE_HOST".to_owned(), "10.0.0.9".to_owned())]);
        let env =
            environment(&pod, &pod.spec.containers[0], &services, lookups, &Facts::default())?;
        Ok(env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "))
    }

    fn lookups() -> Lookups {
        let map = json!({"data": {"a": "1", "b": "2"}});
        let secret = json!({"data": {"password": "czNjcmV0"}});
        Lookups {
            config_maps: BTreeMap::from([(
                "m".into(),
                serde_json::from_value(map).expect("a map"),
            )]),
            secrets: BTreeMap::from([(
                "s".into(),
                serde_json::from_value(secret).expect("a secret"),
            )]),
        }
    }

    #[test]
    fn expansion_as_upstreams_table() {
        let value = |name: &str| match name {
            "VAR_A" => Some("A".into()),
            "VAR_EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_A)___", "___A___"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("foo$(VAR_EMPTY)bar", "foobar"),
            ("$VAR_A", "$VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("$", "$"),
            ("$$", "$"),
            ("a$?b", "a$?b"),
        ] {
            assert_eq!(expand(input, value), expected, "{input}");
        }
    }

    #[test]
    fn env_overrides_env_from_and_sees_what_came_before() {
        let container = json!({
            "name": "c",
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}],
            "env": [
                {"name": "X_a", "value": "9"},
                {"name": "URL", "value": "http://$(DB_SERVICE_HOST)/$(X_a)/$(LATER)"},
                {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "LATER", "value": "x"}
            ]
        });
        assert_eq!(
            run(container, &lookups()).as_deref(),
            Ok(
                "DB_SERVICE_HOST=10.0.0.9 X_a=9 X_b=2 URL=http://10.0.0.9/9/$(LATER) PASS=s3cret ME=p LATER=x"
            )
        );
    }

    #[test]
    fn what_is_missing_is_named_unless_optional() {
        let one = |source| {
            run(json!({"name": "c", "env": [{"name": "V", "valueFrom": source}]}), &lookups())
        };
        assert_eq!(
            one(json!({"configMapKeyRef": {"name": "no", "key": "k"}})).map_err(|e| e.to_string()),
            Err("configmap \"no\" not found".into())
        );
        assert_eq!(
            one(json!({"secretKeyRef": {"name": "s", "key": "k"}})).map_err(|e| e.to_string()),
            Err("couldn't find key k in Secret ns/s".into())
        );
        let optional = json!({"configMapKeyRef": {"name": "no", "key": "k", "optional": true}});
        assert_eq!(one(optional).as_deref(), Ok("DB_SERVICE_HOST=10.0.0.9"));
    }

    #[test]
    fn service_variables_as_documented() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "redis-primary"},
            "spec": {"clusterIP": "10.0.0.11", "ports": [{"name": "db", "port": 6379, "protocol": "TCP"}]}
        }))
        .expect("a service");
        let headless: Service = serde_json::from_value(json!({
            "metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}
        }))
        .expect("a service");
        let all = service_variables([&service, &headless].into_iter());
        let text: Vec<String> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11",
                "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
                "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
                "REDIS_PRIMARY_SERVICE_HOST=10.0.0.11",
                "REDIS_PRIMARY_SERVICE_PORT=6379",
                "REDIS_PRIMARY_SERVICE_PORT_DB=6379",
            ]
        );
    }
}
