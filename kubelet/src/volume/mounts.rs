//! Mounts below a pod's folder: tmpfs volumes and bind mounts of sub paths.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

/// Whether something is mounted exactly here.
pub fn is_mounted(path: &Path) -> bool {
    let (Some(parent), Ok(own)) = (path.parent(), fs::metadata(path)) else { return false };
    fs::metadata(parent).is_ok_and(|parent| parent.dev() != own.dev())
}

/// A tmpfs here, unless there is one.
pub fn tmpfs(path: &Path, size_bytes: Option<i64>, mode: u32) -> io::Result<()> {
    if is_mounted(path) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size_bytes {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?;
    Ok(())
}

/// Paths mounted below a folder, deepest first. Pure.
pub fn below(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(root))
        .collect();
    // Later mounts lie over or below earlier ones.
    found.reverse();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn unmount_below(root: &Path) -> io::Result<()> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    for path in below(&mountinfo, root) {
        umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// Binds `sub` inside `volume` to `target`, whatever links a container may have planted in
/// the volume: the path is resolved beneath the volume by the kernel. Missing folders are made.
pub fn bind_sub_path(volume: &Path, sub: &Path, target: &Path) -> io::Result<()> {
    if sub.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        let why = format!("subPath {} must stay inside its volume", sub.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let source = open_beneath(volume, sub)?;
    let proc = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let is_dir = fs::metadata(&proc)?.is_dir();
    if is_dir {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    // An older bind would show what was there before.
    while umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
    let none: Option<&str> = None;
    mount(Some(&proc), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    Ok(())
}

fn open_beneath(volume: &Path, sub: &Path) -> io::Result<OwnedFd> {
    let root = nix::fcntl::open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(io::Error::from)?;
    let how = |flags| {
        OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    };
    let open = |path: &Path| openat2(&root, path, how(OFlag::O_PATH)).map_err(io::Error::from);
    match open(sub) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut made = PathBuf::new();
    for part in sub.components() {
        let parent = if made.as_os_str().is_empty() { open(Path::new("."))? } else { open(&made)? };
        match nix::sys::stat::mkdirat(
            &parent,
            Path::new(part.as_os_str()),
            Mode::from_bits_truncate(0o777),
        ) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(why) => return Err(why.into()),
        }
        made.push(part);
    }
    open(sub)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mounts_deepest_first() {
        let info = "1 0 0:1 / / rw - ext4 /dev/a rw\n\
            2 1 0:2 / /pods/u/volumes/a\\040b rw - tmpfs tmpfs rw\n\
            3 1 0:3 / /pods/u rw - tmpfs tmpfs rw\n\
            4 1 0:4 / /pods/uu rw - tmpfs tmpfs rw\n";
        assert_eq!(
            below(info, Path::new("/pods/u")),
            [PathBuf::from("/pods/u/volumes/a b"), PathBuf::from("/pods/u")]
        );
    }

    #[test]
    fn a_sub_path_cannot_leave_its_volume() {
        let dir = tempfile::tempdir().expect("a folder");
        let (volume, target) = (dir.path().join("v"), dir.path().join("t"));
        fs::create_dir(&volume).expect("creates");
        fs::write(dir.path().join("secret"), "x").expect("writes");
        std::os::unix::fs::symlink("../secret", volume.join("link")).expect("links");
        assert!(bind_sub_path(&volume, Path::new("link"), &target).is_err());
        assert!(bind_sub_path(&volume, Path::new("../secret"), &target).is_err());
        bind_sub_path(&volume, Path::new("a/b"), &target).expect("binds: needs root");
        fs::write(target.join("f"), "y").expect("writes");
        assert!(volume.join("a/b/f").exists());
        unmount_below(dir.path()).expect("unmounts");
        assert!(!target.join("f").exists());
    }
}
