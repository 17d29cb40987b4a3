//! Starts one container: environment, files, mounts, then create and start in the runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skiff_proto::model::{Container, Pod, VolumeMount};

use super::container::{command_line, merged_env, security};
use super::context::{about_container, find_container};
use super::history::{BACKOFF_ANNOTATION, Exit, IMAGE_ANNOTATION, MESSAGE_ANNOTATION};
use super::worker::Worker;
use crate::env::{environment, expand};
use crate::image::ImageFailure;
use crate::objects::references;
use crate::ports::{ContainerConfig, ContainerState, Image, Mount, RuntimeError};
use crate::status::Waiting;
use crate::turns::Rank;
use crate::volume::{etc, mounts};
use crate::{downward::Facts, resources};

/// Between tries to configure or create a container; a change of what it refers to comes first.
const RETRY: Duration = Duration::from_secs(10);
/// Upstream's bounds on a termination message, and on the log's end in its place.
const MESSAGE_MAX_BYTES: usize = 4096;
const LOG_TAIL_MAX_BYTES: u64 = 2048;
const LOG_TAIL_MAX_LINES: usize = 80;
/// What runtimes report for a process that could not be started.
const START_ERROR_CODE: i32 = 128;
const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

type Env = Vec<(String, String)>;

impl Worker {
    /// Failures are remembered for status and retry; they do not stop the pod's other containers.
    pub async fn start(
        &self,
        pod: &Arc<Pod>,
        sandbox: &str,
        name: &str,
        attempt: u32,
        backoff: Duration,
        image: Result<Image, ImageFailure>,
    ) {
        let Some(container) = find_container(pod, name) else { return };
        let about = about_container(pod, container);
        let image = match image {
            Ok(image) => image,
            Err(failure) => return self.hold_back(name, failure.waiting, failure.retry_after),
        };
        let config = match self.configure(pod, container, attempt, backoff, image).await {
            Ok(config) => config,
            Err(why) => {
                self.ctx.recorder.warning(&about, "Failed", format!("Error: {why}"));
                let waiting = Waiting::new("CreateContainerConfigError", why);
                return self.hold_back(name, waiting, RETRY);
            }
        };
        let turn = self.ctx.starts.wait(Rank::First).await;
        let id = match self.ctx.runtime.create_container(sandbox, &config).await {
            Ok(id) => id,
            Err(why) => {
                self.ctx.recorder.warning(&about, "Failed", format!("Error: {why}"));
                let waiting = Waiting::new("CreateContainerError", why.to_string());
                return self.hold_back(name, waiting, RETRY);
            }
        };
        self.ctx.recorder.normal(&about, "Created", format!("Created container: {name}"));
        if let Err(why) = self.ctx.runtime.start_container(&id).await {
            let why = start_failure(why);
            self.ctx.recorder.warning(&about, "Failed", format!("Error: {why}"));
            self.never_ran(name, &id, attempt, backoff, why).await;
            return;
        }
        drop(turn);
        self.ctx.recorder.normal(&about, "Started", format!("Started container {name}"));
        {
            let mut memory = self.memory();
            memory.waiting.remove(name);
            memory.retries.remove(name);
        }
        // The status is written while the hook still runs.
        self.slot.wake.notify_one();
        self.post_start(pod, container, &id).await;
    }

    /// A start that failed counts as an end, so that the next waits its turn.
    async fn never_ran(&self, name: &str, id: &str, attempt: u32, backoff: Duration, why: String) {
        if let Err(error) = self.ctx.runtime.remove_container(id).await {
            tracing::warn!(
                container = id,
                "a container that did not start is left behind: {error}"
            );
        }
        let mut memory = self.memory();
        memory.history.remember(
            name,
            Exit {
                attempt,
                id: id.to_owned(),
                exit_code: START_ERROR_CODE,
                signal: 0,
                reason: "StartError".into(),
                message: why.clone(),
                started_at: None,
                finished_at: SystemTime::now(),
                backoff,
            },
        );
        memory.waiting.insert(name.to_owned(), Waiting::new("RunContainerError", why));
    }

