//! Lifecycle hooks: after a container's start, before its stop.

use std::net::IpAddr;
use std::time::Duration;

use skiff_proto::model::{Container, LifecycleHandler, Pod};

use super::context::about_container;
use super::worker::Worker;
use crate::probe::ask::{self, Answer};

/// Upstream gives a hook without a bound of its own the pod's life; an answer over HTTP this long.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

impl Worker {
    /// A failed hook ends the container, which then follows its restart policy.
    pub async fn post_start(&self, pod: &Pod, container: &Container, id: &str) {
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return };
        let ran = self.ending.run_until_cancelled(self.run_hook(pod, container, id, hook)).await;
        let Some(Err(why)) = ran else { return };
        let about = about_container(pod, container);
        let text = format!("PostStartHook failed: {why}");
        self.ctx.recorder.warning(&about, "FailedPostStartHook", text);
        let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30).max(0) as u64;
        let killed = self.ctx.runtime.stop_container(id, Duration::from_secs(grace));
        if let Some(Err(why)) = self.ending.run_until_cancelled(killed).await {
            tracing::warn!(container = id, "not ended after its failed hook: {why}");
        }
    }

    /// Runs for at most `grace`; failures are told and change nothing.
    pub async fn pre_stop(&self, pod: &Pod, container: &Container, id: &str, grace: Duration) {
        let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        let Some(hook) = hook else { return };
        let about = about_container(pod, container);
        match tokio::time::timeout(grace, self.run_hook(pod, container, id, hook)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                let text = format!("PreStopHook failed: {why}");
                self.ctx.recorder.warning(&about, "FailedPreStopHook", text);
            }
            Err(_) => {
                tracing::debug!(container = id, "preStop hook took the whole grace period");
            }
        }
    }

    async fn run_hook(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        hook: &LifecycleHandler,
    ) -> Result<(), String> {
        let address: Option<IpAddr> = self.facts(pod).pod_ips.first().copied();
        let answer = if let Some(exec) = &hook.exec {
            // Bounded by the caller: the pod's end, or its grace period.
            ask::exec(&*self.ctx.runtime, id, &exec.command).await
        } else if let Some(get) = &hook.http_get {
            ask::http_get(container, get, address, HTTP_TIMEOUT).await
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
            return Ok(());
        } else {
            return Ok(());
        };
        match answer {
            Answer::Success => Ok(()),
            Answer::Failure(why) | Answer::Unknown(why) => Err(why),
        }
    }
}
