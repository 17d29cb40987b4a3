//! The two programs that `build.rs` compiles, written out under a name that carries their digest: those of
//! an older skiff stay for the containers that use them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::images::manifest::sha256;

static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
static LOGGER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/logger"));

pub(super) struct Programs {
    /// The root of every sandbox: only `/pause`, and the folders that the kernel's file systems go on.
    pub pause_rootfs: PathBuf,
    pub logger: PathBuf,
}

impl Programs {
    pub fn write(dir: &Path) -> io::Result<Programs> {
        let pause_rootfs = dir.join(named("pause", PAUSE));
        for folder in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(pause_rootfs.join(folder))?;
        }
        let logger = dir.join(named("logger", LOGGER));
        write_program(&pause_rootfs.join("pause"), PAUSE)?;
        write_program(&logger, LOGGER)?;
        Ok(Programs { pause_rootfs, logger })
    }
}

fn named(name: &str, program: &[u8]) -> String {
    let digest = sha256(program);
    format!("{name}-{}", &digest["sha256:".len()..][..12])
}

/// Whole or not at all: a power cut must not leave half a program behind.
fn write_program(path: &Path, program: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == program) {
        return Ok(());
    }
    let half = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&half, program)?;
    std::fs::set_permissions(&half, std::fs::Permissions::from_mode(0o755))?;
    std::fs::File::open(&half)?.sync_all()?;
    std::fs::rename(&half, path)
}

/// The log address of a container: its shim starts the logger with these arguments.
pub(super) fn log_uri(logger: &Path, log: &Path, max_bytes: u64, max_files: u32) -> String {
    format!(
        "binary://{}?log={}&max-bytes={max_bytes}&max-files={max_files}",
        encode(&logger.to_string_lossy(), true),
        encode(&log.to_string_lossy(), false)
    )
}

/// Percent-encoding as in RFC 3986: everything but the unreserved characters.
fn encode(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            b'/' if keep_slash => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_path_may_hold_anything() {
        let uri = log_uri(Path::new("/a b/logger"), Path::new("/var/log/x&y=z/0.log"), 10, 2);
        assert_eq!(
            uri,
            "binary:///a%20b/logger?log=%2Fvar%2Flog%2Fx%26y%3Dz%2F0.log&max-bytes=10&max-files=2"
        );
    }

    #[test]
    fn the_programs_are_small_static_executables() {
        for program in [PAUSE, LOGGER] {
            assert_eq!(&program[..4], b"\x7fELF");
            assert!(program.len() < 64 << 10, "{} bytes", program.len());
        }
    }
}
