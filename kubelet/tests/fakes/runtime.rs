//! A runtime whose containers do what their first argument says: `run` until stopped,
//! `exit N` at once, `fail` to start. And a network that hands out addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use skiff_kubelet::ports::*;
use tokio::sync::mpsc;

#[derive(Default)]
struct State {
    sandboxes: Vec<SandboxState>,
    containers: Vec<ContainerState>,
    args: BTreeMap<String, Vec<String>>,
    configs: Vec<ContainerConfig>,
    calls: Vec<String>,
    listeners: Vec<mpsc::Sender<RuntimeEvent>>,
    next: u32,
    /// Images that a registry does not have.
    exec_code: i32,
    exec_output: String,
}

pub struct FakeRuntime {
    state: Mutex<State>,
}

fn not_found(kind: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { kind, id: id.into() }
}

fn image(reference: &str) -> Image {
    Image {
        reference: reference.into(),
        id: "sha256:1".into(),
        repo_digest: format!("{reference}@sha256:1"),
        size_bytes: 1000,
        config: ImageConfig { cmd: vec!["run".into()], ..Default::default() },
    }
}

impl FakeRuntime {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("lock")
    }

    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// The configurations of all containers ever created under this name.
    pub fn configs(&self, name: &str) -> Vec<ContainerConfig> {
        self.lock().configs.iter().filter(|c| c.name == name).cloned().collect()
    }

    pub fn running(&self) -> Vec<String> {
        let state = self.lock();
        let running = state.containers.iter().filter(|c| c.phase == Phase::Running);
        running.map(|c| format!("{}#{}", c.name, c.attempt)).collect()
    }

    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    /// From now on commands in containers end like this.
    pub fn exec_says(&self, code: i32, output: &str) {
        let mut state = self.lock();
        (state.exec_code, state.exec_output) = (code, output.into());
    }

    /// A container ends on its own.
    pub fn crash(&self, name: &str, code: i32) {
        let mut state = self.lock();
        let found = state.containers.iter_mut().rfind(|c| c.name == name).expect("the container");
        end(found, code);
        let pod = found.pod.clone();
        tell(&mut state, pod);
    }

    /// The host was rebooted: nothing of what ran is known any more.
    pub fn forget_everything(&self) {
        let mut state = self.lock();
        state.sandboxes.clear();
        state.containers.clear();
    }
}

fn end(container: &mut ContainerState, code: i32) {
    container.phase = Phase::Exited;
    container.exit_code = Some(code);
    container.finished_at = Some(SystemTime::now());
    container.pid = None;
}

