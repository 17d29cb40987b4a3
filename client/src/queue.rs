//! A work queue of keys, as controllers use it: a key waits at most once, is worked on by
//! one worker at a time, and comes back with a growing delay after failures.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skiff_kit::backoff::Backoff;
use tokio::sync::Notify;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A deduplicating queue. Its size is bounded by the number of distinct keys.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    added: Notify,
}

/*
 * A key is in one of these places:
 *
 *   add ─▶ waiting ─get─▶ active ─done─▶ (gone)
 *                           │ add
 *                           ▼
 *                     active+dirty ─done─▶ waiting
 */
struct State<K> {
    waiting: VecDeque<K>,
    queued: HashSet<K>,
    active: HashSet<K>,
    dirty: HashSet<K>,
    failures: HashMap<K, Backoff>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Queue<K> {
    pub fn new() -> Arc<Self> {
        let state = State {
            waiting: VecDeque::new(),
            queued: HashSet::new(),
            active: HashSet::new(),
            dirty: HashSet::new(),
            failures: HashMap::new(),
        };
        Arc::new(Self { state: Mutex::new(state), added: Notify::new() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn add(&self, key: K) {
        let mut state = self.state();
        if state.active.contains(&key) {
            state.dirty.insert(key);
        } else if state.queued.insert(key.clone()) {
            state.waiting.push_back(key);
            drop(state);
            self.added.notify_one();
        }
    }

    pub fn add_after(self: &Arc<Self>, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let queue = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(queue) = queue.upgrade() {
                queue.add(key);
            }
        });
    }

    /// Adds after a delay that doubles with each failure of this key since `forget`.
    pub fn retry(self: &Arc<Self>, key: K) {
        let delay = {
            let mut state = self.state();
            let backoff = state.failures.entry(key.clone());
            backoff.or_insert_with(|| Backoff::new(FIRST_RETRY, LAST_RETRY)).next()
        };
        self.add_after(key, delay);
    }

    /// The key went well: its next failure waits briefly again.
    pub fn forget(&self, key: &K) {
        self.state().failures.remove(key);
    }

    /// The next key; `done` must follow. Cancel-safe.
    pub async fn get(&self) -> K {
        loop {
            let added = self.added.notified();
            if let Some(key) = self.try_get() {
                return key;
            }
            added.await;
        }
    }

    fn try_get(&self) -> Option<K> {
        let mut state = self.state();
        let key = state.waiting.pop_front()?;
        state.queued.remove(&key);
        state.active.insert(key.clone());
        if !state.waiting.is_empty() {
            // One permit may stand for several keys: pass it on to the next worker.
            self.added.notify_one();
        }
        Some(key)
    }

    pub fn done(&self, key: &K) {
        let mut state = self.state();
        state.active.remove(key);
        if state.dirty.remove(key) && state.queued.insert(key.clone()) {
            state.waiting.push_back(key.clone());
            drop(state);
            self.added.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.state().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_worked_on_by_one_worker() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.get().await, "a");
        queue.add("a");
        assert_eq!(queue.get().await, "b");
        assert!(queue.is_empty(), "a is being worked on and must wait for done");
        queue.done(&"a");
        assert_eq!(queue.get().await, "a");
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_longer_each_time() {
        let queue = Queue::new();
        let mut waits = Vec::new();
        for _ in 0..3 {
            let begin = tokio::time::Instant::now();
            queue.retry("a");
            let key = queue.get().await;
            queue.done(&key);
            waits.push(begin.elapsed());
        }
        assert!(waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
    }
}
