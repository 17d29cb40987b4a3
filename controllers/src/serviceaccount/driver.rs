//! Gives namespaces their ServiceAccount and CA.

use std::sync::Arc;

use serde_json::{Value, json};
use skiff_client::Queue;
use skiff_proto::{ObjectKey, resource};

use super::plan::{self, Action, DEFAULT_ACCOUNT, Observed, ROOT_CA};
use crate::caches::Caches;
use crate::worker::Reconcile;
use crate::write::{Result, Writer};

pub struct ServiceAccountController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    ca_pem: Option<String>,
}

impl ServiceAccountController {
    pub fn new(writer: Writer, caches: Arc<Caches>, ca_pem: Option<String>) -> Arc<Self> {
        let controller = Arc::new(Self { writer, caches, queue: Queue::new(), ca_pem });
        let this = controller.clone();
        controller.caches.namespaces.subscribe(move |change| {
            // Later changes of a namespace matter only when it has lost its accounts,
            // which the accounts' own events tell.
            if change.old.is_none() {
                this.queue.add(change.key.clone());
            }
        });
        let this = controller.clone();
        controller.caches.service_accounts.subscribe(move |change| {
            if change.new.is_none() && change.key.name == DEFAULT_ACCOUNT {
                this.queue.add(ObjectKey::new("", &*change.key.namespace));
            }
        });
        let this = controller.clone();
        controller.caches.root_cas.subscribe(move |change| {
            this.queue.add(ObjectKey::new("", &*change.key.namespace));
        });
        controller
    }
}

impl Reconcile for ServiceAccountController {
    type Key = ObjectKey;
    const NAME: &'static str = "serviceaccount";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let Some(namespace) = self.caches.namespaces.get(key) else { return Ok(()) };
        if namespace.object.is_terminating() {
            return Ok(());
        }
        let name = &key.name;
        let root_ca = self.caches.root_cas.get(&ObjectKey::new(name, ROOT_CA));
        let account = ObjectKey::new(name, DEFAULT_ACCOUNT);
        let observed = Observed {
            has_account: self.caches.service_accounts.get(&account).is_some(),
            root_ca: root_ca.as_ref().map(|entry| &*entry.value),
            ca_pem: self.ca_pem.as_deref(),
        };
        let pem = self.ca_pem.as_deref().unwrap_or_default();
        for action in plan::plan(&observed) {
            let written = match action {
                Action::CreateAccount => {
                    let account = plan::account(name);
                    self.writer.create(&resource::SERVICE_ACCOUNTS, name, &account).await
                }
                Action::CreateRootCa => {
                    let map = plan::root_ca(name, pem);
                    self.writer.create(&resource::CONFIG_MAPS, name, &map).await
                }
                Action::UpdateRootCa => {
                    let Some(entry) = &root_ca else { continue };
                    let data = plan::root_ca(name, pem)["data"].take();
                    let edit = |value: &mut Value| value["data"] = json!(data);
                    self.writer.update(&resource::CONFIG_MAPS, &entry.object, edit).await
                }
            };
            match written {
                // Somebody else gave it one: its event brings the rest.
                Err(failure) if failure.status().is_some_and(|s| s.is_already_exists()) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}
