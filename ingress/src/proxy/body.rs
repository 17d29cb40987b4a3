//! Bodies that stream through with backpressure: a piece is read only when the other side
//! takes it, and a side that gives none for too long ends the exchange.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::balancer::InFlight;

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("reading a body")]
    Read(#[from] hyper::Error),
    #[error("no data for {0:?}")]
    Idle(Duration),
}

/// A body whose next piece must come in time.
pub struct Timed {
    inner: Incoming,
    idle: Duration,
    /// Made only when a piece is not there at once, which is rare for small bodies.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub fn new(inner: Incoming, idle: Duration) -> Self {
        Self { inner, idle, timer: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Read)));
        }
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyError::Idle(idle))))
    }
}

/// To a pod.
pub enum RequestBody {
    Empty,
    /// The sender is dropped with the body, which tells that the request has been sent.
    Client(Timed, #[allow(dead_code, reason = "its drop is its use")] oneshot::Sender<()>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body, _) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body, _) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body, _) => body.inner.size_hint(),
        }
    }
}

/// To a client.
pub enum ResponseBody {
    Text(Full<Bytes>),
    /// The request counts as in flight until its last piece is passed on.
    Upstream(Timed, #[allow(dead_code, reason = "its drop is its use")] InFlight),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Text(text) => Pin::new(text)
                .poll_frame(cx)
                .map_err(|never: std::convert::Infallible| match never {}),
            Self::Upstream(body, _) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Upstream(body, _) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Upstream(body, _) => body.inner.size_hint(),
        }
    }
}
