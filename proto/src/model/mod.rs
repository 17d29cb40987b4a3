//! Small typed models of the kinds, for reading at a component's own edge and for writing
//! the parts a component owns. They hold the fields that components act on; objects
//! themselves stay raw JSON, so what is not here is not lost. Templates that are only
//! passed on (a Deployment's pod template) stay `serde_json::Value`.

/// Declares structs that read leniently (absent fields take their default) and write
/// nothing for what is absent, with Kubernetes' camelCase names.
macro_rules! model {
    ($( $(#[$meta:meta])* $name:ident { $( $(#[$fmeta:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name {
                $(
                    $(#[$fmeta])*
                    #[serde(skip_serializing_if = "crate::model::is_default")]
                    pub $field: $ty,
                )*
            }
        )*
    };
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub mod apps;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod event;
pub mod networking;
pub mod node;
pub mod pod;
pub mod pod_status;
pub mod service;

pub use self::apps::*;
pub use self::coordination::*;
pub use self::core::*;
pub use self::discovery::*;
pub use self::event::*;
pub use self::networking::*;
pub use self::node::*;
pub use self::pod::*;
pub use self::pod_status::*;
pub use self::service::*;
