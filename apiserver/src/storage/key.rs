//! Where objects lie in the store: `/registry/<plural>[.<group>]/[<namespace>/]<name>`.

use std::borrow::Cow;

use bytes::Bytes;
use skiff_proto::Resource;

/// Everything of the API server lies under it.
pub const ROOT: &str = "/registry/";

/// The first segment below the root: `pods`, `deployments.apps`.
pub fn segment(resource: &Resource) -> Cow<'_, str> {
    match resource.group.is_empty() {
        true => Cow::Borrowed(&resource.plural),
        false => Cow::Owned(resource.group_resource()),
    }
}

/// The prefix of all objects of a resource.
pub fn prefix(resource: &Resource) -> String {
    format!("{ROOT}{}/", segment(resource))
}

/// An object's place below its resource's prefix, which is also how lists are ordered.
pub fn path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Splits a key of the store into resource segment and path.
pub fn split(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?.split_once('/')
}

/// The key of a thing that is no object: `serviceips`, `servicenodeports`.
pub fn claim(range: &str, item: &str) -> Bytes {
    Bytes::from(format!("{ROOT}ranges/{range}/{item}"))
}

#[cfg(test)]
mod tests {
    use skiff_proto::resource::{DEPLOYMENTS, NODES, PODS};

    use super::*;

    #[test]
    fn places() {
        assert_eq!(prefix(&PODS) + &path("default", "web"), "/registry/pods/default/web");
        assert_eq!(prefix(&DEPLOYMENTS), "/registry/deployments.apps/");
        assert_eq!(prefix(&NODES) + &path("", "n1"), "/registry/nodes/n1");
        assert_eq!(split(b"/registry/pods/default/web"), Some(("pods", "default/web")));
        assert_eq!(split(b"/other/pods/x"), None);
        assert_eq!(split(b"/registry/pods"), None);
    }
}
