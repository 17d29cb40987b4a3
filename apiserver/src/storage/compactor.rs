//! Gives old revisions back to the store. Driven by writes: an idle cluster compacts nothing
//! and wakes nobody.

use std::sync::Arc;
use std::time::Duration;

use skiff_store::kv::{Kv, KvError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Keeps between one and two intervals of history.
pub fn start(
    kv: Arc<dyn Kv>,
    progress: watch::Receiver<i64>,
    interval: Duration,
    shutdown: CancellationToken,
) {
    tokio::spawn(async move {
        shutdown.run_until_cancelled(run(&*kv, progress, interval)).await;
    });
}

async fn run(kv: &dyn Kv, mut progress: watch::Receiver<i64>, interval: Duration) {
    let mut mark = *progress.borrow_and_update();
    loop {
        // The clock runs only after something was written.
        if progress.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(interval).await;
        let now = *progress.borrow_and_update();
        match kv.compact(mark, false).await {
            Ok(_) => tracing::debug!(revision = mark, "compacted"),
            // Another server was first.
            Err(KvError::Compacted { .. }) => {}
            Err(error) => tracing::warn!(revision = mark, "compaction failed: {error}"),
        }
        mark = now;
    }
}
