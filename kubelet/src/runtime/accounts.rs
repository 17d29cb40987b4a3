//! Reads `/etc/passwd` and `/etc/group` of an image from its layers, without mounting anything: the mounts
//! of a snapshot name the folders, topmost first.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::users::Accounts;

/// A longer one is none that a sane system reads at every start.
const FILE_MAX_BYTES: u64 = 4 << 20;

pub(super) fn read(mounts: &[Mount]) -> Accounts {
    let layers = layers(mounts);
    Accounts { passwd: read_file(&layers, "etc/passwd"), group: read_file(&layers, "etc/group") }
}

/// `lowerdir=top:next:...` of an overlay, or the one folder of a bind mount.
fn layers(mounts: &[Mount]) -> Vec<String> {
    let Some(mount) = mounts.first() else { return Vec::new() };
    match mount.options.iter().find_map(|option| option.strip_prefix("lowerdir=")) {
        Some(lower) => lower.split(':').map(str::to_owned).collect(),
        None => vec![mount.source.clone()],
    }
}

fn read_file(layers: &[String], path: &str) -> String {
    for layer in layers {
        match read_in(Path::new(layer), path) {
            Ok(text) => return text,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            // A whiteout is a device that cannot be opened: deleted from here down.
            Err(_) => return String::new(),
        }
    }
    String::new()
}

/// Links in an image must not lead out of it.
fn read_in(root: &Path, path: &str) -> Result<String, Errno> {
    let dir = std::fs::File::open(root).map_err(|_| Errno::ENOENT)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = std::fs::File::from(openat2(dir.as_fd(), path, how)?);
    let mut text = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut text).map_err(|_| Errno::EIO)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_file_counts_and_links_stay_inside() {
        let dir = tempfile::tempdir().expect("a folder");
        let layer = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.join("etc")).expect("a layer");
            path
        };
        let (top, below) = (layer("top"), layer("below"));
        std::fs::write(below.join("etc/passwd"), "below").expect("a file");
        std::fs::write(below.join("etc/group"), "group").expect("a file");
        std::fs::write(dir.path().join("outside"), "outside").expect("a file");
        std::fs::write(top.join("etc/passwd"), "top").expect("a file");
        std::os::unix::fs::symlink("/../../outside", top.join("etc/group")).expect("a link");
        let mount = Mount {
            options: vec![format!("lowerdir={}:{}", top.display(), below.display())],
            ..Default::default()
        };
        let accounts = read(&[mount]);
        assert_eq!(accounts.passwd, "top");
        assert_eq!(accounts.group, "group", "the link leads nowhere in its own layer");
        let bind = Mount { source: below.display().to_string(), ..Default::default() };
        assert_eq!(read(&[bind]).passwd, "below");
    }
}
