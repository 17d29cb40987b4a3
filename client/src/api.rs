//! The port to the API server. The server's core implements it for components in its own
//! process (no sockets, shared bytes), `grpc::GrpcApi` for all others; components cannot
//! tell which they have.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use skiff_proto::{FieldSelector, Object, Resource, Selector, Status};

pub type Result<T> = std::result::Result<T, Status>;

/// What a request is about. `namespace` is empty for cluster-scoped objects and for all namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub resource: Resource,
    pub namespace: String,
    /// Empty for create and for collections.
    pub name: String,
    /// `status`, `scale`, `binding`, `eviction`, or empty.
    pub subresource: String,
}

impl Target {
    /// A collection: where to create, list or watch.
    pub fn all(resource: &Resource, namespace: &str) -> Self {
        Self::one(resource, namespace, "")
    }

    pub fn one(resource: &Resource, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.clone(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: String::new(),
        }
    }

    pub fn of(resource: &Resource, object: &Object) -> Self {
        Self::one(resource, object.namespace(), object.name())
    }

    pub fn subresource(mut self, subresource: &str) -> Self {
        self.subresource = subresource.into();
        self
    }
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub labels: Selector,
    pub fields: FieldSelector,
    /// 0: no limit.
    pub limit: i64,
    pub continue_token: String,
    /// Empty: the most recent state. `0`: whatever the watch cache has.
    pub resource_version: String,
}

#[derive(Debug, Clone, Default)]
pub struct List {
    pub items: Vec<Arc<Object>>,
    pub resource_version: String,
    /// Empty: complete.
    pub continue_token: String,
    pub remaining_item_count: Option<i64>,
}

#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    pub labels: Selector,
    pub fields: FieldSelector,
    /// Empty or `0`: begins with an Added for every object that exists.
    pub resource_version: String,
    pub allow_bookmarks: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The object as it was last, with the resourceVersion of its removal. Also sent when it
    /// no longer matches the selector.
    Deleted(Arc<Object>),
    /// Everything up to this resourceVersion has been delivered.
    Bookmark {
        resource_version: String,
    },
}

/// Ends after an error. `Expired` (410) means: list again.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent>> + Send>>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    #[default]
    Strict,
    Warn,
    Ignore,
}

#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    Json(Bytes),
    Merge(Bytes),
    Strategic(Bytes),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// What the kind does when nobody says: background.
    #[default]
    Default,
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Propagation,
    /// Preconditions; empty: none.
    pub uid: String,
    pub resource_version: String,
    pub dry_run: bool,
}

/// What a delete left behind.
#[derive(Debug, Clone)]
pub enum Deleted {
    Gone(Arc<Object>),
    /// It waits for its grace period or its finalizers.
    Terminating(Arc<Object>),
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Empty: the only container.
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<i64>,
    pub since_seconds: Option<i64>,
    /// RFC 3339; empty: none.
    pub since_time: String,
    pub limit_bytes: Option<i64>,
}

pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    pub container: String,
    pub command: Vec<String>,
    pub stdin: bool,
    pub tty: bool,
}

#[derive(Debug, Clone)]
pub enum ExecInput {
    Stdin(Bytes),
    CloseStdin,
    Resize { width: u16, height: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Last.
    Exit(i32),
}

pub type ExecInputStream = Pin<Box<dyn Stream<Item = ExecInput> + Send>>;
pub type ExecOutputStream = Pin<Box<dyn Stream<Item = Result<ExecOutput>> + Send>>;

/// One kind served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceInfo {
    pub resource: Resource,
    pub kind: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionInfo {
    pub version: String,
    pub kubernetes_version: String,
    pub platform: String,
}

/// The Kubernetes API. Meaning, defaults and failures are upstream's.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    async fn version(&self) -> Result<VersionInfo>;
    async fn discover(&self) -> Result<Vec<ResourceInfo>>;

    async fn get(&self, target: &Target) -> Result<Arc<Object>>;
    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List>;
    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream>;

    /// `json` is the object; with a subresource (`binding`, `eviction`) its own body.
    async fn create(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>>;
    async fn update(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>>;
    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>>;
    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted>;
    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>>;

    async fn logs(&self, target: &Target, options: &LogOptions) -> Result<ByteStream>;
    async fn exec(
        &self,
        target: &Target,
        options: &ExecOptions,
        input: ExecInputStream,
    ) -> Result<ExecOutputStream>;
}