fn tell(state: &mut State, pod: PodRef) {
    for listener in &state.listeners {
        let _ = listener.try_send(RuntimeEvent { pod: Some(pod.clone()) });
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<String, RuntimeError> {
        Ok("fake://1".into())
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        if reference.contains(' ') {
            return Err(RuntimeError::InvalidImageName {
                reference: reference.into(),
                why: "invalid reference format".into(),
            });
        }
        Ok((!reference.contains("missing")).then(|| image(reference)))
    }

    async fn pull(&self, reference: &str, _: Option<&RegistryAuth>) -> Result<Image, RuntimeError> {
        self.lock().calls.push(format!("pull {reference}"));
        Err(RuntimeError::Pull { reference: reference.into(), why: "not found".into() })
    }

    async fn import(&self, _: &Path) -> Result<Vec<Image>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn remove_image(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String, RuntimeError> {
        let mut state = self.lock();
        state.next += 1;
        let id = format!("sandbox{}", state.next);
        state.calls.push(format!("sandbox {}#{}", config.pod.name, config.attempt));
        state.sandboxes.push(SandboxState {
            id: id.clone(),
            pod: config.pod.clone(),
            attempt: config.attempt,
            phase: Phase::Running,
            created_at: SystemTime::now(),
            network_namespace: config.network_namespace.clone(),
            pid: Some(1),
        });
        tell(&mut state, config.pod.clone());
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        for container in state.containers.iter_mut().filter(|c| c.sandbox_id == id) {
            if container.phase == Phase::Running {
                end(container, 137);
            }
        }
        let Some(sandbox) = state.sandboxes.iter_mut().find(|s| s.id == id) else { return Ok(()) };
        sandbox.phase = Phase::Exited;
        let pod = sandbox.pod.clone();
        state.calls.push(format!("stop sandbox {}", pod.name));
        tell(&mut state, pod);
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        if let Some(sandbox) = state.sandboxes.iter().find(|s| s.id == id) {
            assert_ne!(sandbox.phase, Phase::Running, "removed before it was stopped");
        }
        state.sandboxes.retain(|s| s.id != id);
        state.containers.retain(|c| c.sandbox_id != id);
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let mut state = self.lock();
        let live = state.sandboxes.iter().any(|s| s.id == sandbox_id && s.phase == Phase::Running);
        if !live {
            return Err(not_found("sandbox", sandbox_id));
        }
        let taken = state
            .containers
            .iter()
            .any(|c| c.pod == config.pod && c.name == config.name && c.attempt == config.attempt);
        assert!(!taken, "{}#{} is there already", config.name, config.attempt);
        for mount in &config.mounts {
            assert!(mount.host_path.exists(), "{} is not there", mount.host_path.display());
        }
        state.next += 1;
        let id = format!("container{}", state.next);
        state.args.insert(id.clone(), config.args.clone());
        state.configs.push(config.clone());
        state.containers.push(ContainerState {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            pod: config.pod.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            phase: Phase::Created,
            image: config.image.reference.clone(),
            image_id: config.image.repo_digest.clone(),
            created_at: SystemTime::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            pid: None,
            log_path: config.log_path.clone(),
            annotations: config.annotations.clone(),
        });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        let args = state.args.get(id).cloned().unwrap_or_default();
        if args.first().is_some_and(|a| a == "fail") {
            let why = "exec: \"fail\": executable file not found in $PATH".into();
            return Err(RuntimeError::Failed { operation: "start container".into(), why });
        }
        let found = state.containers.iter_mut().find(|c| c.id == id);
        let container = found.ok_or_else(|| not_found("container", id))?;
        container.phase = Phase::Running;
        container.started_at = Some(SystemTime::now());
        if args.first().is_some_and(|a| a == "exit") {
            end(container, args[1].parse().expect("a code"));
        }
        let (pod, name, attempt) =
            (container.pod.clone(), container.name.clone(), container.attempt);
        state.calls.push(format!("start {name}#{attempt}"));
        tell(&mut state, pod);
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let stubborn = {
            let state = self.lock();
            state.args.get(id).is_some_and(|a| a.first().is_some_and(|a| a == "stubborn"))
        };
        if stubborn {
            tokio::time::sleep(grace).await;
        }
        let mut state = self.lock();
        let found = state.containers.iter_mut().find(|c| c.id == id);
        let container = found.ok_or_else(|| not_found("container", id))?;
        if container.phase == Phase::Running {
            end(container, if stubborn { 137 } else { 143 });
        }
        let (pod, name) = (container.pod.clone(), container.name.clone());
        state.calls.push(format!("stop {name}"));
        tell(&mut state, pod);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.lock().containers.retain(|c| c.id != id);
        Ok(())
    }

    async fn exec(&self, _: &str, _: &[String], io: ExecIo) -> Result<i32, RuntimeError> {
        let (code, output) = {
            let state = self.lock();
            (state.exec_code, state.exec_output.clone())
        };
        let _ = io.stdout.send(Bytes::from(output)).await;
        Ok(code)
    }

    async fn state(&self) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError> {
        let state = self.lock();
        Ok((state.sandboxes.clone(), state.containers.clone()))
    }

    async fn pod_state(
        &self,
        uid: &str,
    ) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError> {
        let (mut sandboxes, mut containers) = self.state().await?;
        sandboxes.retain(|s| s.pod.uid == uid);
        containers.retain(|c| c.pod.uid == uid);
        Ok((sandboxes, containers))
    }

    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(1024);
        self.lock().listeners.push(sender);
        receiver
    }
}

#[derive(Default)]
pub struct FakeNetwork {
    networks: Mutex<BTreeMap<String, PodNetwork>>,
}

impl FakeNetwork {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn is_empty(&self) -> bool {
        self.networks.lock().expect("lock").is_empty()
    }
}

#[async_trait]
impl Network for FakeNetwork {
    fn not_ready(&self) -> Option<String> {
        None
    }

    async fn set_up(
        &self,
        _: &PodRef,
        sandbox: &str,
        _: &[PortMapping],
    ) -> Result<PodNetwork, NetworkError> {
        let mut networks = self.networks.lock().expect("lock");
        let next = networks.len() as u8 + 2;
        let network = networks.entry(sandbox.to_owned()).or_insert_with(|| PodNetwork {
            namespace_path: format!("/run/netns/{sandbox}").into(),
            ips: vec![IpAddr::from([10, 42, 0, next])],
        });
        Ok(network.clone())
    }

    async fn tear_down(&self, _: &PodRef, sandbox: &str) -> Result<(), NetworkError> {
        self.networks.lock().expect("lock").remove(sandbox);
        Ok(())
    }
}
