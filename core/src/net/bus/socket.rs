//! The socket file of a server: made safely, made again when somebody removes it, removed only while it is still ours.
//!
//! Knows files, users and groups. Does not know what is said over the socket.

use super::places;
use crate::descriptor::lift;
use crate::error::{Error, ErrorKind, reason};
use crate::settings::BusConfig;
use nix::unistd::Group;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long we wait for others that are making a socket in the same folder. It takes them no time, so whoever holds the
/// folder longer does not mean well.
const FOLDER_TIME: Duration = Duration::from_millis(500);

/// A socket that is listened on, and its file.
pub(crate) struct BoundSocket {
    pub(super) listener: UnixListener,
    pub(super) allows_group: bool,
    file: SocketFile,
}

/// Removes the file when it is dropped, in the process that made it.
pub(super) struct SocketFile {
    path: PathBuf,
    group: Option<u32>,
    /// None while it is not there.
    identity: Option<Identity>,
    process: u32,
}

/// Device, number and birth: another file of the same name is another server's, and numbers are used again.
type Identity = (u64, u64, Option<SystemTime>);

impl BoundSocket {
    /// Makes the socket. A file that a dead server left behind is removed.
    ///
    /// # Errors
    /// `Io`: somebody listens there, or it cannot be made. `Config`: no such group.
    pub(crate) fn bind(config: &BusConfig) -> Result<Self, Error> {
        let mut file = SocketFile::of(config)?;
        let _folder = lock_folder(&file.path, FOLDER_TIME);
        let listener = file.make().and_then(|socket| file.listen(socket))?;
        Ok(Self { listener, allows_group: file.group.is_some(), file })
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Whether a socket could be made there now: makes one that nobody listens on, and takes it away again.
///
/// # Errors
/// As [`BoundSocket::bind`].
pub(crate) fn check(config: &BusConfig) -> Result<(), Error> {
    let mut file = SocketFile::of(config)?;
    let _folder = lock_folder(&file.path, FOLDER_TIME);
    file.make().map(drop)
}

/// Whether somebody listens on this socket file.
pub(crate) fn is_taken(path: &Path) -> bool {
    match connect(path) {
        Ok(_) => true,
        // A queue that is full is somebody's, and so is a socket that we may not use. Where we may not even look there is none for us.
        Err(error) => {
            let is_nobodys = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
            !is_nobodys && fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
        }
    }
}

/// Whether the socket file is only just being made: nobody has any rights to it yet.
pub(crate) fn is_being_made(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket() && found.mode() & 0o777 == 0)
}

/// Connects without waiting: where the queue of new connections is full, that is `WouldBlock`.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = lift(Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Two servers that start at once must not both find the name free. The lock ends with the descriptor.
fn lock_folder(path: &Path, patience: Duration) -> Option<OwnedFd> {
    let folder = rustix::fs::open(path.parent()?, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let deadline = Instant::now() + patience;
    while flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(folder)
}

impl SocketFile {
    /// Not made yet.
    fn of(config: &BusConfig) -> Result<Self, Error> {
        let group = config.group.as_deref().map(group_id).transpose()?;
        Ok(Self { path: real_path(&config.path), group, identity: None, process: std::process::id() })
    }

    fn refuse(&self, error: &io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("Cannot open the bus socket {}: {}", self.path.display(), reason(error)))
    }

    /// Makes the file, and a socket that nobody can connect to yet.
    fn make(&mut self) -> Result<Socket, Error> {
        let stands_in_the_way = |why: &str| Err(Error::new(ErrorKind::Io, format!("{} is {why}", self.path.display())));
        match fs::symlink_metadata(&self.path) {
            Ok(found) if !found.file_type().is_socket() => return stands_in_the_way("no socket: it is not replaced"),
            Ok(_) if is_taken(&self.path) => return stands_in_the_way("in use by another server"),
            _ => {}
        }
        let made = self.bind().map_err(|error| self.refuse(&error))?;
        if let Some(group) = self.group {
            chown(&self.path, None, Some(group)).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Error::new(
                    ErrorKind::Io,
                    format!("bus_group: only root and members of group {group} can give {} to it", self.path.display()),
                ),
                _ => self.refuse(&error),
            })?;
        }
        Ok(made)
    }

    fn bind(&mut self) -> io::Result<Socket> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = lift(Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?)?;
        // What the file will be made with.
        rustix::fs::fchmod(&socket, Mode::empty())?;
        // By its final name: the kernel knows a socket by the name that it was bound to, and whoever cleans folders asks the
        // kernel which files are in use.
        socket.bind(&address(&self.path)?)?;
        self.identity = identity(&self.path);
        Ok(socket)
    }

    /// From here on one can connect, and sees that by the rights.
    fn listen(&self, socket: Socket) -> Result<UnixListener, Error> {
        let mode = if self.group.is_some() { 0o660 } else { 0o600 };
        let opened = socket.listen(BACKLOG).and_then(|()| fs::set_permissions(&self.path, Permissions::from_mode(mode)));
        opened.map_err(|error| self.refuse(&error))?;
        Ok(socket.into())
    }

    /// The file is where it was made.
    pub(super) fn is_there(&self) -> bool {
        self.is_own_process() && self.identity.is_some() && identity(&self.path) == self.identity
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new socket where the file of the old one is gone. Never waits.
    ///
    /// # Errors
    /// As [`BoundSocket::bind`].
    pub(super) fn make_again(&mut self) -> Result<UnixListener, Error> {
        // What lies there now is not ours to remove.
        self.identity = None;
        if let Some(parent) = self.path.parent() {
            places::prepare_again(parent).map_err(|error| self.refuse(&error))?;
        }
        let _folder = lock_folder(&self.path, Duration::ZERO);
        let made = self.make().and_then(|socket| self.listen(socket));
        if made.is_err() && self.is_there() {
            let _ = fs::remove_file(&self.path);
            self.identity = None;
        }
        made
    }

    fn is_own_process(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            // It is gone either way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The same from wherever it is looked at, as long as the kernel takes so long a name.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = absolute.parent().and_then(|folder| folder.canonicalize().ok()).zip(absolute.file_name());
    let real = parts.map(|(folder, name)| folder.join(name));
    [real.as_ref(), Some(&absolute)]
        .into_iter()
        .flatten()
        .find(|path| SockAddr::unix(path).is_ok())
        .cloned()
        .unwrap_or_else(|| path.to_owned())
}

fn address(path: &Path) -> io::Result<SockAddr> {
    SockAddr::unix(path).map_err(|_| io::Error::other("a socket's path may have 107 bytes"))
}

fn identity(path: &Path) -> Option<Identity> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino(), found.created().ok()))
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
