//! What the files of a configMap, secret, downwardAPI or projected volume hold. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use serde::Deserialize;
use skiff_proto::model::{
    ConfigMap, ConfigMapVolume, DownwardApiFile, DownwardApiVolume, KeyToPath, Pod, Secret,
    SecretVolume, Volume,
};

use super::atomic::{File, Payload};
use crate::downward::{self, Facts};
use crate::env::Lookups;

const DEFAULT_MODE: u32 = 0o644;

/// `None`: not a volume of this family. Errors are upstream's words.
pub fn payload(
    pod: &Pod,
    volume: &Volume,
    lookups: &Lookups,
    facts: &Facts,
) -> Result<Option<Payload>, String> {
    let mut files = Payload::new();
    if let Some(source) = &volume.config_map {
        config_map(&mut files, source, mode(source.default_mode), lookups)?;
    } else if let Some(source) = &volume.secret {
        secret(&mut files, source, mode(source.default_mode), lookups)?;
    } else if let Some(source) = &volume.downward_api {
        fields(&mut files, &source.items, mode(source.default_mode), pod, facts)?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for source in &projected.sources {
            projection(&mut files, source, mode, pod, lookups, facts)?;
        }
    } else {
        return Ok(None);
    }
    if let Some(path) = files.keys().find(|path| !is_inside(path)) {
        return Err(format!("invalid path {path:?}: must be relative and must not contain .."));
    }
    Ok(Some(files))
}

/// Whether its files must not touch the disk.
pub fn holds_secrets(volume: &Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|p| &p.sources);
    volume.secret.is_some()
        || projected
            .into_iter()
            .any(|s| s.get("secret").is_some() || s.get("serviceAccountToken").is_some())
}

fn mode(given: Option<i32>) -> u32 {
    given.and_then(|m| u32::try_from(m).ok()).unwrap_or(DEFAULT_MODE)
}

fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.starts_with("..")
        && path.split('/').all(|part| part != "..")
}

/// A `projected` source: exactly one of these is there.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Projection {
    config_map: Option<ConfigMapVolume>,
    secret: Option<ProjectedSecret>,
    #[serde(rename = "downwardAPI")]
    downward_api: Option<DownwardApiVolume>,
}

/// A Secret's field is called `name` here, `secretName` in a volume of its own.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProjectedSecret {
    name: String,
    items: Vec<KeyToPath>,
    optional: bool,
}

fn projection(
    files: &mut Payload,
    source: &serde_json::Value,
    mode: u32,
    pod: &Pod,
    lookups: &Lookups,
    facts: &Facts,
) -> Result<(), String> {
    // Tokens are left out while nobody issues them: a pod without a token file is one
    // whose service account is not mounted.
    let source: Projection = serde_json::from_value(source.clone())
        .map_err(|why| format!("projected source cannot be read: {why}"))?;
    if let Some(map) = source.config_map {
        config_map(files, &map, mode, lookups)?;
    }
    if let Some(given) = source.secret {
        let volume = SecretVolume {
            secret_name: given.name,
            items: given.items,
            optional: given.optional,
            ..Default::default()
        };
        secret(files, &volume, mode, lookups)?;
    }
    if let Some(downward) = source.downward_api {
        fields(files, &downward.items, mode, pod, facts)?;
    }
    Ok(())
}

fn config_map(
    files: &mut Payload,
    source: &ConfigMapVolume,
    mode: u32,
    lookups: &Lookups,
) -> Result<(), String> {
    let Some(map) = lookups.config_maps.get(&source.name) else {
        return if source.optional {
            Ok(())
        } else {
            Err(format!("configmap {:?} not found", source.name))
        };
    };
    let missing = "configmap references non-existent config key";
    keyed(files, &config_map_data(map), &source.items, mode, source.optional, missing)
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(decoded(&map.binary_data)).collect()
}

fn secret(
    files: &mut Payload,
    source: &SecretVolume,
    mode: u32,
    lookups: &Lookups,
) -> Result<(), String> {
    let Some(secret) = lookups.secrets.get(&source.secret_name) else {
        let name = &source.secret_name;
        return if source.optional { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    let missing = "references non-existent secret key";
    keyed(files, &secret_data(secret), &source.items, mode, source.optional, missing)
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    decoded(&secret.data).collect()
}

fn decoded(data: &BTreeMap<String, String>) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let engine = &base64::engine::general_purpose::STANDARD;
    data.iter().filter_map(|(key, value)| Some((key.clone(), engine.decode(value).ok()?)))
}

fn keyed(
    files: &mut Payload,
    data: &BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    default_mode: u32,
    optional: bool,
    missing: &str,
) -> Result<(), String> {
    if items.is_empty() {
        for (key, data) in data {
            files.insert(key.clone(), File { data: data.clone(), mode: default_mode });
        }
        return Ok(());
    }
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default_mode);
                files.insert(item.path.clone(), File { data: data.clone(), mode });
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(())
}

fn fields(
    files: &mut Payload,
    items: &[DownwardApiFile],
    default_mode: u32,
    pod: &Pod,
    facts: &Facts,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, facts)?,
            (None, Some(selector)) => downward::resource(pod, "", selector, facts)?,
            (None, None) => continue,
        };
        let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default_mode);
        files.insert(item.path.clone(), File { data: text.into_bytes(), mode });
    }
    Ok(())
}
