//! Defaults of pods and pod templates that depend on other fields.

use serde_json::{Map, Value, json};

use super::text_or;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a Pod. Only a pod itself, not a template, gets requests from its limits, host
/// ports from its container ports, and service links.
pub(in crate::registry) fn pod(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    pod_spec(spec);
    spec.entry("enableServiceLinks").or_insert(Value::Bool(true));
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in objects_mut(spec, list) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
}

/// Defaults of the pod template at `object.spec.template`.
pub(in crate::registry) fn template(object: &mut Value) {
    let spec = object.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut);
    spec.into_iter().for_each(pod_spec);
}

fn pod_spec(spec: &mut Map<String, Value>) {
    same_service_account(spec);
    for list in CONTAINER_LISTS {
        for container in objects_mut(spec, list) {
            pull_policy(container, "image", "imagePullPolicy");
        }
    }
    for volume in objects_mut(spec, "volumes") {
        if volume.keys().all(|key| key == "name") {
            volume.insert("emptyDir".to_owned(), json!({}));
        }
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            pull_policy(image, "reference", "pullPolicy");
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both always say the same.
pub(in crate::registry) fn same_service_account(spec: &mut Map<String, Value>) {
    let name = ["serviceAccountName", "serviceAccount"].iter().find_map(|key| spec.get(*key));
    if let Some(name) = name.cloned() {
        spec.insert("serviceAccount".to_owned(), name.clone());
        spec.insert("serviceAccountName".to_owned(), name);
    }
}

/// Always for the tag `latest`, said or meant; else only if the image is not there.
fn pull_policy(object: &mut Map<String, Value>, image: &str, policy: &str) {
    let image = object.get(image).and_then(Value::as_str).unwrap_or("");
    let default = if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" };
    text_or(object, policy, default);
}

/// The tag of an image; `latest` where neither tag nor digest is given.
fn tag(image: &str) -> Option<&str> {
    if image.is_empty() {
        return None;
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => Some(tag),
        None if digest => None,
        None => Some("latest"),
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
}

fn host_ports(container: &mut Map<String, Value>) {
    for port in objects_mut(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            port.entry("hostPort").or_insert(number);
        }
    }
}

fn objects_mut<'a>(
    object: &'a mut Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn tags_of_images() {
        for (image, expected) in [
            ("nginx", Some("latest")),
            ("nginx:1.27", Some("1.27")),
            ("registry:5000/nginx", Some("latest")),
            ("registry:5000/nginx:latest", Some("latest")),
            ("nginx@sha256:abc", None),
            ("nginx:latest@sha256:abc", Some("latest")),
            ("", None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
