//! Probes: when to ask (`machine`, pure), how to ask (`ask`), and who asks (`prober`).

use std::collections::BTreeMap;

use skiff_proto::model::Container;

pub mod ask;
pub mod http;
pub mod machine;
pub mod prober;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What probes have decided so far, by kind and container id. Absent: nothing decided yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    decided: BTreeMap<(Kind, String), bool>,
}

impl Results {
    /// Returns whether this changed anything.
    pub fn set(&mut self, kind: Kind, id: &str, success: bool) -> bool {
        self.decided.insert((kind, id.to_owned()), success) != Some(success)
    }

    pub fn get(&self, kind: Kind, id: &str) -> Option<bool> {
        self.decided.get(&(kind, id.to_owned())).copied()
    }

    /// Forgets containers that are no more.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.decided.retain(|(_, id), _| keep(id));
    }

    pub fn startup_failed(&self, id: &str) -> bool {
        self.get(Kind::Startup, id) == Some(false)
    }

    pub fn liveness_failed(&self, id: &str) -> bool {
        self.get(Kind::Liveness, id) == Some(false)
    }

    /// A running container without a startup probe has started.
    pub fn started(&self, container: &Container, id: &str) -> bool {
        container.startup_probe.is_none() || self.get(Kind::Startup, id) == Some(true)
    }

    /// A running container is ready when it has started and its readiness probe, if any, says so.
    pub fn ready(&self, container: &Container, id: &str) -> bool {
        self.started(container, id)
            && (container.readiness_probe.is_none() || self.get(Kind::Readiness, id) == Some(true))
    }
}
