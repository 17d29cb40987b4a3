//! Carries out one decision. No choices are left here.

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::json;
use skiff_client::event::Recorder;
use skiff_client::{Api, DeleteOptions, Patch, Target, WriteOptions};
use skiff_proto::{ObjectReference, Status, Timestamp, resource};

use super::Shared;
use crate::pod::PodInfo;
use crate::preemption::Preemption;
use crate::scheduler::Decision;

pub async fn execute(api: &dyn Api, recorder: &Recorder, shared: &Shared, decision: Decision) {
    match decision {
        Decision::Bind { pod, node } => match bind(api, &pod, &node).await {
            Ok(()) => {
                shared.change(|scheduler, now| scheduler.bound(&pod.uid, now));
                let message = format!("Successfully assigned {} to {node}", pod.key);
                recorder.normal(&pod.reference(), "Scheduled", message);
            }
            Err(status) => {
                // A pod deleted or bound meanwhile shows in the watch; it is not tried again.
                tracing::warn!(pod = %pod.key, %node, "binding failed: {status}");
                shared.change(|scheduler, now| scheduler.bind_failed(&pod.uid, now));
                if !status.is_not_found() && !status.is_conflict() {
                    let message = format!("binding rejected: {status}");
                    recorder.warning(&pod.reference(), "FailedScheduling", message);
                }
            }
        },
        Decision::Wait { pod, message, preemption } => {
            recorder.warning(&pod.reference(), "FailedScheduling", message.as_str());
            let nominated = preemption.as_ref().map(|made| &*made.node);
            if let Some(patch) = waiting_patch(&pod, &message, nominated, SystemTime::now())
                && let Err(status) = patch_status(api, &pod, patch).await
                && !status.is_not_found()
            {
                tracing::warn!(pod = %pod.key, "cannot write why the pod waits: {status}");
            }
            if let Some(preemption) = preemption {
                evict(api, recorder, &pod, &preemption).await;
            }
        }
    }
}

async fn bind(api: &dyn Api, pod: &PodInfo, node: &str) -> Result<(), Status> {
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let target = Target::one(&resource::PODS, namespace, name).subresource("binding");
    api.create(&target, Bytes::from(binding.to_string()), &WriteOptions::default()).await?;
    Ok(())
}

/// The change of status that tells why a pod waits; `None` if it says so already. Strategic,
/// since other conditions must stay.
pub fn waiting_patch(
    pod: &PodInfo,
    message: &str,
    nominated: Option<&str>,
    now: SystemTime,
) -> Option<serde_json::Value> {
    let mut status = serde_json::Map::new();
    let known = pod.scheduled_condition.as_ref();
    let said = known.is_some_and(|(status, reason, text)| {
        status == "False" && reason == "Unschedulable" && text == message
    });
    if !said {
        let mut condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        });
        if known.is_none_or(|(status, _, _)| status != "False") {
            condition["lastTransitionTime"] = Timestamp::seconds(now).to_string().into();
        }
        status.insert("conditions".into(), json!([condition]));
    }
    if let Some(node) = nominated.filter(|node| *node != pod.nominated_node) {
        status.insert("nominatedNodeName".into(), node.into());
    }
    (!status.is_empty()).then(|| json!({"status": status}))
}

async fn patch_status(
    api: &dyn Api,
    pod: &PodInfo,
    patch: serde_json::Value,
) -> Result<(), Status> {
    let target = Target::one(&resource::PODS, &pod.key.namespace, &pod.key.name);
    let patch = Patch::Strategic(Bytes::from(patch.to_string()));
    api.patch(&target.subresource("status"), patch, &WriteOptions::default()).await?;
    Ok(())
}

/// Removes the pods that make room; their end wakes the pod that waits for it.
async fn evict(api: &dyn Api, recorder: &Recorder, pod: &PodInfo, preemption: &Preemption) {
    for victim in &preemption.victims {
        // One that is ending already needs no second delete.
        if victim.terminating {
            continue;
        }
        let target = Target::one(&resource::PODS, &victim.key.namespace, &victim.key.name);
        let options = DeleteOptions { uid: victim.uid.to_string(), ..Default::default() };
        match api.delete(&target, &options).await {
            Ok(_) => {
                let about: ObjectReference = victim.reference();
                let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.node);
                recorder.normal(&about, "Preempted", message);
            }
            Err(status) if status.is_not_found() => {}
            Err(status) => {
                tracing::warn!(victim = %victim.key, pod = %pod.key, "preemption failed: {status}");
            }
        }
    }
}
