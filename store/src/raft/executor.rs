//! The thread that Raft runs on: the library's tasks, the batches before it, the log behind it.
//!
//! An entry goes from one of them to the next some ten times. On one thread that is a place in
//! a queue; between threads each is a system call, and often the start of a core that slept,
//! together more than the disk takes for the sync. It has no sockets: those stay with the
//! runtime that the store was opened on.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::background::Background;

pub struct Executor {
    handle: Handle,
    /// None in a simulation, which has one runtime for everything, and once it has ended.
    thread: Mutex<Option<Thread>>,
}

struct Thread {
    /// Dropped to end it.
    _running: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Executor {
    /// Within a runtime.
    pub fn start(background: &Background) -> io::Result<Self> {
        if let Background::Simulated(_) = background {
            return Ok(Self { handle: Handle::current(), thread: Mutex::default() });
        }
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("store-raft".into()).spawn(move || {
            // What it waits for is that the other end is dropped.
            let _ = runtime.block_on(ended);
        })?;
        let thread = Thread { _running: running, thread };
        Ok(Self { handle, thread: Mutex::new(Some(thread)) })
    }

    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// Ends the thread, and with it every task that still runs there. Blocks. Returns whether
    /// it ended well.
    pub fn stop(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|Thread { _running, thread }| {
            drop(_running);
            thread.join().is_ok()
        })
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop();
    }
}
