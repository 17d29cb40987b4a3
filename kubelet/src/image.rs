//! Images for containers: pull policy, back-off after failures, pull secrets, and the events
//! people know from upstream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use serde::Deserialize;
use skiff_client::event::Recorder;
use skiff_kit::backoff::Backoff;
use skiff_proto::ObjectReference;
use skiff_proto::model::{Container, Secret};
use tokio::sync::Semaphore;

use crate::ports::{Image, RegistryAuth, Runtime, RuntimeError};
use crate::status::Waiting;

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LAST_BACKOFF: Duration = Duration::from_secs(300);
/// Remembered failures; each names a pod and an image. Beyond, all are forgiven.
const MAX_FAILURES: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFailure {
    pub waiting: Waiting,
    pub retry_after: Duration,
}

struct Failing {
    backoff: Backoff,
    until: Instant,
}

pub struct Images {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    pulls: Semaphore,
    /// By image: a second puller waits and finds it present.
    pulling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// By pod uid and image.
    failing: Mutex<HashMap<(String, String), Failing>>,
}

/// Whether the image must be asked for even if it is there. Pure.
pub fn always_pulls(container: &Container) -> bool {
    match container.image_pull_policy.as_str() {
        "Always" => true,
        "IfNotPresent" | "Never" => false,
        _ => tag(&container.image).is_none_or(|tag| tag == "latest"),
    }
}

