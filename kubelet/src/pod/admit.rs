//! The worker's side of admission: asks once, before anything of the pod is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use skiff_client::Target;
use skiff_proto::model::{Node, Pod};
use skiff_proto::resource;

use super::context::about_pod;
use super::worker::{Seen, Worker, is_over};
use crate::admission::{Capacity, asks_for_labels};

impl Worker {
    /// What runs already, or ran before the host was started again, stays; what has ended gives its share back.
    pub async fn admit(&self, pod: &Arc<Pod>, seen: &Seen) {
        if is_over(&self.writer) {
            return self.ctx.admission.release(&self.pod_ref.uid);
        }
        if self.memory().admitted {
            return;
        }
        let began = self.writer.last().start_time.is_some() || !seen.sandboxes.is_empty();
        let verdict = if began {
            self.ctx.admission.take_up(pod);
            Ok(())
        } else {
            let labels = self.node_labels(pod).await;
            let capacity = Capacity { size: self.ctx.node, pods: self.ctx.config.max_pods };
            let node_name = &self.ctx.config.node_name;
            self.ctx.admission.admit(pod, capacity, node_name, labels.as_ref())
        };
        if let Err(why) = &verdict {
            self.ctx.recorder.warning(&about_pod(pod), &why.reason, why.message.clone());
        }
        let mut memory = self.memory();
        memory.admitted = true;
        memory.failed = memory.failed.take().or(verdict.err());
    }

    /// The node's own, where the pod asks for any. Unread ones refuse nobody: the scheduler has seen them.
    async fn node_labels(&self, pod: &Pod) -> Option<BTreeMap<String, String>> {
        if !asks_for_labels(pod) {
            return None;
        }
        let target = Target::one(&resource::NODES, "", &self.ctx.config.node_name);
        let node: Node = self.ctx.api.get(&target).await.ok()?.parse().ok()?;
        Some(node.metadata.labels.into_iter().collect())
    }
}
