//! The socket file of a server: made safely, removed only while it is still ours.
//!
//! Knows files, users and groups. Does not know what is said over the socket.

use crate::config::BusConfig;
use crate::error::{Error, ErrorKind, reason};
use nix::unistd::Group;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long we wait for others that are making a socket in the same folder. It takes them no time, so whoever holds the
/// folder longer does not mean well.
const FOLDER_TIME: Duration = Duration::from_millis(500);

/// A socket that is listened on, and its file.
pub(crate) struct BusSocket {
    pub(super) listener: UnixListener,
    pub(super) allows_group: bool,
    file: SocketFile,
}

/// Removes the file when it is dropped, in the process that made it.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number: another file of the same name is another server's.
    identity: Option<(u64, u64)>,
    process: u32,
}

impl BusSocket {
    /// Makes the socket. A file that a dead server left behind is removed.
    ///
    /// # Errors
    /// `Io`: somebody listens there, or it cannot be made. `Config`: no such group.
    pub(crate) fn bind(config: &BusConfig) -> Result<BusSocket, Error> {
        let path = &config.path;
        let group = config.group.as_deref().map(group_id).transpose()?;
        let refuse =
            |error: io::Error| Error::new(ErrorKind::Io, format!("Cannot open the bus socket {}: {}", path.display(), reason(&error)));
        let _folder = lock_folder(path);
        check(path)?;
        let (listener, file) = open(path, group).map_err(refuse)?;
        Ok(BusSocket { listener, allows_group: group.is_some(), file })
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Whether a socket could be made there now.
///
/// # Errors
/// `Io`: somebody listens there, or something else than a socket is in the way.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::Io, format!("{} is {why}", path.display())));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => refuse("no socket: it is not replaced"),
        Ok(_) if is_taken(path) => refuse("in use by another server"),
        _ => Ok(()),
    }
}

/// Whether somebody listens on this socket file.
pub(crate) fn is_taken(path: &Path) -> bool {
    match connect(path) {
        Ok(_) => true,
        // A queue that is full is somebody's, and so is a socket that we may not use.
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
    }
}

/// Connects without waiting: where the queue of new connections is full, that is `WouldBlock`.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Two servers that start at once must not both find the name free. The lock ends with the descriptor.
fn lock_folder(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let deadline = Instant::now() + FOLDER_TIME;
    while flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(folder)
}

fn open(path: &Path, group: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
    // Made under another name: whoever sees the file at its own can connect. What a dead server left there is replaced.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    let identity = identity(&new);
    let mut file = SocketFile { path: new.clone(), identity, process: std::process::id() };
    // Nobody can connect before `listen`, so nobody slips in under the rights that the umask left.
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    if group.is_some() {
        chown(&new, None, group)?;
        fs::set_permissions(&new, Permissions::from_mode(0o660))?;
    }
    socket.listen(BACKLOG)?;
    fs::rename(&new, path)?;
    file.path = path.to_owned();
    Ok((socket.into(), file))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn group_id(name: &str) -> Result<u32, Error> {
    let refuse = |why: &str| Error::new(ErrorKind::Config, format!("bus_group: {why}"));
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(refuse(&format!("there is no group {name}"))),
        Err(errno) => Err(refuse(errno.desc())),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.process == std::process::id() && self.identity.is_some() && identity(&self.path) == self.identity {
            // It is gone either way.
            let _ = fs::remove_file(&self.path);
        }
    }
}
