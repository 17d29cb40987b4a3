//! The `skiff.api.v1.Object` message, read into and written from the shared object itself:
//! no field is copied into a message first, and the JSON of a received object shares the
//! bytes that came from the socket.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::object::{Index, Object};

/// The fields of the message, by their numbers.
const API_VERSION: u32 = 1;
const KIND: u32 = 2;
const NAMESPACE: u32 = 3;
const NAME: u32 = 4;
const UID: u32 = 5;
const RESOURCE_VERSION: u32 = 6;
const JSON: u32 = 7;

/// What travels. Of a received one the index holds the envelope's fields alone; the rest of
/// it is in the JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct WireObject(pub Arc<Object>);

impl WireObject {
    /// A message that carries a version and nothing else, as bookmarks do.
    pub fn version(resource_version: String) -> Self {
        let mut object = Self::default();
        object.index().metadata.resource_version = resource_version;
        object
    }

    fn index(&mut self) -> &mut Index {
        &mut self.object().index
    }

    /// Not shared while it is being read, so nothing is copied.
    fn object(&mut self) -> &mut Object {
        Arc::make_mut(&mut self.0)
    }

    fn texts(&self) -> [(u32, &str); 6] {
        let index = &self.0.index;
        let metadata = &index.metadata;
        [
            (API_VERSION, &index.api_version),
            (KIND, &index.kind),
            (NAMESPACE, &metadata.namespace),
            (NAME, &metadata.name),
            (UID, &metadata.uid),
            (RESOURCE_VERSION, &metadata.resource_version),
        ]
    }
}

impl Default for WireObject {
    fn default() -> Self {
        Self(Arc::new(Object { json: Bytes::new(), index: Index::default() }))
    }
}

impl Eq for WireObject {}

impl Hash for WireObject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.json.hash(state);
    }
}

fn length_delimited(tag: u32, length: usize) -> usize {
    if length == 0 {
        return 0;
    }
    encoding::key_len(tag) + encoding::encoded_len_varint(length as u64) + length
}

fn put(tag: u32, data: &[u8], buffer: &mut impl BufMut) {
    if !data.is_empty() {
        encoding::encode_key(tag, WireType::LengthDelimited, buffer);
        encoding::encode_varint(data.len() as u64, buffer);
        buffer.put_slice(data);
    }
}

impl Message for WireObject {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for (tag, text) in self.texts() {
            put(tag, text.as_bytes(), buffer);
        }
        put(JSON, &self.0.json, buffer);
    }

    fn encoded_len(&self) -> usize {
        let texts = self
            .texts()
            .iter()
            .map(|(tag, text)| length_delimited(*tag, text.len()))
            .sum::<usize>();
        texts + length_delimited(JSON, self.0.json.len())
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let index = match tag {
            API_VERSION..=RESOURCE_VERSION => self.index(),
            JSON => {
                return encoding::bytes::merge(wire_type, &mut self.object().json, buffer, context);
            }
            _ => return encoding::skip_field(wire_type, tag, buffer, context),
        };
        let text = match tag {
            API_VERSION => &mut index.api_version,
            KIND => &mut index.kind,
            NAMESPACE => &mut index.metadata.namespace,
            NAME => &mut index.metadata.name,
            UID => &mut index.metadata.uid,
            _ => &mut index.metadata.resource_version,
        };
        encoding::string::merge(wire_type, text, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message as its `.proto` says it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Plain {
        #[prost(string, tag = "1")]
        api_version: String,
        #[prost(string, tag = "2")]
        kind: String,
        #[prost(string, tag = "3")]
        namespace: String,
        #[prost(string, tag = "4")]
        name: String,
        #[prost(string, tag = "5")]
        uid: String,
        #[prost(string, tag = "6")]
        resource_version: String,
        #[prost(bytes = "bytes", tag = "7")]
        json: Bytes,
    }

    #[test]
    fn it_is_the_message_of_the_proto_file() {
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n","resourceVersion":"7","uid":"u"}}"#;
        let object = Object::from_json(Bytes::from(json)).expect("an object");
        let wire = WireObject(Arc::new(object));
        let plain = Plain {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: "n".into(),
            name: "a".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            json: Bytes::from(json),
        };
        assert_eq!(wire.encode_to_vec(), plain.encode_to_vec());
        assert_eq!(wire.encoded_len(), plain.encoded_len());
        let read = WireObject::decode(&plain.encode_to_vec()[..]).expect("decodes");
        assert_eq!(read, wire);
        let bookmark = WireObject::version("7".into());
        let plain = Plain { resource_version: "7".into(), ..Plain::default() };
        assert_eq!(bookmark.encode_to_vec(), plain.encode_to_vec());
        let unknown = [plain.encode_to_vec(), vec![0x40, 1]].concat();
        assert_eq!(WireObject::decode(&unknown[..]).expect("decodes"), bookmark);
    }
}
