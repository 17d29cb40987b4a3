//! A list on the wire: one snapshot in messages of bounded size, so that neither side holds a
//! second copy of the whole.

use std::sync::Arc;

use skiff_client::List;
use skiff_proto::grpc::api;
use skiff_proto::{Object, WireObject};

/// A chunk is sent when its objects' JSON reaches this. Small enough to stay in the processor's
/// cache on its way through encoding and encryption, and for the client to read one while the
/// next is made.
const CHUNK_BYTES: usize = 64 * 1024;

/// The chunks of a list; the last one carries the version and the token.
pub struct Chunks {
    items: std::vec::IntoIter<Arc<Object>>,
    last: Option<api::ListChunk>,
}

impl Chunks {
    pub fn new(list: List) -> Self {
        let last = api::ListChunk {
            items: Vec::new(),
            resource_version: list.resource_version,
            continue_token: list.continue_token,
            remaining_item_count: list.remaining_item_count.unwrap_or(0),
        };
        Self { items: list.items.into_iter(), last: Some(last) }
    }
}

impl Iterator for Chunks {
    type Item = api::ListChunk;

    fn next(&mut self) -> Option<api::ListChunk> {
        let last = self.last.as_mut()?;
        let (mut items, mut bytes) = (Vec::new(), 0);
        for object in self.items.by_ref() {
            bytes += object.json.len();
            items.push(WireObject(object));
            if bytes >= CHUNK_BYTES {
                break;
            }
        }
        if self.items.len() > 0 {
            return Some(api::ListChunk { items, ..Default::default() });
        }
        last.items = items;
        self.last.take()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn list(count: usize, bytes: usize) -> List {
        let object =
            Arc::new(Object { json: Bytes::from(vec![b' '; bytes]), index: Default::default() });
        List {
            items: vec![object; count],
            resource_version: "7".into(),
            continue_token: "t".into(),
            remaining_item_count: Some(3),
        }
    }

    #[test]
    fn chunks_are_bounded_and_the_last_one_closes_the_list() {
        let chunks: Vec<_> = Chunks::new(list(5, CHUNK_BYTES / 2)).collect();
        let sizes: Vec<usize> = chunks.iter().map(|c| c.items.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        let versions: Vec<&str> = chunks.iter().map(|c| c.resource_version.as_str()).collect();
        assert_eq!(versions, ["", "", "7"]);
        assert_eq!(chunks[2].remaining_item_count, 3);
    }

    #[test]
    fn an_empty_list_is_one_chunk() {
        assert_eq!(Chunks::new(list(0, 1)).count(), 1);
    }
}
