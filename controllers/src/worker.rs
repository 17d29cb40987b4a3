//! Workers that take keys from a controller's queue and reconcile them.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use skiff_client::Queue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::write::{Chain, Failure};

/// One controller: a queue of keys and what is done for a key. A key carries no data; the
/// reconcile reads what is there now, so repeats are harmless.
pub trait Reconcile: Send + Sync + 'static {
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;
    const NAME: &'static str;

    fn queue(&self) -> &Arc<Queue<Self::Key>>;
    fn reconcile(
        &self,
        key: &Self::Key,
    ) -> impl Future<Output = std::result::Result<(), Failure>> + Send;
}

/// Starts workers. On shutdown each finishes the key at hand.
pub fn spawn<R: Reconcile>(
    tasks: &mut JoinSet<()>,
    controller: &Arc<R>,
    workers: usize,
    shutdown: &CancellationToken,
) {
    for _ in 0..workers {
        let (controller, shutdown) = (controller.clone(), shutdown.clone());
        tasks.spawn(async move {
            while let Some(key) = shutdown.run_until_cancelled(controller.queue().get()).await {
                work(&*controller, key).await;
            }
        });
    }
}

async fn work<R: Reconcile>(controller: &R, key: R::Key) {
    let queue = controller.queue();
    match controller.reconcile(&key).await {
        Ok(()) => queue.forget(&key),
        Err(failure) if failure.is_namespace_terminating() => {
            tracing::debug!(controller = R::NAME, %key, "left alone: {}", Chain(&failure));
            queue.forget(&key);
        }
        Err(failure) => {
            let failure_text = Chain(&failure);
            if failure.is_race() {
                tracing::debug!(controller = R::NAME, %key, "trying again: {failure_text}");
            } else {
                tracing::warn!(controller = R::NAME, %key, "trying again: {failure_text}");
            }
            queue.retry(key.clone());
        }
    }
    queue.done(&key);
}
