//! A server of one test: its own store, its own folder, gone with the test.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use skiff_apiserver::authn::User;
use skiff_apiserver::{Config, Core};
use skiff_client::{
    Api, DeleteOptions, Deleted, ListOptions, Patch, Target, WatchEvent, WatchOptions, WatchStream,
    WriteOptions,
};
use skiff_proto::resource::{CONFIG_MAPS, PODS, SERVICE_ACCOUNTS};
use skiff_proto::{Object, Resource, Status};
use skiff_store::Store;
use skiff_store::kv::Kv;

pub struct Server {
    pub api: Arc<dyn Api>,
    pub core: Arc<Core>,
    pub kv: Arc<dyn Kv>,
    pub dir: Arc<tempfile::TempDir>,
    store: Arc<Store>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::open(dir, config).await
    }

    pub async fn open(dir: Arc<tempfile::TempDir>, config: Config) -> Self {
        let store = Store::open(skiff_store::Config::new("test", dir.path())).await.unwrap();
        let kv: Arc<dyn Kv> = store.clone();
        let core = Core::new(kv.clone(), config).await.unwrap();
        let api = core.as_user(User::new("admin", &["system:masters"]));
        let server = Self { api, core, kv, dir, store };
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        // A restart finds it there.
        let _ = server.create(&SERVICE_ACCOUNTS, "default", account).await;
        server
    }

    /// Stops everything and starts it again over the same folder.
    pub async fn restart(self, config: Config) -> Self {
        self.core.config().shutdown.cancel();
        self.store.shutdown().await;
        let dir = self.dir.clone();
        drop(self);
        Self::open(dir, config).await
    }

    pub async fn create(
        &self,
        r: &Resource,
        ns: &str,
        object: Value,
    ) -> Result<Arc<Object>, Status> {
        let json = Bytes::from(object.to_string());
        self.api.create(&Target::all(r, ns), json, &WriteOptions::default()).await
    }

    pub async fn update(&self, target: &Target, object: Value) -> Result<Arc<Object>, Status> {
        let json = Bytes::from(object.to_string());
        self.api.update(target, json, &WriteOptions::default()).await
    }

    pub async fn merge(&self, target: &Target, patch: Value) -> Result<Arc<Object>, Status> {
        let patch = Patch::Merge(Bytes::from(patch.to_string()));
        self.api.patch(target, patch, &WriteOptions::default()).await
    }

    pub async fn delete(&self, target: &Target) -> Result<Deleted, Status> {
        self.api.delete(target, &DeleteOptions::default()).await
    }

    pub async fn names(&self, r: &Resource, ns: &str, options: &ListOptions) -> Vec<String> {
        let list = self.api.list(&Target::all(r, ns), options).await.unwrap();
        list.items.iter().map(|o| o.name().to_owned()).collect()
    }

    pub async fn watch(&self, r: &Resource, options: WatchOptions) -> Result<WatchStream, Status> {
        self.api.watch(&Target::all(r, "default"), &options).await
    }

    pub async fn config_map(&self, name: &str, data: &str) -> Arc<Object> {
        self.create(&CONFIG_MAPS, "default", config_map(name, data)).await.unwrap()
    }

    pub async fn pod(&self, name: &str) -> Arc<Object> {
        self.create(&PODS, "default", pod(name)).await.unwrap()
    }

    /// Binds a pod, as the scheduler does.
    pub async fn bind(&self, name: &str, node: &str) -> Result<Arc<Object>, Status> {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                             "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let target = Target::one(&PODS, "default", name).subresource("binding");
        self.api.create(&target, Bytes::from(binding.to_string()), &WriteOptions::default()).await
    }
}

pub fn config_map(name: &str, data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": data}})
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": name, "labels": {"app": name}},
           "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

pub fn value(object: &Object) -> Value {
    object.parse().unwrap()
}

pub fn one(r: &Resource, name: &str) -> Target {
    Target::one(r, "default", name)
}

/// The next event, as `ADDED name version`.
pub async fn next(stream: &mut WatchStream) -> String {
    let next = tokio::time::timeout(std::time::Duration::from_secs(10), stream.next()).await;
    match next.expect("an event within 10 s").expect("the watch goes on") {
        Ok(WatchEvent::Added(o)) => format!("ADDED {}", o.name()),
        Ok(WatchEvent::Modified(o)) => format!("MODIFIED {}", o.name()),
        Ok(WatchEvent::Deleted(o)) => format!("DELETED {}", o.name()),
        Ok(WatchEvent::Bookmark { .. }) => "BOOKMARK".into(),
        Err(status) => format!("ERROR {} {}", status.reason, status.code),
    }
}
