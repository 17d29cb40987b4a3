//! What was attached with which configuration and result: a removal needs both, also after a restart, also
//! after the configuration has changed.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conf::Conf;
use super::plan::Attachment;
use crate::ports::PortMapping;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub conf: String,
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// Null until the plugins have answered.
    #[serde(default)]
    pub result: Value,
}

impl Entry {
    pub fn new(conf: &Conf, attachment: &Attachment) -> Entry {
        Entry { conf: conf.text.clone(), ports: attachment.ports.clone(), result: Value::Null }
    }

    pub fn with_result(self, result: Value) -> Entry {
        Entry { result, ..self }
    }
}

pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub fn new(dir: &Path) -> Cache {
        Cache { dir: dir.join("results") }
    }

    /// A file that cannot be read is as none: plugins take a removal without a result.
    pub fn read(&self, sandbox: &str) -> Option<Entry> {
        let bytes = std::fs::read(self.path(sandbox)).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(entry) => Some(entry),
            Err(why) => {
                tracing::warn!(sandbox, %why, "the noted network result cannot be read");
                None
            }
        }
    }

    /// Whole or not at all. Not synced: after a power cut the address file of the plugin counts, and both
    /// are written by the same kernel in the same second.
    pub fn write(&self, sandbox: &str, entry: &Entry) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let half = self.dir.join(format!(".{sandbox}.new"));
        std::fs::write(&half, serde_json::to_vec(entry)?)?;
        std::fs::rename(&half, self.path(sandbox))
    }

    pub fn remove(&self, sandbox: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(sandbox)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, sandbox: &str) -> PathBuf {
        self.dir.join(format!("{sandbox}.json"))
    }
}