/// The tag, or the digest. Pure.
fn tag(image: &str) -> Option<&str> {
    if let Some((_, digest)) = image.split_once('@') {
        return Some(digest);
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map(|(_, tag)| tag)
}

impl Images {
    pub fn new(runtime: Arc<dyn Runtime>, recorder: Recorder, parallel_pulls: usize) -> Self {
        Self {
            runtime,
            recorder,
            pulls: Semaphore::new(parallel_pulls),
            pulling: Mutex::default(),
            failing: Mutex::default(),
        }
    }

    /// The image of this container, pulled if need be. `about` names the container.
    pub async fn ensure(
        &self,
        about: &ObjectReference,
        container: &Container,
        secrets: &[Secret],
    ) -> Result<Image, ImageFailure> {
        let name = &container.image;
        let present = match self.runtime.image(name).await {
            Ok(present) => present,
            Err(why) => return Err(self.inspect_failed(about, name, &why)),
        };
        let never = container.image_pull_policy == "Never";
        match present {
            Some(image) if never || !always_pulls(container) => {
                let text = format!("Container image {name:?} already present on machine");
                self.recorder.normal(about, "Pulled", text);
                Ok(image)
            }
            None if never => {
                let text =
                    format!("Container image {name:?} is not present with pull policy of Never");
                self.recorder.warning(about, "ErrImageNeverPull", text.clone());
                Err(self.failure(about, "ErrImageNeverPull", text, FIRST_BACKOFF))
            }
            _ => self.pull(about, name, !always_pulls(container), secrets).await,
        }
    }

    fn failure(
        &self,
        about: &ObjectReference,
        reason: &str,
        message: String,
        retry_after: Duration,
    ) -> ImageFailure {
        self.recorder.warning(about, "Failed", format!("Error: {reason}"));
        ImageFailure { waiting: Waiting::new(reason, message), retry_after }
    }

    fn inspect_failed(
        &self,
        about: &ObjectReference,
        name: &str,
        why: &RuntimeError,
    ) -> ImageFailure {
        if let RuntimeError::InvalidImageName { why, .. } = why {
            let text = format!(
                "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {why}"
            );
            self.recorder.warning(about, "InspectFailed", text.clone());
            return self.failure(about, "InvalidImageName", text, LAST_BACKOFF);
        }
        let text = format!("Failed to inspect image {name:?}: {why}");
        self.recorder.warning(about, "InspectFailed", text.clone());
        self.failure(about, "ImageInspectError", text, FIRST_BACKOFF)
    }

    async fn pull(
        &self,
        about: &ObjectReference,
        name: &str,
        only_missing: bool,
        secrets: &[Secret],
    ) -> Result<Image, ImageFailure> {
        let key = (about.uid.clone(), name.to_owned());
        if let Some(left) = self.backed_off(&key) {
            let text = format!("Back-off pulling image {name:?}");
            self.recorder.normal(about, "BackOff", text.clone());
            return Err(self.failure(about, "ImagePullBackOff", text, left));
        }
        let asked = Instant::now();
        let turn = {
            let mut pulling = self.pulling.lock().unwrap_or_else(|p| p.into_inner());
            pulling.retain(|_, lock| Arc::strong_count(lock) > 1);
            pulling.entry(name.to_owned()).or_default().clone()
        };
        let _turn = turn.lock().await;
        if only_missing && let Ok(Some(image)) = self.runtime.image(name).await {
            let text = format!("Container image {name:?} already present on machine");
            self.recorder.normal(about, "Pulled", text);
            return Ok(image);
        }
        let _permit = self.pulls.acquire().await;
        self.recorder.normal(about, "Pulling", format!("Pulling image {name:?}"));
        let begun = Instant::now();
        match self.try_pull(name, secrets).await {
            Ok(image) => {
                self.forgive(&key);
                self.recorder.normal(about, "Pulled", format!(
                    "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {} bytes.",
                    seconds(begun.elapsed()), seconds(asked.elapsed()), image.size_bytes
                ));
                Ok(image)
            }
            Err(why) => {
                let text = format!("Failed to pull image {name:?}: {why}");
                self.recorder.warning(about, "Failed", text.clone());
                let wait = self.back_off(key);
                Err(self.failure(about, "ErrImagePull", why.to_string(), wait))
            }
        }
    }

    async fn try_pull(&self, name: &str, secrets: &[Secret]) -> Result<Image, RuntimeError> {
        let mut failed = None;
        for auth in credentials(name, secrets) {
            match self.runtime.pull(name, Some(&auth)).await {
                Ok(image) => return Ok(image),
                Err(why) => failed = Some(why),
            }
        }
        match failed {
            // With credentials of its own, a registry is not asked without.
            Some(why) => Err(why),
            None => self.runtime.pull(name, None).await,
        }
    }

    fn backed_off(&self, key: &(String, String)) -> Option<Duration> {
        let failing = self.failing.lock().unwrap_or_else(|p| p.into_inner());
        let left = failing.get(key)?.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn back_off(&self, key: (String, String)) -> Duration {
        let mut failing = self.failing.lock().unwrap_or_else(|p| p.into_inner());
        if failing.len() >= MAX_FAILURES {
            failing.clear();
        }
        let now = Instant::now();
        let entry = failing.entry(key).or_insert_with(|| Failing {
            backoff: Backoff::new(FIRST_BACKOFF, LAST_BACKOFF),
            until: now,
        });
        let wait = entry.backoff.next();
        entry.until = now + wait;
        wait
    }

    fn forgive(&self, key: &(String, String)) {
        self.failing.lock().unwrap_or_else(|p| p.into_inner()).remove(key);
    }
}

fn seconds(duration: Duration) -> String {
    if duration.as_secs() == 0 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}

/// A Secret of type `kubernetes.io/dockerconfigjson`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerConfig {
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    /// `user:password` in base64.
    auth: String,
}

/// The credentials in these pull secrets that are meant for this image. Pure.
pub fn credentials(image: &str, secrets: &[Secret]) -> Vec<RegistryAuth> {
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let mut found = Vec::new();
    for secret in secrets {
        let config = secret.data.get(".dockerconfigjson").and_then(|data| decode(data));
        let Some(config) =
            config.and_then(|json| serde_json::from_slice::<DockerConfig>(&json).ok())
        else {
            continue;
        };
        for (registry, auth) in config.auths {
            if !serves(&registry, image) {
                continue;
            }
            let mut pair = (auth.username, auth.password);
            if pair.0.is_empty()
                && let Some(text) = decode(&auth.auth).and_then(|b| String::from_utf8(b).ok())
                && let Some((user, password)) = text.split_once(':')
            {
                pair = (user.to_owned(), password.to_owned());
            }
            found.push(RegistryAuth { username: pair.0, password: pair.1 });
        }
    }
    found
}

/// Whether an entry of a docker configuration is for this image. Pure.
fn serves(registry: &str, image: &str) -> bool {
    let registry = registry.trim_start_matches("https://").trim_start_matches("http://");
    let registry = registry.trim_end_matches('/');
    let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let hub = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let (image_host, image_path) = match image.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", image),
    };
    (host == image_host || hub(host) && hub(image_host))
        && (path.is_empty() || image_path.starts_with(&format!("{path}/")) || image_path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(image: &str, policy: &str) -> Container {
        Container { image: image.into(), image_pull_policy: policy.into(), ..Default::default() }
    }

    #[test]
    fn policy_defaults_by_tag() {
        for (image, always) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("localhost:5000/nginx", true),
            ("localhost:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
        ] {
            assert_eq!(always_pulls(&container(image, "")), always, "{image}");
        }
        assert!(always_pulls(&container("nginx:1", "Always")));
        assert!(!always_pulls(&container("nginx", "IfNotPresent")));
    }

    #[test]
    fn credentials_go_only_to_their_registry() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"reg.example:5000/team":{"username":"a","password":"b"}}}"#;
        let data = base64::engine::general_purpose::STANDARD.encode(json);
        let secret =
            Secret { data: [(".dockerconfigjson".to_owned(), data)].into(), ..Default::default() };
        let user = |image: &str| {
            credentials(image, std::slice::from_ref(&secret)).first().map(|a| a.username.clone())
        };
        assert_eq!(user("busybox"), Some("u".into()));
        assert_eq!(user("docker.io/library/busybox"), Some("u".into()));
        assert_eq!(user("reg.example:5000/team/app:1"), Some("a".into()));
        assert_eq!(user("reg.example:5000/other/app:1"), None);
        assert_eq!(user("ghcr.io/x/y"), None);
    }
}
