//! Writes a set of files so that a reader sees all of the old or all of the new: upstream's
//! atomic writer, whose layout programs in containers rely on.
//!
//! ```text
//! key        -> ..data/key
//! ..data     -> ..2024_05_01_10_00_00.123456789
//! ..2024_05_01_10_00_00.123456789/key
//! ```
//!
//! The switch is one rename of `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::SystemTime;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Files by their relative path.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Returns whether anything was written. With a group, files belong to it and are readable by it.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let current = fs::read_link(dir.join(DATA)).ok();
    if let Some(current) = &current
        && read(&dir.join(current)).is_ok_and(|old| same(&old, payload))
    {
        return Ok(false);
    }
    let stamp = stamp(dir);
    let fresh = dir.join(&stamp);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        write_file(&fresh, path, file, group)?;
    }
    let link = dir.join(NEW_DATA);
    match fs::remove_file(&link) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    symlink(&stamp, &link)?;
    fs::rename(&link, dir.join(DATA))?;
    show(dir, payload)?;
    sweep(dir, payload, &stamp)?;
    Ok(true)
}

fn same(old: &BTreeMap<String, Vec<u8>>, new: &Payload) -> bool {
    old.len() == new.len() && new.iter().all(|(path, file)| old.get(path) == Some(&file.data))
}

fn write_file(dir: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    let place = dir.join(path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&place, &file.data)?;
    let mut mode = file.mode;
    if let Some(group) = group {
        chown(&place, None, Some(group))?;
        mode |= 0o440;
    }
    fs::set_permissions(&place, fs::Permissions::from_mode(mode))
}

/// A name that no earlier write used.
fn stamp(dir: &Path) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = skiff_proto::Timestamp::from_unix(now.as_secs() as i64)
        .map_or_else(|| now.as_secs().to_string(), |t| t.to_string());
    let text = text.trim_end_matches('Z').replace(['-', 'T', ':'], "_");
    let mut fraction = now.subsec_nanos();
    loop {
        let name = format!("..{text}.{fraction:09}");
        if !dir.join(&name).exists() {
            return name;
        }
        fraction = fraction.wrapping_add(1);
    }
}

/// First components of the paths, which a reader sees as links into `..data`.
fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

fn show(dir: &Path, payload: &Payload) -> io::Result<()> {
    for name in visible(payload) {
        let link = dir.join(name);
        if fs::read_link(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    Ok(())
}

fn sweep(dir: &Path, payload: &Payload, current: &str) -> io::Result<()> {
    let visible = visible(payload);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == DATA || name == current || visible.contains(name.as_str()) {
            continue;
        }
        if name.starts_with("..") && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn read(dir: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.insert(path, fs::read(entry.path())?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o640 };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("lists").flatten();
        let mut names: Vec<String> =
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_change_is_one_switch_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        assert!(write(dir, &payload(&[("a", "1"), ("x/y", "2")]), None).expect("writes"));
        let first = fs::read_link(dir.join(DATA)).expect("a link");
        assert_eq!(fs::read_to_string(dir.join("x/y")).expect("reads"), "2");
        assert_eq!(fs::read_link(dir.join("a")).expect("a link"), Path::new("..data/a"));
        let mode = fs::metadata(dir.join("a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        assert!(!write(dir, &payload(&[("a", "1"), ("x/y", "2")]), None).expect("writes nothing"));
        assert_eq!(fs::read_link(dir.join(DATA)).expect("a link"), first);

        assert!(write(dir, &payload(&[("a", "9"), ("b", "3")]), None).expect("writes"));
        let second = fs::read_link(dir.join(DATA)).expect("a link");
        let second = second.to_string_lossy().into_owned();
        assert_eq!(names(dir), [second.as_str(), "..data", "a", "b"]);
        assert_eq!(fs::read_to_string(dir.join("a")).expect("reads"), "9");
    }

    #[test]
    fn a_write_cut_short_is_finished_by_the_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        symlink("..gone", dir.join(NEW_DATA)).expect("links");
        fs::create_dir(dir.join("..2001_01_01_00_00_00.000000000")).expect("creates");
        write(dir, &payload(&[("a", "1")]), None).expect("writes");
        assert_eq!(names(dir).len(), 3, "{:?}", names(dir));
    }
}
