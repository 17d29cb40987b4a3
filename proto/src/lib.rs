//! Every wire shape: generated gRPC types, and helpers for Kubernetes objects.
//!
//! Nothing here does I/O, reads a clock or knows tokio.

pub mod duration;
pub mod int_or_string;
pub mod meta;
pub mod model;
pub mod object;
pub mod quantity;
pub mod resource;
pub mod selector;
pub mod status;
pub mod timestamp;
pub mod wire_object;

pub use int_or_string::IntOrString;
pub use meta::{Condition, ObjectMeta, ObjectReference, OwnerReference};
pub use object::{Object, ObjectKey};
pub use quantity::Quantity;
pub use resource::Resource;
pub use selector::{FieldSelector, LabelSelector, Labels, Selector};
pub use status::Status;
pub use timestamp::Timestamp;
pub use wire_object::WireObject;

/// Generated types. They stop at the edges; the core of each crate has its own.
#[allow(clippy::all, clippy::pedantic)]
pub mod grpc {
    // prost refers from one package to another by path, so the modules nest as the packages do.
    pub mod skiff {
        pub mod api {
            pub mod v1 {
                tonic::include_proto!("skiff.api.v1");
            }
        }
        pub mod node {
            pub mod v1 {
                tonic::include_proto!("skiff.node.v1");
            }
        }
        pub mod raft {
            pub mod v1 {
                tonic::include_proto!("skiff.raft.v1");
            }
        }
    }
    pub use skiff::api::v1 as api;
    pub use skiff::node::v1 as node;
    pub use skiff::raft::v1 as raft;

    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }

    /// All file descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
