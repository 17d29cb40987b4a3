//! The name of a served resource: group, version and plural.

use std::borrow::Cow;
use std::fmt;

/// A served resource, such as `deployments` of `apps/v1`. The core group is the empty string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
}

impl Resource {
    pub const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
        }
    }

    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, or `deployments.apps`: how Kubernetes names a resource in messages.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

pub const NAMESPACES: Resource = Resource::new("", "v1", "namespaces");
pub const NODES: Resource = Resource::new("", "v1", "nodes");
pub const PODS: Resource = Resource::new("", "v1", "pods");
pub const SERVICES: Resource = Resource::new("", "v1", "services");
pub const ENDPOINTS: Resource = Resource::new("", "v1", "endpoints");
pub const CONFIG_MAPS: Resource = Resource::new("", "v1", "configmaps");
pub const SECRETS: Resource = Resource::new("", "v1", "secrets");
pub const SERVICE_ACCOUNTS: Resource = Resource::new("", "v1", "serviceaccounts");
pub const EVENTS: Resource = Resource::new("", "v1", "events");
pub const LEASES: Resource = Resource::new("coordination.k8s.io", "v1", "leases");
pub const DEPLOYMENTS: Resource = Resource::new("apps", "v1", "deployments");
pub const REPLICA_SETS: Resource = Resource::new("apps", "v1", "replicasets");
pub const ENDPOINT_SLICES: Resource = Resource::new("discovery.k8s.io", "v1", "endpointslices");
pub const INGRESSES: Resource = Resource::new("networking.k8s.io", "v1", "ingresses");
pub const INGRESS_CLASSES: Resource = Resource::new("networking.k8s.io", "v1", "ingressclasses");
