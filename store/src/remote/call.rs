//! One call: which failures are answers, which are worth another attempt, and until when.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use skiff_kit::backoff::Backoff;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Response, Status};

use super::endpoints::{Connection, Endpoints};
use crate::kv::KvError;

/// How long one call may take in all: what etcd itself allows a request.
pub const LIMIT: Duration = Duration::from_secs(7);
/// How long a call waits for a datastore that cannot be reached at all. Shorter, so that
/// who asks is told soon.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(3);

pub struct Call {
    pub endpoints: Arc<Endpoints>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// What the server said.
    Refused { status: Status, url: Arc<str> },
    /// Nobody was asked.
    Unreachable(KvError),
    /// Somebody was asked, and whether it was done is not known.
    Unknown,
    /// An answer that does not fit the question.
    Odd(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Answer,
    /// Nothing was sent.
    NotSent,
    /// The connection broke; what was sent may have arrived.
    Lost,
    /// This member cannot do it now; another one may. It was not done.
    Elsewhere,
}

/// Only what did not come from the server has a source.
pub fn judge(status: &Status) -> Verdict {
    let mut source = status.source();
    let lost = source.is_some();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return Verdict::NotSent;
        }
        source = error.source();
    }
    if lost {
        return Verdict::Lost;
    }
    match status.code() {
        Code::Unavailable if status.message() == "etcdserver: no leader" => Verdict::Elsewhere,
        // A member that stops, a leader that went, a proxy between: it may have been done.
        Code::Unavailable | Code::Cancelled => Verdict::Lost,
        _ => Verdict::Answer,
    }
}

impl Call {
    /// For what may be done twice.
    pub async fn read<T, F>(&self, send: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.run(true, send).await
    }

    /// For what must not be done twice.
    pub async fn write<T, F>(&self, send: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.run(false, send).await
    }

    async fn run<T, F>(&self, twice: bool, send: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begin = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            let failure = match self.attempt(twice, begin + LIMIT, &send).await {
                Ok(answer) => return Ok(answer),
                Err((failure, false)) => return Err(failure),
                Err((failure, true)) => failure,
            };
            let limit = match &failure {
                Failure::Unreachable(_) => UNREACHABLE_LIMIT,
                _ => LIMIT,
            };
            let pause = backoff.next();
            if begin.elapsed() + pause >= limit {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The answer, or the failure and whether to try again.
    async fn attempt<T, F>(
        &self,
        twice: bool,
        deadline: Instant,
        send: impl Fn(Connection) -> F,
    ) -> Result<T, (Failure, bool)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let connected = self.endpoints.get().await;
        let connection = connected.map_err(|error| (Failure::Unreachable(error), true))?;
        let Ok(outcome) = timeout_at(deadline, send(connection.clone())).await else {
            self.endpoints.failed(&connection, "no answer in time").await;
            return Err((Failure::Unknown, false));
        };
        let status = match outcome {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        let verdict = judge(&status);
        if verdict == Verdict::Answer {
            return Err((Failure::Refused { status, url: connection.url.clone() }, false));
        }
        self.endpoints.failed(&connection, status.message()).await;
        match verdict {
            Verdict::NotSent => {
                let unreachable = self.endpoints.unreachable(status.message());
                Err((Failure::Unreachable(unreachable), true))
            }
            Verdict::Elsewhere => {
                Err((Failure::Refused { status, url: connection.url.clone() }, true))
            }
            Verdict::Lost | Verdict::Answer => Err((Failure::Unknown, twice)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_done_may_be_asked_again() {
        let refused = Status::invalid_argument("etcdserver: key is not provided");
        assert_eq!(judge(&refused), Verdict::Answer);
        assert_eq!(judge(&Status::unavailable("etcdserver: no leader")), Verdict::Elsewhere);
        assert_eq!(judge(&Status::unavailable("etcdserver: server stopped")), Verdict::Lost);
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(judge(&Status::from_error(Box::new(broken))), Verdict::Lost);
        let none = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let none = tonic::ConnectError(Box::new(none));
        assert_eq!(judge(&Status::from_error(Box::new(none))), Verdict::NotSent);
    }
}
