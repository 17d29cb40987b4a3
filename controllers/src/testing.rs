//! Objects for the plans' tests, made from JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skiff_client::cache::Entry;
use skiff_proto::Object;

use crate::caches::pod::{self, Pod};

pub fn object(json: &Value) -> Arc<Object> {
    Arc::new(Object::from_json(Bytes::from(json.to_string())).expect("an object"))
}

pub fn entry<T: DeserializeOwned>(json: Value) -> Entry<T> {
    let object = object(&json);
    let value = Arc::new(object.parse().expect("of this kind"));
    Entry { object, value }
}

pub fn pod(json: Value) -> Pod {
    let object = object(&json);
    let value = Arc::new(pod::view(&object).expect("a pod"));
    Entry { object, value }
}
