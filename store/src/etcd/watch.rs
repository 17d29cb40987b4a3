//! The Watch service: many watches on one stream.
//!
//! ```text
//! requests --> Session --> responses
//!                 ^
//!                 | one bounded queue each
//!              watches of the store
//! ```
//!
//! A session is polled by the connection when the client has room for more, so a client
//! that does not read holds up nobody and costs no more than the queues of its watches. One
//! whose queue ran over is taken up again from history where it stopped, as in etcd: the
//! client notices nothing, unless that history has been compacted. When the client goes
//! away the session is dropped with all its watches; no task is left behind.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{AbortHandle, Abortable, SelectAll};
use futures_util::{Stream, StreamExt};
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::fragment::{self, Part};
use super::{Face, convert, error, leader};
use crate::kv::*;
use crate::store::WatchHandle;

/// etcd's id for "all watches", and for one that was not made.
const NO_WATCH: i64 = -1;
/// As often as etcd tells a quiet watch its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Messages taken from one watch at a time; they are joined into one response.
const JOINED_MESSAGES: usize = 64;
/// Watches of one stream; an idle one costs about a kilobyte.
const MAX_WATCHES: usize = 100_000;

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::watch_server::Watch for Face {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let guard = leader::required(self, request.metadata())?;
        let session = Session::new(self.clone(), request.into_inner(), PROGRESS_INTERVAL);
        let stream = futures_util::stream::unfold(Some((session, guard)), |open| async move {
            let (mut session, mut guard) = open?;
            let response = tokio::select! {
                response = session.next() => response?,
                () = &mut guard => Err(error::no_leader()),
            };
            let next = response.is_ok().then_some((session, guard));
            Some((response, next))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// What one watch has delivered since it was last asked.
struct Feed {
    id: i64,
    messages: mpsc::Receiver<WatchMessage>,
    closed: bool,
}

impl Stream for Feed {
    /// No messages: the watch is closed.
    type Item = (i64, Vec<WatchMessage>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.closed {
            return Poll::Ready(None);
        }
        let mut taken = Vec::new();
        let polled = self.messages.poll_recv_many(cx, &mut taken, JOINED_MESSAGES);
        polled.map(|count| {
            self.closed = count == 0;
            Some((self.id, taken))
        })
    }
}

/// One watch of the session.
struct Open {
    range: KeyRange,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    fragment: bool,
    progress_notify: bool,
    /// Nothing has been sent since the last look at quiet watches.
    quiet: bool,
    /// Its progress has been asked for on behalf of this watch alone.
    progress_asked: bool,
    /// Everything before it has been handed on.
    next: Revision,
    handle: WatchHandle,
    /// Takes it out of the feeds.
    abort: AbortHandle,
}

impl Open {
    fn wants(&self, event: &Event) -> bool {
        match event.kind {
            EventType::Put => !self.no_put,
            EventType::Delete => !self.no_delete,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// A client has asked how far all its watches are together.
struct Round {
    waiting: HashSet<i64>,
    /// When it was asked; who is there has answered.
    asked_at: Revision,
    lowest: Revision,
}

struct Session<R> {
    face: Face,
    requests: R,
    /// The client has nothing more to ask; what it watches goes on.
    requests_ended: bool,
    watches: HashMap<i64, Open>,
    feeds: SelectAll<Abortable<Feed>>,
    next_id: i64,
    out: VecDeque<pb::WatchResponse>,
    round: Option<Round>,
    /// Watches that want to hear of progress by themselves.
    notified: usize,
    progress_interval: Duration,
    progress_at: Instant,
}

enum Step {
    Request(Option<Result<pb::WatchRequest, Status>>),
    Messages(Option<(i64, Vec<WatchMessage>)>),
    Quiet,
    Shutdown,
}

impl<R> Session<R>
where
    R: Stream<Item = Result<pb::WatchRequest, Status>> + Unpin,
{
    fn new(face: Face, requests: R, progress_interval: Duration) -> Self {
        Self {
            face,
            requests,
            requests_ended: false,
            watches: HashMap::new(),
            feeds: SelectAll::new(),
            next_id: 0,
            out: VecDeque::new(),
            round: None,
            notified: 0,
            progress_interval,
            progress_at: Instant::now() + progress_interval,
        }
    }

    /// The next response; `None` when there will be none.
    async fn next(&mut self) -> Option<Result<pb::WatchResponse, Status>> {
        loop {
            if let Some(response) = self.out.pop_front() {
                return Some(Ok(response));
            }
            if self.requests_ended && self.watches.is_empty() {
                return None;
            }
            let step = tokio::select! {
                request = self.requests.next(), if !self.requests_ended => Step::Request(request),
                messages = self.feeds.next(), if !self.feeds.is_empty() => Step::Messages(messages),
                () = tokio::time::sleep_until(self.progress_at), if self.notified > 0 => Step::Quiet,
                () = self.face.shutdown.cancelled() => Step::Shutdown,
            };
            let done = match step {
                Step::Request(Some(Ok(request))) => self.request(request).await,
                Step::Request(Some(Err(status))) => Err(status),
                Step::Request(None) => {
                    self.requests_ended = true;
                    Ok(())
                }
                Step::Messages(Some((id, messages))) => self.messages(id, messages).await,
                Step::Messages(None) => Ok(()),
                Step::Quiet => {
                    self.tell_quiet();
                    Ok(())
                }
                Step::Shutdown => Err(error::stopped()),
            };
            if let Err(status) = done {
                return Some(Err(status));
            }
        }
    }

    async fn request(&mut self, request: pb::WatchRequest) -> Result<(), Status> {
        use pb::watch_request::RequestUnion;
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                // etcd does not answer for a watch that is not there.
                if self.remove(cancel.watch_id) {
                    let response = self.response(cancel.watch_id, self.face.store.revision());
                    self.out.push_back(pb::WatchResponse { canceled: true, ..response });
                }
                Ok(())
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.ask_all();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn response(&self, watch_id: i64, revision: Revision) -> pb::WatchResponse {
        pb::WatchResponse { header: self.face.header(revision), watch_id, ..Default::default() }
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> Result<(), Status> {
        match self.admit(&request) {
            Ok(id) => self.open(id, request).await,
            Err(reason) => {
                let response = self.response(NO_WATCH, self.face.store.revision());
                self.out.push_back(pb::WatchResponse {
                    created: true,
                    canceled: true,
                    cancel_reason: reason.to_owned(),
                    ..response
                });
                Ok(())
            }
        }
    }

    /// The new watch's id, or etcd's words for why there is none.
    fn admit(&mut self, request: &pb::WatchCreateRequest) -> Result<i64, &'static str> {
        let (key, end) = (&request.key, &request.range_end);
        if !end.is_empty() && end[..] != [0] && key >= end {
            return Err("mvcc: watcher range is empty");
        }
        if self.watches.len() >= MAX_WATCHES {
            return Err("etcdserver: too many watches on one stream");
        }
        if request.watch_id != 0 {
            if self.watches.contains_key(&request.watch_id) {
                return Err("mvcc: duplicate watch ID provided on the WatchStream");
            }
            return Ok(request.watch_id);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    async fn open(&mut self, id: i64, request: pb::WatchCreateRequest) -> Result<(), Status> {
        use pb::watch_create_request::FilterType;
        let filtered = |filter| request.filters().any(|given| given == filter);
        let (no_put, no_delete) = (filtered(FilterType::Noput), filtered(FilterType::Nodelete));
        // An empty key means the smallest there is.
        let smallest = bytes::Bytes::from_static(&[0]);
        let key = if request.key.is_empty() { smallest } else { request.key };
        let range = KeyRange::from_etcd(key, request.range_end);
        let start = request.start_revision;
        let start = if start == 0 { 0 } else { start.max(1) };
        let (watch, handle) = self.watch(range.clone(), start, request.prev_kv).await?;
        let response = self.response(id, watch.revision);
        self.out.push_back(pb::WatchResponse { created: true, ..response });
        let next = if start > 0 { start } else { watch.revision + 1 };
        let abort = self.follow(id, watch);
        self.notified += usize::from(request.progress_notify);
        let open = Open {
            range,
            prev_kv: request.prev_kv,
            no_put,
            no_delete,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            quiet: false,
            progress_asked: false,
            next,
            handle,
            abort,
        };
        self.watches.insert(id, open);
        Ok(())
    }

    async fn watch(
        &self,
        range: KeyRange,
        start_revision: Revision,
        prev_kv: bool,
    ) -> Result<(Watch, WatchHandle), Status> {
        let request = WatchRequest { range, start_revision, prev_kv };
        self.face.store.watch_with_handle(request).await.map_err(error::kv)
    }

    fn follow(&mut self, id: i64, watch: Watch) -> AbortHandle {
        let feed = Feed { id, messages: watch.messages, closed: false };
        let (abort, registration) = AbortHandle::new_pair();
        self.feeds.push(Abortable::new(feed, registration));
        abort
    }

    fn remove(&mut self, id: i64) -> bool {
        let Some(open) = self.watches.remove(&id) else { return false };
        self.notified -= usize::from(open.progress_notify);
        self.note_progress(id, Revision::MAX);
        true
    }

    async fn messages(&mut self, id: i64, messages: Vec<WatchMessage>) -> Result<(), Status> {
        if messages.is_empty() {
            // A watch that ends without a last word: the store has stopped.
            return Err(error::stopped());
        }
        let mut joined = Vec::new();
        let mut upto = 0;
        for message in messages {
            match message {
                WatchMessage::Events { revision, events } => {
                    joined.extend(events);
                    upto = revision;
                }
                WatchMessage::Progress { revision } => {
                    self.events(id, upto, std::mem::take(&mut joined));
                    self.progress(id, revision);
                }
                WatchMessage::Compacted { compacted } => {
                    self.events(id, upto, std::mem::take(&mut joined));
                    self.compacted(id, compacted);
                    return Ok(());
                }
                WatchMessage::TooSlow => {
                    self.events(id, upto, std::mem::take(&mut joined));
                    return self.reopen(id).await;
                }
            }
        }
        self.events(id, upto, joined);
        Ok(())
    }

    fn events(&mut self, id: i64, revision: Revision, mut events: Vec<Event>) {
        let limit_bytes = self.face.store.inner.config.max_request_bytes;
        let Some(open) = self.watches.get_mut(&id) else { return };
        if revision < open.next {
            return;
        }
        open.next = revision + 1;
        if open.no_put || open.no_delete {
            events.retain(|event| open.wants(event));
        }
        if !events.is_empty() {
            open.quiet = false;
            let parts = fragment::split(events, open.fragment, limit_bytes);
            for Part { events, fragment } in parts {
                let events = events.into_iter().map(convert::event).collect();
                let response = self.response(id, revision);
                self.out.push_back(pb::WatchResponse { fragment, events, ..response });
            }
        }
        self.note_progress(id, revision);
    }

    fn progress(&mut self, id: i64, revision: Revision) {
        let Some(open) = self.watches.get_mut(&id) else { return };
        open.next = open.next.max(revision + 1);
        if std::mem::take(&mut open.progress_asked) {
            self.out.push_back(self.response(id, revision));
        }
        if let Some(round) = &mut self.round {
            // This is its answer, even if it began to watch after the question.
            let enough = revision.max(round.asked_at);
            round.lowest = round.lowest.min(revision);
            self.note_progress(id, enough);
        }
    }

    fn compacted(&mut self, id: i64, compacted: Revision) {
        if self.remove(id) {
            let response = self.response(id, self.face.store.revision());
            self.out.push_back(pb::WatchResponse {
                canceled: true,
                compact_revision: compacted,
                ..response
            });
        }
    }

    /// Takes a watch up again that could not keep up, where it stopped.
    async fn reopen(&mut self, id: i64) -> Result<(), Status> {
        let Some(open) = self.watches.get(&id) else { return Ok(()) };
        let (range, next, prev_kv) = (open.range.clone(), open.next, open.prev_kv);
        tracing::debug!(id, next, "a slow watch goes on from history");
        let (watch, handle) = self.watch(range, next, prev_kv).await?;
        let abort = self.follow(id, watch);
        if let Some(open) = self.watches.get_mut(&id) {
            open.abort.abort();
            (open.abort, open.handle) = (abort, handle);
        }
        Ok(())
    }

    /// Watches that have been quiet for a whole interval are told how far they are.
    fn tell_quiet(&mut self) {
        for open in self.watches.values_mut().filter(|open| open.progress_notify) {
            if std::mem::replace(&mut open.quiet, true) {
                open.progress_asked = true;
                open.handle.request_progress();
            }
        }
        self.progress_at = Instant::now() + self.progress_interval;
    }

    /// Answered once every watch has handed on what there is now. While one still catches up
    /// there is no answer, as in etcd; the client asks again.
    fn ask_all(&mut self) {
        let asked_at = self.face.store.revision();
        let waiting: HashSet<_> = self.watches.keys().copied().collect();
        self.round = Some(Round { waiting, asked_at, lowest: asked_at });
        for open in self.watches.values() {
            open.handle.request_progress();
        }
        self.answer_round();
    }

    fn note_progress(&mut self, id: i64, revision: Revision) {
        let Some(round) = &mut self.round else { return };
        if revision >= round.asked_at {
            round.waiting.remove(&id);
            self.answer_round();
        }
    }

    fn answer_round(&mut self) {
        if let Some(round) = self.round.take_if(|round| round.waiting.is_empty()) {
            self.out.push_back(self.response(NO_WATCH, round.lowest));
        }
    }
}
