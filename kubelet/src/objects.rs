//! The ConfigMaps and Secrets that this node's pods refer to, and no others: each is
//! followed while a pod here needs it, and its pods are woken when it changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use skiff_client::{Api, Cache};
use skiff_proto::model::{ConfigMap, Pod, Secret};
use skiff_proto::{FieldSelector, Resource, resource};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::env::Lookups;

/// The first list of one object is a local read for the server; a pod waits no longer for it.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn resource(self) -> Resource {
        match self {
            Self::ConfigMap => resource::CONFIG_MAPS,
            Self::Secret => resource::SECRETS,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub kind: Kind,
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{} \"{namespace}/{}\": the API server did not answer within {SYNC_TIMEOUT:?}", .reference.kind.resource(), .reference.name)]
pub struct NotSynced {
    namespace: String,
    reference: Reference,
}

/// Everything in a pod's spec that names a ConfigMap or a Secret. Pure.
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            found.insert(Reference { kind, name: name.to_owned() });
        }
    };
    let spec = &pod.spec;
    for container in spec.init_containers.iter().chain(&spec.containers) {
        for source in &container.env_from {
            source.config_map_ref.iter().for_each(|r| add(Kind::ConfigMap, &r.name));
            source.secret_ref.iter().for_each(|r| add(Kind::Secret, &r.name));
        }
        for source in container.env.iter().filter_map(|v| v.value_from.as_ref()) {
            source.config_map_key_ref.iter().for_each(|r| add(Kind::ConfigMap, &r.name));
            source.secret_key_ref.iter().for_each(|r| add(Kind::Secret, &r.name));
        }
    }
    for volume in &spec.volumes {
        volume.config_map.iter().for_each(|v| add(Kind::ConfigMap, &v.name));
        volume.secret.iter().for_each(|v| add(Kind::Secret, &v.secret_name));
        for source in volume.projected.iter().flat_map(|p| &p.sources) {
            let name = |kind: &str| source[kind]["name"].as_str().unwrap_or("").to_owned();
            add(Kind::ConfigMap, &name("configMap"));
            add(Kind::Secret, &name("secret"));
        }
    }
    spec.image_pull_secrets.iter().for_each(|r| add(Kind::Secret, &r.name));
    found
}

type Users = Arc<Mutex<HashMap<String, Arc<Notify>>>>;

struct Followed {
    cache: Arc<Cache<()>>,
    users: Users,
    _stop: DropGuard,
}

pub struct Objects {
    api: Arc<dyn Api>,
    shutdown: CancellationToken,
    followed: Mutex<HashMap<(String, Reference), Followed>>,
}

impl Objects {
    pub fn new(api: Arc<dyn Api>, shutdown: CancellationToken) -> Self {
        Self { api, shutdown, followed: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Reference), Followed>> {
        self.followed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// From now on this pod is woken when one of these changes, and by no other.
    pub fn follow(&self, pod: &Pod, wake: &Arc<Notify>, wanted: &BTreeSet<Reference>) {
        let (namespace, uid) = (&pod.metadata.namespace, &pod.metadata.uid);
        let mut followed = self.lock();
        for reference in wanted {
            let key = (namespace.clone(), reference.clone());
            let entry = followed.entry(key).or_insert_with(|| self.start(namespace, reference));
            users(&entry.users).insert(uid.clone(), wake.clone());
        }
        followed.retain(|(space, reference), entry| {
            let mut users = users(&entry.users);
            if space == namespace && !wanted.contains(reference) {
                users.remove(uid);
            }
            !users.is_empty()
        });
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|_, entry| {
            let mut users = users(&entry.users);
            users.remove(uid);
            !users.is_empty()
        });
    }

    fn start(&self, namespace: &str, reference: &Reference) -> Followed {
        let users: Users = Arc::default();
        let stop = self.shutdown.child_token();
        let woken = users.clone();
        let cache = Cache::projected(self.api.clone(), &reference.kind.resource(), |_| Ok(()))
            .namespace(namespace)
            .fields(FieldSelector::equal("metadata.name", &reference.name))
            .on_change(move |_| {
                crate::objects::users(&woken).values().for_each(|wake| wake.notify_one());
            })
            .start(&stop);
        Followed { cache, users, _stop: stop.drop_guard() }
    }

    /// Which versions of the followed objects are known; empty for one that is not there.
    pub fn versions(&self, namespace: &str, wanted: &BTreeSet<Reference>) -> Vec<String> {
        let followed = self.lock();
        let version = |reference: &Reference| {
            let entry = followed.get(&(namespace.to_owned(), reference.clone()))?;
            Some(entry.cache.get(namespace, &reference.name)?.object.resource_version().to_owned())
        };
        wanted.iter().map(|reference| version(reference).unwrap_or_default()).collect()
    }

    /// What exists of the followed objects. They must be followed already.
    pub async fn lookup(
        &self,
        namespace: &str,
        wanted: &BTreeSet<Reference>,
    ) -> Result<Lookups, NotSynced> {
        let mut found = Lookups::default();
        for reference in wanted {
            let key = (namespace.to_owned(), reference.clone());
            let Some(cache) = self.lock().get(&key).map(|f| f.cache.clone()) else { continue };
            let synced = tokio::time::timeout(SYNC_TIMEOUT, cache.synced()).await;
            synced.map_err(|_| NotSynced {
                namespace: namespace.to_owned(),
                reference: reference.clone(),
            })?;
            let Some(entry) = cache.get(namespace, &reference.name) else { continue };
            let name = reference.name.clone();
            match reference.kind {
                Kind::ConfigMap => {
                    if let Ok(map) = entry.object.parse::<ConfigMap>() {
                        found.config_maps.insert(name, map);
                    }
                }
                Kind::Secret => {
                    if let Ok(secret) = entry.object.parse::<Secret>() {
                        found.secrets.insert(name, secret);
                    }
                }
            }
        }
        Ok(found)
    }
}

fn users(users: &Users) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
    users.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_names_one_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [{"name": "c",
                "envFrom": [{"configMapRef": {"name": "a"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "d"}}]}},
                {"name": "w", "secret": {"secretName": "e"}}],
            "imagePullSecrets": [{"name": "f"}]
        }}))
        .expect("a pod");
        let names: Vec<String> =
            references(&pod).into_iter().map(|r| format!("{:?}/{}", r.kind, r.name)).collect();
        assert_eq!(
            names,
            ["ConfigMap/a", "ConfigMap/c", "Secret/b", "Secret/d", "Secret/e", "Secret/f"]
        );
    }
}
