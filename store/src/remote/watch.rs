//! A watch of the remote cluster, for as long as somebody reads it.
//!
//! ```text
//! etcd --stream--> Feed --bounded queue--> reader
//!        ^          |
//!        +- broken: opened again at `next`, here or at another endpoint
//! ```
//!
//! `next` is the first revision that has not been handed on. The revision in a response's
//! header may be ahead of the events that are still on their way, so only events and
//! answers about progress move `next`. History is handed on as fast as it is read; who does
//! not keep up with what happens now is cut off, as by the embedded store.

use std::sync::Arc;
use std::time::Duration;

use skiff_kit::backoff::Backoff;
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use super::call::{Failure, LIMIT, Verdict, judge};
use super::endpoints::{Connection, Endpoints};
use super::{convert, error};
use crate::kv::*;

/// Between two attempts to take a broken stream up again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

struct Stream {
    /// Kept open: when it closes, etcd ends the watch.
    _requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
    connection: Connection,
    /// The store's revision when it began.
    revision: Revision,
}

/// Begins a watch; returns once etcd has confirmed it.
pub async fn open(
    endpoints: Arc<Endpoints>,
    request: WatchRequest,
    queue_messages: usize,
) -> Result<Watch, KvError> {
    let mut feed_request = request.clone();
    let stream = begin(&endpoints, &request).await?;
    let revision = stream.revision;
    if request.start_revision == 0 {
        feed_request.start_revision = revision + 1;
    }
    let (queue, messages) = mpsc::channel(queue_messages + 1);
    let last = queue.clone().reserve_owned().await.map_err(|_| KvError::Stopped)?;
    let feed = Feed {
        endpoints,
        next: feed_request.start_revision,
        request: feed_request,
        history: revision,
        queue,
        last,
    };
    tokio::spawn(feed.run(stream));
    Ok(Watch { revision, messages })
}

/// As the first call of a watch: with retries, but not for ever.
async fn begin(endpoints: &Endpoints, request: &WatchRequest) -> Result<Stream, KvError> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let deadline = tokio::time::Instant::now() + LIMIT / 2;
    loop {
        let failure = match attempt(endpoints, request).await {
            Ok(stream) => return Ok(stream),
            Err(failure @ (Failure::Unreachable(_) | Failure::Unknown)) => failure,
            Err(failure) => return Err(error::kv(failure)),
        };
        let pause = backoff.next();
        if tokio::time::Instant::now() + pause >= deadline {
            return Err(error::kv(failure));
        }
        tokio::time::sleep(pause).await;
    }
}

async fn attempt(endpoints: &Endpoints, request: &WatchRequest) -> Result<Stream, Failure> {
    let connection = endpoints.get().await.map_err(Failure::Unreachable)?;
    let created = tokio::time::timeout(LIMIT, create(&connection, request)).await;
    match created.unwrap_or_else(|_| Err(Status::unavailable("no answer in time"))) {
        Ok(stream) => Ok(stream),
        Err(status) if judge(&status) == Verdict::Answer => {
            Err(Failure::Refused { status, url: connection.url.clone() })
        }
        Err(status) => {
            endpoints.failed(&connection, status.message()).await;
            Err(Failure::Unknown)
        }
    }
}

async fn create(connection: &Connection, request: &WatchRequest) -> Result<Stream, Status> {
    let (key, range_end) = convert::bounds(&request.range);
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: request.start_revision,
        prev_kv: request.prev_kv,
        progress_notify: true,
        ..Default::default()
    };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    let (requests, outgoing) = mpsc::channel(1);
    let first = pb::WatchRequest { request_union: Some(create) };
    requests.send(first).await.map_err(|_| Status::internal("the stream closed"))?;
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut call = Request::new(outgoing);
    // A member cut off from the others ends the stream, instead of staying silent.
    call.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    let mut responses = connection.watch().watch(call).await?.into_inner();
    let created = responses.message().await?;
    let created = created.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
    if created.canceled && created.compact_revision == 0 {
        return Err(Status::invalid_argument(created.cancel_reason));
    }
    Ok(Stream {
        _requests: requests,
        responses,
        connection: connection.clone(),
        revision: convert::revision(&created.header),
    })
}

