//! Lists and watches from the watch cache. A list that is read in pages stays at the revision
//! of its first page: from the cache while nothing of the kind changed, else from the store's
//! history, until that is compacted.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skiff_client::{List, ListOptions, WatchOptions, WatchStream};
use skiff_proto::Status;
use skiff_store::kv::{KeyRange, KvError, RangeRequest};

use super::Core;
use crate::cache::hub::prefix_end;
use crate::cache::{Entry, Filter, Page, ResourceCache};
use crate::registry::Kind;
use crate::storage::{error, key};

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// Objects read from the store at once while looking for those that match.
const SCAN_OBJECTS: i64 = 1000;

/// Where a list goes on. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page; -1: as it is now, since that one is gone.
    rv: i64,
    /// The last path of the page before.
    start: String,
}

impl Core {
    pub(super) async fn list(
        &self,
        kind: &'static Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List, Status> {
        let filter = Filter::new(kind, namespace, &options.labels, &options.fields)?;
        let limit = match options.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).map_err(|_| {
                Status::bad_request(format!("limit: Invalid value: {limit}: must not be negative"))
            })?,
        };
        let cache = self.hub.cache(kind).await?;
        let page = if options.continue_token.is_empty() {
            let progress = self.wait_for(&options.resource_version).await?;
            cache.list(&filter, None, limit, progress)
        } else {
            self.next_page(&cache, &filter, limit, options).await?
        };
        let items = page.entries.into_iter().map(|e| e.object.clone()).collect();
        let continue_token = page.more_after.map_or(String::new(), |after| {
            Token { v: TOKEN_VERSION.into(), rv: page.revision, start: after.into() }.encode()
        });
        Ok(List {
            items,
            resource_version: page.revision.to_string(),
            continue_token,
            remaining_item_count: page.remaining,
        })
    }

    pub(super) async fn watch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchStream, Status> {
        let filter = Filter::new(kind, namespace, &options.labels, &options.fields)?;
        let cache = self.hub.cache(kind).await?;
        let (from, progress) = match options.resource_version.as_str() {
            "" => (None, self.hub.fresh().await?),
            version => match parse_version(version)? {
                0 => (None, self.hub.progress()),
                from => (Some(from), self.hub.progress()),
            },
        };
        let watch = cache.subscribe(filter, from, options.allow_bookmarks, progress)?;
        Ok(Box::pin(watch))
    }

    /// Waits until the cache may answer a list of this version; returns the progress.
    async fn wait_for(&self, version: &str) -> Result<i64, Status> {
        match version {
            "" => self.hub.fresh().await,
            version => match parse_version(version)? {
                0 => Ok(self.hub.progress()),
                wanted => self.hub.reached(wanted).await,
            },
        }
    }

    async fn next_page(
        &self,
        cache: &ResourceCache,
        filter: &Filter,
        limit: usize,
        options: &ListOptions,
    ) -> Result<Page, Status> {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Token::decode(&options.continue_token)?;
        let after = Some(token.start.as_str());
        if token.rv < 0 {
            let progress = self.hub.fresh().await?;
            return Ok(cache.list(filter, after, limit, progress));
        }
        match cache.list_at(filter, after, limit, token.rv) {
            // The cache may be behind the revision of a token from another server.
            Some(page) if self.hub.progress() >= token.rv => Ok(page),
            _ => self.page_from_store(cache, filter, limit, &token).await,
        }
    }

    async fn page_from_store(
        &self,
        cache: &ResourceCache,
        filter: &Filter,
        limit: usize,
        token: &Token,
    ) -> Result<Page, Status> {
        let mut prefix = cache.prefix.clone();
        if !filter.namespace().is_empty() {
            prefix = format!("{prefix}{}/", filter.namespace());
        }
        let end = prefix_end(prefix.as_bytes());
        let mut start = Bytes::from(format!("{}{}\0", cache.prefix, token.start));
        let mut page = Page { revision: token.rv, ..Page::default() };
        loop {
            let mut request = RangeRequest::new(KeyRange::Between(start, end.clone()));
            request.revision = token.rv;
            request.limit = SCAN_OBJECTS;
            let answer = match self.kv.range(request).await {
                Ok(answer) => answer,
                Err(KvError::Compacted { .. }) => return Err(token.expired()),
                Err(other) => return Err(error::status(other)),
            };
            for (n, kv) in answer.kvs.iter().enumerate() {
                let entry = Entry::from_stored(cache.kind, &kv.value, kv.mod_revision);
                let entry: Arc<Entry> = entry.map_err(Status::internal)?;
                if !filter.matches(&entry) {
                    continue;
                }
                page.entries.push(entry);
                if page.entries.len() == limit {
                    let left = answer.count - n as i64 - 1;
                    page.more_after =
                        key::split(&kv.key).filter(|_| left > 0).map(|(_, path)| path.into());
                    page.remaining = (left > 0 && filter.is_plain()).then_some(left);
                    return Ok(page);
                }
            }
            match answer.kvs.last() {
                Some(last) if answer.more => start = Bytes::from([&last.key[..], b"\0"].concat()),
                _ => return Ok(page),
            }
        }
    }
}

impl Token {
    fn encode(&self) -> String {
        // A struct of texts and a number always encodes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let broken = || Status::bad_request("continue key is not valid");
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| broken())?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| broken())?;
        if token.v == TOKEN_VERSION { Ok(token) } else { Err(broken()) }
    }

    /// The first page's revision is gone: upstream's words, with a token to go on as it is now.
    fn expired(&self) -> Status {
        let mut status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        let inconsistent = Self { rv: -1, ..self.clone() };
        status.metadata.insert("continue".into(), inconsistent.encode().into());
        status
    }
}

/// A resourceVersion that a client sends.
fn parse_version(text: &str) -> Result<i64, Status> {
    text.parse().ok().filter(|version| *version >= 0).ok_or_else(|| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_and_refuses_others() {
        let token = Token { v: TOKEN_VERSION.into(), rv: 7, start: "default/web".into() };
        assert_eq!(Token::decode(&token.encode()), Ok(token));
        assert_eq!(Token::decode("!").expect_err("broken").message, "continue key is not valid");
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(parse_version("12"), Ok(12));
        for text in ["x", "-1", "1.5"] {
            assert_eq!(parse_version(text).expect_err(text).code, 400);
        }
    }
}
