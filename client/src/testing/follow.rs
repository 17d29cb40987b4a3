//! Watches: a place in the history, and what is selected of it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use skiff_proto::{Object, Status};

use super::FakeApi;
use super::objects::{Selection, served};
use crate::api::{Result, WatchEvent, WatchOptions, WatchStream};

struct Cursor {
    api: Arc<FakeApi>,
    selection: Selection,
    /// Objects that exist, told first to who names no version.
    existing: VecDeque<Arc<Object>>,
    /// Where the existing ones end, if that is to be told.
    bookmark: Option<u64>,
    at: u64,
    failed: bool,
}

impl FakeApi {
    pub(super) fn follow(
        &self,
        selection: Selection,
        options: &WatchOptions,
    ) -> Result<WatchStream> {
        served(&selection.target.resource)?;
        let version: u64 = match options.resource_version.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| {
                Status::bad_request(format!("resourceVersion: Invalid value: {text:?}"))
            })?,
        };
        let api = self.this.upgrade().ok_or_else(|| Status::unavailable("the fake is gone"))?;
        let cursor = self.read(|state| {
            let mut cursor = Cursor {
                api,
                existing: VecDeque::new(),
                bookmark: None,
                at: version,
                failed: false,
                selection,
            };
            if version == 0 {
                cursor.existing = state.select(&cursor.selection).into();
                cursor.at = state.revision;
                cursor.bookmark = options.allow_bookmarks.then_some(state.revision);
            }
            state.after(cursor.at).map(|_| cursor)
        })?;
        Ok(futures_util::stream::unfold(cursor, Cursor::next).boxed())
    }
}

impl Cursor {
    async fn next(mut self) -> Option<(Result<WatchEvent>, Self)> {
        if self.failed {
            return None;
        }
        if let Some(object) = self.existing.pop_front() {
            return Some((Ok(WatchEvent::Added(object)), self));
        }
        if let Some(at) = self.bookmark.take() {
            return Some((Ok(WatchEvent::Bookmark { resource_version: at.to_string() }), self));
        }
        loop {
            let api = self.api.clone();
            let changed = api.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = api.read(|state| {
                let change = state.after(self.at)?;
                Ok(change.map(|change| (change.revision, change.seen_by(&self.selection))))
            });
            match next {
                Err(status) => {
                    self.failed = true;
                    return Some((Err(status), self));
                }
                Ok(None) => changed.await,
                Ok(Some((revision, seen))) => {
                    self.at = revision;
                    let Some(event) = seen else { continue };
                    if !api.lag.is_zero() {
                        tokio::time::sleep(api.lag).await;
                    }
                    return Some((Ok(event), self));
                }
            }
        }
    }
}
