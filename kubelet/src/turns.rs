//! Turns at starting something: only so many at one time, and containers go before sandboxes. A pod that is
//! half started gets on, and of many pods at once the first run while the last still wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    First,
    Second,
}

pub struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    first: VecDeque<oneshot::Sender<Turn>>,
    second: VecDeque<oneshot::Sender<Turn>>,
}

/// Held while it is one's turn.
pub struct Turn(Option<Arc<Turns>>);

impl Turns {
    pub fn new(at_once: usize) -> Arc<Turns> {
        let state = State { free: at_once.max(1), first: VecDeque::new(), second: VecDeque::new() };
        Arc::new(Turns { state: Mutex::new(state) })
    }

    pub async fn wait(self: &Arc<Self>, rank: Rank) -> Turn {
        let receiver = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(self.clone()));
            }
            let (sender, receiver) = oneshot::channel();
            match rank {
                Rank::First => state.first.push_back(sender),
                Rank::Second => state.second.push_back(sender),
            }
            receiver
        };
        // The sender stays in the queue until it sends: an error cannot happen.
        receiver.await.unwrap_or(Turn(None))
    }

    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let next = state.first.pop_front();
                match next.or_else(|| state.second.pop_front()) {
                    Some(next) => next,
                    None => {
                        state.free += 1;
                        return;
                    }
                }
            };
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // It does not wait any more. Dropping the turn here would pass it on again.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_rank_goes_first() {
        let turns = Turns::new(1);
        let held = turns.wait(Rank::Second).await;
        let second = turns.wait(Rank::Second);
        let first = turns.wait(Rank::First);
        let given_up = turns.wait(Rank::First);
        tokio::pin!(second, first);
        assert!(futures_util::poll!(&mut second).is_pending());
        {
            tokio::pin!(given_up);
            assert!(futures_util::poll!(&mut given_up).is_pending());
        }
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(held);
        let turn = first.await;
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(turn);
        drop(second.await);
        assert_eq!(turns.state.lock().expect("not poisoned").free, 1);
    }
}
