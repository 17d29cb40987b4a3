//! The short way of the calls that come most: one message in one frame, one message back.
//!
//! ```text
//! frames -> one plain message?  yes -> decoded where it lies -> the service's method -> Reply
//!                               no  -> tonic, with what has been read put before the rest
//! ```
//!
//! tonic does the same with a dozen allocations and two copies. Whatever is not plain (a
//! compressed message, one in several frames, one that cannot be decoded) goes its way, so
//! that there is one place that knows what to answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use prost::Message;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

type ReadFrame = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A request's body of which the beginning has been read.
pub struct Opened {
    /// Two at most: the message, and what came instead of the end.
    read: [ReadFrame; 2],
    rest: Incoming,
}

impl Opened {
    pub fn unread(rest: Incoming) -> Self {
        Self { read: [None, None], rest }
    }

    pub async fn request(request: Request<Incoming>) -> Request<Self> {
        let (parts, mut rest) = request.into_parts();
        let first = next(&mut rest).await;
        let second = if rest.is_end_stream() { None } else { next(&mut rest).await };
        Request::from_parts(parts, Self { read: [first, second], rest })
    }

    /// The one message, if it is plain and not longer than `limit`.
    pub fn message(&self, limit: usize) -> Option<Bytes> {
        let [Some(Ok(frame)), None] = &self.read else { return None };
        let mut message = frame.data_ref()?.clone();
        if message.len() < PREFIX_BYTES {
            return None;
        }
        let (compressed, length) = (message.get_u8(), message.get_u32() as usize);
        (compressed == 0 && length == message.len() && length <= limit).then_some(message)
    }
}

/// The next frame that holds anything; the end may come in one of its own.
async fn next(body: &mut Incoming) -> ReadFrame {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        match &frame {
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            _ => return frame,
        }
    }
}

impl Body for Opened {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ReadFrame> {
        let this = self.get_mut();
        match this.read.iter_mut().find_map(Option::take) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.iter().all(Option::is_none) && self.rest.is_end_stream()
    }
}

/// An answer's body.
#[derive(Default)]
pub enum Reply {
    /// One message, with its prefix; the trailers that say it is well follow.
    Message(Bytes),
    Trailers,
    #[default]
    Ended,
    /// Anything else.
    Other(tonic::body::Body),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let frame = match this {
            Reply::Message(message) => {
                let message = std::mem::take(message);
                *this = Reply::Trailers;
                Frame::data(message)
            }
            Reply::Trailers => {
                *this = Reply::Ended;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
            Reply::Ended => return Poll::Ready(None),
            Reply::Other(body) => return Pin::new(body).poll_frame(cx),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Message(_) | Reply::Trailers => false,
            Reply::Ended => true,
            Reply::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Other(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// Whether the request's headers ask for nothing that only tonic can do.
pub fn is_plain(request: &Request<Incoming>) -> bool {
    !request.headers().contains_key("grpc-encoding")
}

/// Calls a service's method with the decoded request.
pub async fn answer<M, R, F>(
    request: Request<Opened>,
    message: M,
    method: impl FnOnce(tonic::Request<M>) -> F,
) -> Response<Reply>
where
    R: Message,
    F: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
{
    let (parts, body) = request.into_parts();
    drop(body);
    let metadata = MetadataMap::from_headers(parts.headers);
    let request = tonic::Request::from_parts(metadata, parts.extensions, message);
    let (metadata, message, _) = match method(request).await {
        Ok(response) => response.into_parts(),
        Err(status) => return status.into_http(),
    };
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
    body.put_u8(0);
    // No message of 4 GiB is ever made: requests, and so values, are limited far below.
    body.put_u32(length as u32);
    if let Err(error) = message.encode(&mut body) {
        return tonic::Status::internal(format!("encode the answer: {error}")).into_http();
    }
    let mut response = Response::new(Reply::Message(body.freeze()));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}
