//! The route table in use. The driver replaces it as a whole; a request keeps the one it
//! began with, so a change drops no connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use crate::balancer::Moment;
use crate::route::RouteTable;

pub struct Routes {
    table: RwLock<(u64, Arc<RouteTable>)>,
    /// The version of `table`, to see without the lock that nothing changed.
    version: AtomicU64,
    begin: Instant,
}

impl Default for Routes {
    fn default() -> Self {
        Self { table: RwLock::default(), version: AtomicU64::new(0), begin: Instant::now() }
    }
}

impl Routes {
    pub fn replace(&self, table: RouteTable) {
        let mut current = self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        *current = (current.0 + 1, Arc::new(table));
        self.version.store(current.0, Ordering::Release);
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn load(&self) -> (u64, Arc<RouteTable>) {
        self.table.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub fn now(&self) -> Moment {
        self.begin.elapsed()
    }
}
