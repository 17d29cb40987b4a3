//! Where a connection's calls run: in the connection's own task.
//!
//! A task of its own for each call would mean a wake-up, often on another core, for every
//! request and another for its answer. Here a call that needs to wait for nothing is done
//! when it has been read, and what a log entry answers to many calls of one connection goes
//! out with one write (`skiff_kit::cork`). What takes long must not run here: it would hold
//! the others up.
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

/// A connection and its calls.
pub struct WithCalls<C> {
    connection: Pin<Box<C>>,
    beginner: Beginner,
    running: FuturesUnordered<Call>,
}

impl<C> WithCalls<C> {
    /// Of a connection that was made with the beginner.
    pub fn new(connection: C, beginner: Beginner) -> Self {
        Self { connection: Box::pin(connection), beginner, running: FuturesUnordered::new() }
    }

    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
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

impl<C: Future> Future for WithCalls<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        loop {
            if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            // The connection writes what they have answered.
            if !self.advance(cx) {
                return Poll::Pending;
            }
        }
    }
}