    /// Everything the runtime must know. The error is what the container's status will say.
    async fn configure(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        attempt: u32,
        backoff: Duration,
        image: Image,
    ) -> Result<ContainerConfig, String> {
        let namespace = &pod.metadata.namespace;
        let lookups = self.ctx.objects.lookup(namespace, &references(pod)).await;
        let lookups = lookups.map_err(|why| why.to_string())?;
        let (facts, services) = (self.facts(pod), self.service_env(pod));
        let env = environment(pod, container, &services, &lookups, &facts)
            .map_err(|why| why.to_string())?;
        let security = security(pod, container, &image.config)?;
        let message_file = self.message_file(&container.name, attempt);
        let mounts = self.mounts(pod, container, &env, &facts, &message_file).await?;
        let log_path = self
            .ctx
            .config
            .pod_log_dir(&self.pod_ref)
            .join(&container.name)
            .join(format!("{attempt}.log"));
        if let Some(dir) = log_path.parent() {
            let made = tokio::fs::create_dir_all(dir).await;
            made.map_err(|why| format!("create log folder {}: {why}", dir.display()))?;
        }
        let config = &self.ctx.config;
        let (hostname, _) = etc::names(pod, &config.node_name, &config.cluster_domain);
        let working_dir = if container.working_dir.is_empty() {
            image.config.working_dir.clone()
        } else {
            container.working_dir.clone()
        };
        Ok(ContainerConfig {
            pod: self.pod_ref.clone(),
            name: container.name.clone(),
            attempt,
            args: command_line(container, &image.config, &env),
            env: merged_env(&image.config, &hostname, container, &env),
            working_dir,
            mounts,
            resources: resources::container(&pod.spec, container, self.ctx.node.memory_bytes),
            security,
            tty: container.tty,
            stdin: container.stdin,
            log_path,
            annotations: annotations(container, backoff, &message_file),
            image,
        })
    }

    fn message_file(&self, name: &str, attempt: u32) -> PathBuf {
        let dir = self.ctx.config.pod_dir(&self.pod_ref.uid);
        dir.join("containers").join(name).join(format!("{attempt}.message"))
    }

    async fn mounts(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        env: &Env,
        facts: &Facts,
        message_file: &Path,
    ) -> Result<Vec<Mount>, String> {
        let builder = MountBuilder {
            pod: pod.clone(),
            container: container.clone(),
            env: env.clone(),
            places: self.memory().places.clone(),
            pod_dir: self.ctx.config.pod_dir(&self.pod_ref.uid),
            message_file: message_file.to_path_buf(),
            etc_files: self.etc_files(pod, facts),
        };
        let built = tokio::task::spawn_blocking(move || builder.build()).await;
        built.map_err(|why| format!("prepare mounts: {why}"))?
    }

    /// File names below the pod's folder, where containers see them, and what they hold.
    fn etc_files(&self, pod: &Pod, facts: &Facts) -> Vec<(&'static str, &'static str, String)> {
        let config = &self.ctx.config;
        let host =
            |name: &str| std::fs::read_to_string(config.host_etc.join(name)).unwrap_or_default();
        let names = etc::names(pod, &config.node_name, &config.cluster_domain);
        let host_hosts = if pod.spec.host_network { host("hosts") } else { String::new() };
        let resolv = etc::resolv_conf(
            pod,
            &config.cluster_dns,
            &config.cluster_domain,
            &host("resolv.conf"),
        );
        vec![
            ("hosts", "/etc/hosts", etc::hosts(pod, &facts.pod_ips, &names, &host_hosts)),
            ("hostname", "/etc/hostname", format!("{}\n", names.0)),
            ("resolv.conf", "/etc/resolv.conf", resolv),
        ]
    }
}

/// Upstream's words, the same for each try: a container's id would make each event a new one.
fn start_failure(why: RuntimeError) -> String {
    match why {
        RuntimeError::Failed { why, .. } => format!("failed to create containerd task: {why}"),
        other => other.to_string(),
    }
}

fn annotations(
    container: &Container,
    backoff: Duration,
    message_file: &Path,
) -> BTreeMap<String, String> {
    BTreeMap::from([
        (IMAGE_ANNOTATION.into(), container.image.clone()),
        (BACKOFF_ANNOTATION.into(), backoff.as_secs().to_string()),
        (MESSAGE_ANNOTATION.into(), message_file.to_string_lossy().into_owned()),
    ])
}

/// Makes the files behind a container's mounts. Blocking.
struct MountBuilder {
    pod: Arc<Pod>,
    container: Container,
    env: Env,
    places: BTreeMap<String, PathBuf>,
    pod_dir: PathBuf,
    message_file: PathBuf,
    etc_files: Vec<(&'static str, &'static str, String)>,
}

impl MountBuilder {
    fn build(&self) -> Result<Vec<Mount>, String> {
        let mut all = Vec::new();
        for (place, mount) in self.container.volume_mounts.iter().enumerate() {
            all.push(self.volume(place, mount)?);
        }
        let taken = |path: &str| {
            self.container.volume_mounts.iter().any(|m| m.mount_path.trim_end_matches('/') == path)
        };
        for (name, path, text) in &self.etc_files {
            if taken(path) {
                continue;
            }
            let file = self.pod_dir.join(name);
            write_if_changed(&file, text)?;
            all.push(plain(file, path));
        }
        let path = &self.container.termination_message_path;
        let path = if path.is_empty() { DEFAULT_MESSAGE_PATH } else { path };
        self.make_message_file()?;
        all.push(plain(self.message_file.clone(), path));
        Ok(all)
    }

