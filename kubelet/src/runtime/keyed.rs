//! One lock per name: who wants the same thing waits for who is at it; others go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
pub(super) struct Keyed {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Keyed {
    pub async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Names of locks that nobody holds go away with the next call.
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(key.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_one_name() {
        let keyed = Keyed::default();
        let first = keyed.lock("a").await;
        let _other = keyed.lock("b").await;
        {
            let waiting = keyed.lock("a");
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            drop(first);
            let _now = waiting.await;
        }
        drop(_other);
        let _again = keyed.lock("c").await;
        assert_eq!(keyed.locks.lock().expect("not poisoned").len(), 1);
    }
}
