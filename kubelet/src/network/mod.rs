//! The pod network over CNI: a pinned network namespace for each pod, and the configured chain of plugins
//! called in it, as any container runtime does.
//!
//! `conf` reads and checks the configuration, `plan` says which plugin is called with what (both pure),
//! `exec` calls, `cache` keeps results for the removal, `netns` makes and removes namespaces.

mod cache;
mod conf;
mod exec;
mod netns;
mod plan;
mod result;

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::Value;

use self::cache::Cache;
use self::conf::Conf;
use self::plan::Attachment;
use crate::ports::{Network, NetworkError, PodNetwork, PodRef, PortMapping};

/// The pod's own interface.
const INTERFACE: &str = "eth0";

#[derive(Debug, Clone)]
pub struct Config {
    /// The first valid `.conflist` or `.conf` here is the pod network.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in this order.
    pub bin_dirs: Vec<PathBuf>,
    /// A plugin that is called in this process; its program must be there all the same, for others who call it.
    pub built_in: Option<BuiltIn>,
    /// Pinned namespaces; gone after a reboot.
    pub netns_dir: PathBuf,
    /// Results, for removals; kept.
    pub cache_dir: PathBuf,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            built_in: None,
            netns_dir: "/run/skiff/netns".into(),
            cache_dir: "/var/lib/skiff/cni".into(),
        }
    }
}

/// A plugin without a program of its own. A call costs a thread, where a program of tens of megabytes costs more
/// processor time than its work.
#[derive(Debug, Clone)]
pub struct BuiltIn {
    /// What a configuration names as `type`.
    pub kind: &'static str,
    pub answer: Answer,
}

/// Answers one call as a program would: environment and standard input in, its result or its error out.
pub type Answer = fn(&Environment, &[u8]) -> Result<Option<Value>, Value>;
/// Names and values of a call's variables.
pub type Environment = [(&'static str, String)];

/// The pod network of this node.
pub struct Cni {
    config: Config,
}

impl Cni {
    pub fn new(config: Config) -> Cni {
        Cni { config }
    }

    fn attachment(&self, pod: &PodRef, sandbox: &str, ports: &[PortMapping]) -> Attachment {
        Attachment {
            container_id: sandbox.to_owned(),
            namespace_path: self.namespace_path(sandbox),
            interface: INTERFACE.to_owned(),
            pod: pod.clone(),
            ports: ports.to_vec(),
        }
    }

    fn namespace_path(&self, sandbox: &str) -> PathBuf {
        self.config.netns_dir.join(sandbox)
    }

    /// Found before anything is touched: a chain without one of its plugins could not even be undone.
    fn missing_plugin(&self, conf: &Conf) -> Option<String> {
        let dirs = &self.config.bin_dirs;
        let missing =
            conf.plugins.iter().find(|plugin| exec::find(dirs, &plugin.kind).is_none())?;
        Some(exec::missing(dirs, &missing.kind))
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.config.cache_dir)
    }

    async fn add(&self, conf: &Conf, attachment: &Attachment) -> Result<Value, String> {
        let mut previous = None;
        for plugin in &conf.plugins {
            let call = plan::call(conf, plugin, "ADD", attachment, previous.as_ref());
            let answer = self.call(&call).await?;
            // A plugin that changes nothing may answer nothing.
            if let Some(answer) = answer {
                previous = Some(answer);
            }
        }
        previous.ok_or_else(|| "no plugin of the chain gave a result".to_owned())
    }

    async fn call(&self, call: &plan::Call) -> Result<Option<Value>, String> {
        match &self.config.built_in {
            Some(plugin) if plugin.kind == call.kind => exec::run_here(plugin.answer, call).await,
            _ => exec::run(&self.config.bin_dirs, call).await,
        }
    }

    /// All plugins are asked, also after one has failed.
    async fn delete(
        &self,
        conf: &Conf,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<(), String> {
        let mut failures = Vec::new();
        for plugin in conf.plugins.iter().rev() {
            let call = plan::call(conf, plugin, "DEL", attachment, previous);
            if let Err(why) = self.call(&call).await {
                failures.push(why);
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

#[async_trait]
impl Network for Cni {
    fn not_ready(&self) -> Option<String> {
        let conf = match conf::load(&self.config.conf_dir) {
            Ok(conf) => conf,
            Err(why) => return Some(format!("cni config uninitialized: {why}")),
        };
        self.missing_plugin(&conf)
    }

    async fn set_up(
        &self,
        pod: &PodRef,
        sandbox: &str,
        ports: &[PortMapping],
    ) -> Result<PodNetwork, NetworkError> {
        let conf = conf::load(&self.config.conf_dir).map_err(NetworkError::NotReady)?;
        if let Some(why) = self.missing_plugin(&conf) {
            return Err(NetworkError::NotReady(why));
        }
        let failed = |why: String| NetworkError::Failed {
            operation: "set up",
            pod: format!("{}/{}", pod.namespace, pod.name),
            why,
        };
        let attachment = self.attachment(pod, sandbox, ports);
        let path = attachment.namespace_path.clone();
        let cache = self.cache();
        let pinned = netns::is_pinned(&path);
        if let Some(entry) = cache.read(sandbox) {
            if pinned && let Ok(ips) = result::addresses(&entry.result) {
                return Ok(PodNetwork { namespace_path: path, ips });
            }
            // The namespace went with the last boot: what the plugins keep elsewhere goes first.
            self.tear_down(pod, sandbox).await?;
        }
        if !netns::is_pinned(&path) {
            netns::make(&path).await.map_err(|e| {
                failed(format!("make the network namespace {}: {e}", path.display()))
            })?;
        }
        // Noted before the plugins are called: a kill in between must not leave their traces behind.
        let entry = cache::Entry::new(&conf, &attachment);
        let written =
            cache.write(sandbox, &entry).map_err(|e| failed(format!("note the attachment: {e}")));
        let result = match written {
            Ok(()) => self.add(&conf, &attachment).await.map_err(failed),
            Err(error) => Err(error),
        };
        let added = result.and_then(|result| {
            let ips = result::addresses(&result).map_err(failed)?;
            cache
                .write(sandbox, &entry.with_result(result))
                .map_err(|e| failed(format!("note the result: {e}")))?;
            Ok(ips)
        });
        match added {
            Ok(ips) => Ok(PodNetwork { namespace_path: path, ips }),
            Err(error) => {
                if let Err(why) = self.tear_down(pod, sandbox).await {
                    tracing::warn!(sandbox, %why, "half-made network stays for now");
                }
                Err(error)
            }
        }
    }

    async fn tear_down(&self, pod: &PodRef, sandbox: &str) -> Result<(), NetworkError> {
        let failed = |why: String| NetworkError::Failed {
            operation: "tear down",
            pod: format!("{}/{}", pod.namespace, pod.name),
            why,
        };
        let cache = self.cache();
        if let Some(entry) = cache.read(sandbox) {
            let mut attachment = self.attachment(pod, sandbox, &entry.ports);
            if !netns::is_pinned(&attachment.namespace_path) {
                attachment.namespace_path = PathBuf::new();
            }
            let conf = Conf::parse(&entry.conf).map_err(failed)?;
            let previous = (!entry.result.is_null()).then_some(&entry.result);
            self.delete(&conf, &attachment, previous).await.map_err(failed)?;
            cache.remove(sandbox).map_err(|e| failed(format!("forget the result: {e}")))?;
        }
        netns::remove(&self.namespace_path(sandbox))
            .map_err(|e| failed(format!("remove the network namespace: {e}")))
    }
}
