//! A map of bounded size that forgets what was least recently used.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    capacity: usize,
    /// Counts uses.
    clock: u64,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity, clock: 0 }
    }

    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    pub fn put(&mut self, key: K, value: V) -> &mut V {
        self.clock += 1;
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.forget_half();
        }
        let entry = self.entries.entry(key).insert_entry((self.clock, value));
        &mut entry.into_mut().1
    }

    /// Half at once, so that a full map does not search for its oldest entry at every step.
    fn forget_half(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, (used, _)| *used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_half_is_forgotten() {
        let mut recent = Recent::new(4);
        for n in 0..4 {
            recent.put(n, n);
        }
        recent.get(&0);
        recent.put(4, 4);
        let kept: Vec<i32> = (0..5).filter(|n| recent.get(n).is_some()).collect();
        assert_eq!(kept, [0, 4]);
        recent.put(4, 5);
        assert_eq!(recent.get(&4), Some(&mut 5));
    }
}
