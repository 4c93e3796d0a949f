//! Which servers answer, where whoever looks for one finds none: those of other users, and of other names.
//!
//! Owns where is looked and how much of it is told. Where sockets are is [`super::places`]'s.

use super::places::{FILE_ENDING, Folder, default_paths, file_in, folders};
use super::socket;
use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Servers of others, or of other names, that are told of at most.
const MOST_TOLD: usize = 8;

/// Folders of others that are looked into at most.
const MOST_FOLDERS: usize = 1024;

/// Servers of that name that answer where none of our own is: in the folders that a service manager made for others, and for
/// root in those of other users. One that may not be trusted with its folder's name is left out.
pub(crate) fn elsewhere(name: &str) -> Vec<PathBuf> {
    let own = geteuid().as_raw();
    let known = default_paths(name);
    let mut found = BTreeSet::new();
    let mut look = |folder: &Path| {
        let path = file_in(folder, name);
        if !known.contains(&path) && socket::is_taken(&path) {
            found.insert(path);
        }
    };
    let belongs_to = |folder: &Path, owner| !Folder::of_others(folder).is_trap(owner);
    // Only root makes folders there: whose one is, says the folder.
    for folder in entries(Path::new("/run")) {
        let owner = fs::symlink_metadata(&folder).map_or(0, |found| found.uid());
        if (own == 0 || owner == own || owner == 0) && belongs_to(&folder, owner) {
            look(&folder);
        }
    }
    if own == 0 {
        let of_sessions = entries(Path::new("/run/user")).into_iter().map(|session| (session.join("heartbus"), number_in(&session, "")));
        let of_users = entries(Path::new("/tmp")).into_iter().map(|folder| (folder.clone(), number_in(&folder, "heartbus-")));
        for (folder, owner) in of_sessions.chain(of_users) {
            if owner.is_some_and(|owner| belongs_to(&folder, owner)) {
                look(&folder);
            }
        }
    }
    found.into_iter().collect()
}

/// Servers of other names that answer in the usual folders, for whoever looks for one in vain.
pub(crate) fn others(name: &str) -> Vec<PathBuf> {
    let own = geteuid().as_raw();
    let folders = folders();
    let files = folders.iter().filter(|folder| !folder.is_trap(own)).flat_map(|folder| entries(&folder.path));
    let sockets = files.filter(|file| {
        let is_named = file.extension() == Some(OsStr::new(FILE_ENDING)) && file.file_stem() != Some(OsStr::new(name));
        is_named && fs::symlink_metadata(file).is_ok_and(|found| found.file_type().is_socket())
    });
    sockets.filter(|file| socket::is_taken(file)).take(MOST_TOLD).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).take(MOST_FOLDERS).collect()
}

/// The user that a folder's name says it is of.
fn number_in(folder: &Path, prefix: &str) -> Option<u32> {
    folder.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_s_name_says_whose_it_is() {
        let owner = |path: &str| number_in(Path::new(path), "heartbus-");
        assert_eq!(owner("/tmp/heartbus-33"), Some(33));
        for other in ["/tmp/heartbus-", "/tmp/heartbus-x", "/tmp/heartbus-tests-33", "/tmp/other-33", "/tmp/heartbus--1"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
