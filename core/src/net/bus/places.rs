//! Where the sockets of servers are: the usual folders, in the order in which a server takes one and a caller looks.
//!
//! Owns the order, and who is trusted with a folder. Does not know sockets.

use crate::error::{Error, ErrorKind, reason};
use crate::settings::check_name;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

pub(super) const FILE_ENDING: &str = "sock";

/// A folder for socket files.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// What it is made with where it is missing; none: whoever manages it makes it.
    mode: Option<u32>,
    /// Anybody may write where it stands, so it must be shown to be its owner's.
    is_exposed: bool,
}

impl Folder {
    /// Of somebody whom its name says, whoever may write beside it.
    pub(super) fn of_others(path: &Path) -> Self {
        Self { path: path.to_owned(), mode: None, is_exposed: true }
    }
}

/// Where the socket of a server of that name is looked for, in this order. A folder that somebody else made in our name is
/// left out: what we send would reach him.
pub fn default_paths(name: &str) -> Vec<PathBuf> {
    let own = geteuid().as_raw();
    folders().iter().filter(|folder| !folder.is_trap(own)).map(|folder| file_in(&folder.path, name)).collect()
}

/// Where a server of that name opens its socket: in the first of the usual folders that is there or can be made, and can be
/// written to.
///
/// # Errors
/// `Config` for a name that is no file name; `Io` when no folder can be used.
pub fn path_to_bind(name: &str) -> Result<PathBuf, Error> {
    check_name(name)?;
    let mut refusals = Vec::new();
    for folder in folders() {
        match folder.prepare() {
            Ok(()) => return Ok(file_in(&folder.path, name)),
            Err(error) => refusals.push(format!("{}: {}", folder.path.display(), reason(&error))),
        }
    }
    Err(Error::new(ErrorKind::Io, format!("No folder for the bus socket ({})", refusals.join("; "))))
}

/// Makes a usual folder again that somebody removed.
pub(super) fn prepare_again(parent: &Path) -> io::Result<()> {
    folders().iter().find(|folder| folder.path == parent).map_or(Ok(()), Folder::prepare)
}

pub(super) fn file_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{FILE_ENDING}"))
}

pub(super) fn folders() -> Vec<Folder> {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    let uid = geteuid().as_raw();
    in_order(&variable("RUNTIME_DIRECTORY"), uid, &variable("XDG_RUNTIME_DIR"))
}

/// A service's own folder first, then that of all servers, then the user's: in /tmp, which nothing empties when he logs out.
/// What logging out does remove is for whom nothing else is left.
fn in_order(runtime: &OsStr, uid: u32, session: &OsStr) -> Vec<Folder> {
    let managed = |path: PathBuf| Folder { path, mode: None, is_exposed: false };
    let mut of_service: Vec<PathBuf> = std::env::split_paths(runtime).filter(|path| path.is_absolute()).collect();
    // A service may have several.
    of_service.sort_by_key(|path| path.file_name() != Some(OsStr::new("heartbus")));
    let mut folders: Vec<Folder> = of_service.into_iter().map(managed).collect();
    folders.push(Folder { path: "/run/heartbus".into(), mode: Some(0o755), is_exposed: false });
    folders.push(Folder { path: format!("/tmp/heartbus-{uid}").into(), mode: Some(0o711), is_exposed: true });
    let session = Path::new(session);
    if session.is_absolute() {
        folders.push(Folder { path: session.join("heartbus"), mode: Some(0o700), is_exposed: false });
    }
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.path.clone()));
    folders
}

impl Folder {
    /// It is there, and others than `owner` may put sockets into it.
    pub(super) fn is_trap(&self, owner: u32) -> bool {
        // Not followed: a link is a trap as well.
        self.is_exposed
            && fs::symlink_metadata(&self.path).is_ok_and(|found| !found.is_dir() || found.uid() != owner || found.mode() & 0o022 != 0)
    }

    fn prepare(&self) -> io::Result<()> {
        if let Some(mode) = self.mode {
            match fs::DirBuilder::new().mode(mode).create(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        if self.is_trap(geteuid().as_raw()) {
            return Err(io::Error::other("it is not a folder of ours that only we may write to"));
        }
        Ok(accessat(CWD, &self.path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn paths(runtime: &str, session: &str) -> Vec<String> {
        let folders = in_order(OsStr::new(runtime), 33, OsStr::new(session));
        folders.into_iter().map(|folder| folder.path.display().to_string()).collect()
    }

    #[test]
    fn a_service_s_own_folder_comes_first_and_the_session_s_last() {
        assert_eq!(paths("", ""), ["/run/heartbus", "/tmp/heartbus-33"]);
        assert_eq!(paths("", "/run/user/33"), ["/run/heartbus", "/tmp/heartbus-33", "/run/user/33/heartbus"]);
        assert_eq!(paths("/run/app", ""), ["/run/app", "/run/heartbus", "/tmp/heartbus-33"]);
        assert_eq!(paths("/run/app:/run/heartbus", "")[..2], ["/run/heartbus", "/run/app"], "of several the one of our name");
        assert_eq!(paths("run/app:", "user/33"), ["/run/heartbus", "/tmp/heartbus-33"], "nothing that depends on where we stand");
    }

    #[test]
    fn an_exposed_folder_must_be_ours_alone() {
        let own = std::env::temp_dir().join(format!("heartbus-folder-{}", std::process::id()));
        let link = own.with_extension("link");
        let uid = geteuid().as_raw();
        let folder = |path: &Path| Folder { path: path.to_owned(), mode: Some(0o711), is_exposed: true };
        assert!(!folder(&own).is_trap(uid), "nobody made it yet");
        folder(&own).prepare().unwrap();
        folder(&own).prepare().expect("what we made we may use");
        assert!(!folder(&own).is_trap(uid));
        assert!(folder(&own).is_trap(uid + 1), "it is not another user's, whatever its name says");
        symlink(&own, &link).unwrap();
        assert!(folder(&link).is_trap(uid));
        assert!(folder(&link).prepare().is_err());
        fs::set_permissions(&own, Permissions::from_mode(0o733)).unwrap();
        assert!(folder(&own).is_trap(uid), "others may write");
        assert!(folder(&own).prepare().is_err());
        fs::remove_file(&link).unwrap();
        fs::remove_dir(&own).unwrap();
    }
}
