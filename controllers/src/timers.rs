//! Wake-ups for keys: at most one per key, and one sleeping task for all of them. Nothing
//! wakes while nothing is due.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use skiff_client::Queue;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Adds keys to a queue when their time has come.
pub struct Timers<K> {
    queue: Arc<Queue<K>>,
    state: Mutex<State<K>>,
    earlier: Notify,
}

struct State<K> {
    due: BTreeMap<(Instant, u64), K>,
    slots: HashMap<K, (Instant, u64)>,
    /// Tells apart keys due at the same instant.
    sequence: u64,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Timers<K> {
    pub fn new(queue: &Arc<Queue<K>>) -> Arc<Self> {
        let state = State { due: BTreeMap::new(), slots: HashMap::new(), sequence: 0 };
        Arc::new(Self { queue: queue.clone(), state: Mutex::new(state), earlier: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Replaces the key's wake-up; `None` takes it away.
    pub fn set(&self, key: &K, after: Option<Duration>) {
        let mut state = self.state();
        if let Some(slot) = state.slots.remove(key) {
            state.due.remove(&slot);
        }
        let Some(after) = after else { return };
        state.sequence += 1;
        let slot = (Instant::now() + after, state.sequence);
        state.slots.insert(key.clone(), slot);
        state.due.insert(slot, key.clone());
        let first = state.due.first_key_value().is_some_and(|(at, _)| *at == slot);
        drop(state);
        if first {
            self.earlier.notify_one();
        }
    }

    pub async fn run(&self, shutdown: &CancellationToken) {
        shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        loop {
            let next = self.state().due.first_key_value().map(|((at, _), _)| *at);
            match next {
                None => self.earlier.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => self.ring(),
                        () = self.earlier.notified() => {}
                    }
                }
            }
        }
    }

    fn ring(&self) {
        let now = Instant::now();
        let mut state = self.state();
        while let Some(entry) = state.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            state.slots.remove(&key);
            self.queue.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_setting_counts() {
        let queue = Queue::new();
        let timers = Timers::new(&queue);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let (timers, shutdown) = (timers.clone(), shutdown.clone());
            async move { timers.run(&shutdown).await }
        });
        let begin = Instant::now();
        timers.set(&"late", Some(Duration::from_secs(60)));
        timers.set(&"moved", Some(Duration::from_secs(5)));
        timers.set(&"moved", Some(Duration::from_secs(30)));
        timers.set(&"gone", Some(Duration::from_secs(10)));
        timers.set(&"gone", None);
        let mut rung = Vec::new();
        for _ in 0..2 {
            let key = queue.get().await;
            rung.push((key, begin.elapsed().as_secs()));
            queue.done(&key);
        }
        assert_eq!(rung, [("moved", 30), ("late", 60)]);
        shutdown.cancel();
        task.await.expect("ends with its token");
    }
}
