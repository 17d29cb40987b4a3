//! hostPath volumes: the type that the manifest claims is checked, or made.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use skiff_proto::model::HostPathVolume;

pub fn check(volume: &HostPathVolume) -> Result<(), String> {
    let path = Path::new(&volume.path);
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("path {} must not contain ..", volume.path));
    }
    match volume.type_.as_str() {
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if path.exists() {
                return is(path, "a directory", Metadata::is_dir);
            }
            fs::create_dir_all(path)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
                .map_err(|why| format!("create {}: {why}", volume.path))
        }
        "FileOrCreate" => {
            if path.exists() {
                return is(path, "a file", Metadata::is_file);
            }
            fs::write(path, "")
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
                .map_err(|why| format!("create {}: {why}", volume.path))
        }
        "Directory" => is(path, "a directory", Metadata::is_dir),
        "File" => is(path, "a file", Metadata::is_file),
        "Socket" => is(path, "a socket file", |m| m.file_type().is_socket()),
        "CharDevice" => is(path, "a character device", |m| m.file_type().is_char_device()),
        "BlockDevice" => is(path, "a block device", |m| m.file_type().is_block_device()),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

fn is(path: &Path, what: &str, holds: impl Fn(&Metadata) -> bool) -> Result<(), String> {
    if fs::metadata(path).is_ok_and(|metadata| holds(&metadata)) {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {} is not {what}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_or_made() {
        let dir = tempfile::tempdir().expect("a folder");
        let volume = |name: &str, type_: &str| HostPathVolume {
            path: dir.path().join(name).to_string_lossy().into_owned(),
            type_: type_.into(),
        };
        assert!(
            check(&volume("d", "Directory")).expect_err("missing").contains("is not a directory")
        );
        assert_eq!(check(&volume("d/e", "DirectoryOrCreate")), Ok(()));
        assert_eq!(check(&volume("d/f", "FileOrCreate")), Ok(()));
        assert_eq!(check(&volume("d/f", "File")), Ok(()));
        assert!(check(&volume("d/f", "Socket")).is_err());
        assert!(check(&volume("d/../x", "")).is_err());
        assert_eq!(check(&volume("nowhere", "")), Ok(()));
    }
}
