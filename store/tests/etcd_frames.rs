//! However a request's message is cut into frames, it is answered alike; and what is no
//! plain message is refused as the gRPC specification says.
#![allow(clippy::unwrap_used)]

mod etcd_support;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use etcd_support::*;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use skiff_proto::grpc::etcdserverpb as pb;

/// Sent one by one; the end comes by itself.
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }
}

struct Client {
    authority: String,
    requests: SendRequest<Frames>,
}

/// The code, the text that comes with a refusal, and the message.
type Answered = (i32, String, Bytes);

impl Client {
    async fn connect(served: &Served) -> Self {
        let stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
        let (requests, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { authority: served.address.to_string(), requests }
    }

    async fn call(&mut self, method: &str, headers: &[(&str, &str)], frames: &[&[u8]]) -> Answered {
        let uri = format!("http://{}/etcdserverpb.KV/{method}", self.authority);
        let mut request = Request::post(uri).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let frames = frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        let request = request.body(Frames(frames)).unwrap();
        let sent = self.requests.send_request(request);
        let response = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let (mut head, body) = response.into_parts();
        let (message, trailers) = read(body).await;
        head.headers.extend(trailers);
        let text = |name| head.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let code = text("grpc-status").parse().unwrap();
        (code, text("grpc-message").replace("%20", " "), message)
    }
}

async fn read(mut body: Incoming) -> (Bytes, HeaderMap) {
    let (mut message, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) =
        std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.transpose().unwrap()
    {
        match frame.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
    }
    (message.freeze(), trailers)
}

fn prefixed(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u8(flag);
    bytes.put_u32(length as u32);
    bytes.put_slice(message);
    bytes
}

fn message(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    prefixed(0, message.len(), &message)
}

fn put(key: &str) -> Vec<u8> {
    message(&pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() })
}

fn range(key: &str, range_end: &str) -> Vec<u8> {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    message(&pb::RangeRequest { key, range_end, ..Default::default() })
}

/// The keys that were found.
fn keys((code, text, message): Answered) -> Vec<Bytes> {
    assert_eq!((code, text.as_str()), (0, ""));
    let response = pb::RangeResponse::decode(message.slice(5..)).unwrap();
    assert!(response.header.is_some());
    response.kvs.into_iter().map(|kv| kv.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_the_same_in_any_number_of_frames() {
    let served = Served::plain().await;
    let mut client = Client::connect(&served).await;
    let whole = put("a");
    let bytes: Vec<_> = whole.chunks(1).collect();
    let ways: [&[&[u8]]; 4] =
        [&[&whole], &[&whole[..5], &whole[5..]], &[&whole[..3], &whole[3..], &[]], &bytes];
    for (n, frames) in ways.into_iter().enumerate() {
        let (code, text, message) = client.call("Put", &[], frames).await;
        assert_eq!((code, text.as_str()), (0, ""));
        let response = pb::PutResponse::decode(message.slice(5..)).unwrap();
        assert_eq!(response.header.unwrap().revision, 2 + n as i64);
    }
    client.call("Put", &[], &[&put("b")]).await;
    for (asked, expect) in [(range("a", ""), &["a"][..]), (range("a", "c"), &["a", "b"])] {
        assert_eq!(keys(client.call("Range", &[], &[&asked]).await), expect);
        assert_eq!(keys(client.call("Range", &[], &[&asked[..7], &asked[7..]]).await), expect);
        let identity = [("grpc-encoding", "identity")];
        assert_eq!(keys(client.call("Range", &identity, &[&asked]).await), expect);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_plain_message_is_refused() {
    const INVALID_ARGUMENT: i32 = 3;
    const OUT_OF_RANGE: i32 = 11;
    const UNIMPLEMENTED: i32 = 12;
    const INTERNAL: i32 = 13;
    let served = Served::plain().await;
    let mut client = Client::connect(&served).await;
    let whole = put("a");
    let mut refused = async |headers: &[(&str, &str)], frames: &[&[u8]], code, part: &str| {
        let (got, text, _) = client.call("Put", headers, frames).await;
        assert_eq!(got, code, "{text}");
        assert!(text.contains(part), "{text}");
    };
    let gzip = [("grpc-encoding", "gzip")];
    refused(&gzip, &[&whole], UNIMPLEMENTED, "gzip").await;
    refused(&[], &[&prefixed(1, 1, b"x")], INTERNAL, "compressed-flag").await;
    refused(&[], &[&prefixed(7, 1, b"x")], INTERNAL, "compression flag: 7").await;
    refused(&[], &[&prefixed(0, 64 << 20, b"x")], OUT_OF_RANGE, "too large").await;
    refused(&[], &[&prefixed(0, 2, b"x")], INTERNAL, "EOF").await;
    refused(&[], &[&prefixed(0, 3, b"\x0a\x7fx")], INTERNAL, "").await;
    refused(&[], &[], INTERNAL, "Missing request message").await;
    refused(&[], &[&put("")], INVALID_ARGUMENT, "etcdserver: key is not provided").await;
    // The connection has not suffered.
    refused(&[], &[&whole], 0, "").await;
    served.stop().await;
}