    fn make_message_file(&self) -> Result<(), String> {
        use std::os::unix::fs::PermissionsExt;
        let file = &self.message_file;
        let made = (|| {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::write(file, "")?;
            // Whatever user the container runs as may write it.
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666))
        })();
        made.map_err(|why: std::io::Error| format!("create {}: {why}", file.display()))
    }

    fn volume(&self, place: usize, mount: &VolumeMount) -> Result<Mount, String> {
        let name = &mount.name;
        let source = self.places.get(name).ok_or_else(|| {
            format!("cannot find volume {name:?} to mount into container {:?}", self.container.name)
        })?;
        let volume = self.pod.spec.volumes.iter().find(|v| v.name == *name);
        let kept_by_us = volume.is_some_and(|v| {
            v.config_map.is_some()
                || v.secret.is_some()
                || v.downward_api.is_some()
                || v.projected.is_some()
        });
        let untyped_host_path =
            volume.and_then(|v| v.host_path.as_ref()).is_some_and(|h| h.type_.is_empty());
        if untyped_host_path && !source.exists() {
            let made = std::fs::create_dir_all(source);
            made.map_err(|why| format!("create host path {}: {why}", source.display()))?;
        }
        let propagation = match mount.mount_propagation.as_str() {
            "HostToContainer" => "rslave",
            "Bidirectional" => "rshared",
            _ => "rprivate",
        };
        Ok(Mount {
            host_path: self.sub_path(place, mount, source)?,
            container_path: absolute(&mount.mount_path),
            read_only: mount.read_only || kept_by_us,
            propagation: propagation.into(),
        })
    }

    fn sub_path(
        &self,
        place: usize,
        mount: &VolumeMount,
        source: &Path,
    ) -> Result<PathBuf, String> {
        let value = |name: &str| self.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let sub = if mount.sub_path_expr.is_empty() {
            mount.sub_path.clone()
        } else {
            let sub = expand(&mount.sub_path_expr, value);
            if sub.contains("$(") {
                return Err(format!("missing value for subPathExpr {:?}", mount.sub_path_expr));
            }
            sub
        };
        if sub.is_empty() {
            return Ok(source.to_path_buf());
        }
        let target = self.pod_dir.join("subpaths").join(&mount.name);
        let target = target.join(&self.container.name).join(place.to_string());
        mounts::bind_sub_path(source, Path::new(&sub), &target).map_err(|why| {
            format!(
                "failed to prepare subPath for volumeMount {:?} of container {:?}: {why}",
                mount.name, self.container.name
            )
        })?;
        Ok(target)
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn plain(host_path: PathBuf, container_path: &str) -> Mount {
    Mount {
        host_path,
        container_path: container_path.into(),
        read_only: false,
        propagation: "rprivate".into(),
    }
}

fn write_if_changed(path: &Path, text: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    // In place: a running container has this very file mounted.
    std::fs::write(path, text).map_err(|why| format!("write {}: {why}", path.display()))
}

/// What an ended container left to say: its message file, or the end of its log where the
/// policy asks for it and it failed.
pub async fn termination_message(state: &ContainerState, policy: &str) -> String {
    if let Some(file) = state.annotations.get(MESSAGE_ANNOTATION)
        && let Ok(bytes) = tokio::fs::read(file).await
        && !bytes.is_empty()
    {
        let end = bytes.len().min(MESSAGE_MAX_BYTES);
        return String::from_utf8_lossy(&bytes[..end]).into_owned();
    }
    let failed = state.exit_code != Some(0);
    if policy != "FallbackToLogsOnError" || !failed {
        return String::new();
    }
    let log = state.log_path.clone();
    let tail = tokio::task::spawn_blocking(move || log_tail(&log)).await;
    tail.ok().flatten().unwrap_or_default()
}

fn log_tail(path: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    // Each line carries a header of some forty bytes.
    let wanted = LOG_TAIL_MAX_BYTES * 4;
    file.seek(SeekFrom::Start(size.saturating_sub(wanted))).ok()?;
    let mut bytes = Vec::new();
    file.take(wanted).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if size > wanted {
        lines.remove(0);
    }
    let from = lines.len().saturating_sub(LOG_TAIL_MAX_LINES);
    let content = lines[from..].iter().filter_map(|line| line.splitn(4, ' ').nth(3));
    let text = content.collect::<Vec<_>>().join("\n") + "\n";
    let mut cut = text.len().saturating_sub(LOG_TAIL_MAX_BYTES as usize);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    Some(text[cut..].to_owned())
}
