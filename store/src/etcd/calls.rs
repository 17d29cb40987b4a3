//! Where a connection's calls run: in the connection's own task.
//!
//! A task of its own for each call would mean a wake-up, often on another core, for every
//! request and another for its answer. Here a call that needs to wait for nothing is done
//! when it has been read, and what a log entry answers to many calls of one connection goes
//! out with one write. What takes long must not run here: it would hold the others up.
//!
//! ```text
//! read frames -> call begins: done at once, or put among the running ones
//!      ^                                          |
//!      +-- answers written <-- those that were woken
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Given to the HTTP library, which begins calls with it.
#[derive(Clone, Default)]
pub struct Beginner {
    /// Those that could not be done at once. Only ever used from the connection's task.
    begun: Arc<Mutex<Vec<Call>>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beginner {
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        // Who has to wait is polled again among the running, and leaves its waker then.
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        }
    }
}

/// The calls of one connection.
#[derive(Default)]
pub struct Calls {
    beginner: Beginner,
    running: FuturesUnordered<Call>,
}

impl Calls {
    pub fn beginner(&self) -> Beginner {
        self.beginner.clone()
    }

    /// Drives a connection that was made with the beginner, and its calls.
    pub async fn drive<C: Future>(&mut self, mut connection: Pin<&mut C>) -> C::Output {
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended);
                }
                // The connection writes what they have answered.
                if !self.advance(cx) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Whether any of them is done.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        let mut begun = self.beginner.begun.lock().unwrap_or_else(PoisonError::into_inner);
        self.running.extend(begun.drain(..));
        drop(begun);
        let mut any = false;
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {
            any = true;
        }
        any
    }
}