struct Feed {
    endpoints: Arc<Endpoints>,
    request: WatchRequest,
    next: Revision,
    /// Up to here it is history, which waits for the reader.
    history: Revision,
    queue: mpsc::Sender<WatchMessage>,
    last: mpsc::OwnedPermit<WatchMessage>,
}

enum Ended {
    /// Nobody reads any more.
    Unread,
    /// This is the last message.
    With(WatchMessage),
    /// The stream is to be opened again.
    Broken(String),
}

impl Feed {
    async fn run(mut self, mut stream: Stream) {
        loop {
            let why = match self.follow(&mut stream).await {
                Ended::Unread => return,
                Ended::With(message) => {
                    self.last.send(message);
                    return;
                }
                Ended::Broken(why) => why,
            };
            self.endpoints.failed(&stream.connection, &why).await;
            tracing::debug!(next = self.next, why, "a watch of the datastore broke off");
            stream = tokio::select! {
                stream = self.reopen() => match stream {
                    Some(stream) => stream,
                    // Who watches again is told why it is refused.
                    None => {
                        self.last.send(WatchMessage::TooSlow);
                        return;
                    }
                },
                () = self.queue.closed() => return,
            };
        }
    }

    /// Until the datastore is back; `None` if it refuses the watch.
    async fn reopen(&self) -> Option<Stream> {
        let request = WatchRequest { start_revision: self.next, ..self.request.clone() };
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            match attempt(&self.endpoints, &request).await {
                Ok(stream) => return Some(stream),
                Err(Failure::Refused { status, .. }) => {
                    tracing::warn!(reason = status.message(), "the datastore refuses a watch");
                    return None;
                }
                Err(_) => tokio::time::sleep(backoff.next()).await,
            }
        }
    }

    async fn follow(&mut self, stream: &mut Stream) -> Ended {
        loop {
            let response = tokio::select! {
                response = stream.responses.message() => response,
                () = self.queue.closed() => return Ended::Unread,
            };
            let response = match response {
                Ok(Some(response)) => response,
                Ok(None) => return Ended::Broken("the stream ended".into()),
                Err(status) => return Ended::Broken(status.message().to_owned()),
            };
            if response.compact_revision > 0 {
                let compacted = response.compact_revision;
                return Ended::With(WatchMessage::Compacted { compacted });
            }
            if response.canceled {
                return Ended::Broken(response.cancel_reason);
            }
            if let Some(ended) = self.response(response).await {
                return ended;
            }
        }
    }

    async fn response(&mut self, response: pb::WatchResponse) -> Option<Ended> {
        let header = convert::revision(&response.header);
        if response.created {
            return None;
        }
        let message = if response.events.is_empty() {
            if header < self.next {
                return None;
            }
            self.next = header + 1;
            WatchMessage::Progress { revision: header }
        } else {
            let events = response.events.into_iter().filter_map(convert::event);
            // Taken up again, a stream may repeat nothing; this holds whatever etcd does.
            let next = self.next;
            let events: Vec<_> = events.filter(|event| event.kv.mod_revision >= next).collect();
            let revision = events.last()?.kv.mod_revision;
            self.next = revision + 1;
            WatchMessage::Events { revision, events }
        };
        if self.next <= self.history + 1 {
            return self.queue.send(message).await.is_err().then_some(Ended::Unread);
        }
        match self.queue.try_send(message) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Closed(_)) => Some(Ended::Unread),
            Err(mpsc::error::TrySendError::Full(_)) => Some(Ended::With(WatchMessage::TooSlow)),
        }
    }
}
