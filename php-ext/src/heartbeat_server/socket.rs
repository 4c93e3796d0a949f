//! Where a server's bus socket is.

use super::{SERVERS, Server};
use crate::config::BusSocket;
use heartbus_core::bus;
use heartbus_core::error::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

impl Server {
    /// Nobody has said where the bus socket is to be.
    pub(super) fn may_choose_bus_path(&self) -> bool {
        self.config.name.is_none() && self.config.bus == BusSocket::Default
    }

    /// What its bus socket may be named after. Servers that have no name of their own share the default name: all but the
    /// first have their port in it.
    pub(super) fn names(&self) -> Vec<String> {
        let name = self.name().to_owned();
        if self.may_choose_bus_path() { vec![format!("{name}-{}", self.port), name] } else { vec![name] }
    }

    /// The other servers that this process knows.
    pub(super) fn siblings(&self) -> Vec<Rc<Server>> {
        let all: Vec<_> = SERVERS.with_borrow(|servers| servers.iter().filter_map(Weak::upgrade).collect());
        all.into_iter().filter(|other| !std::ptr::eq(&raw const **other, self)).collect()
    }

    /// Another server has the socket, or is about to.
    fn is_taken(&self, path: &Path) -> bool {
        bus::is_taken(path) || self.siblings().iter().any(|other| other.bus_path.borrow().as_deref() == Some(path))
    }

    /// Where the bus socket will be; none where there will be none.
    pub(super) fn choose_bus_path(&self, is_needed: bool) -> Result<Option<PathBuf>, Error> {
        if let Some(path) = &*self.bus_path.borrow() {
            return Ok(Some(path.clone()));
        }
        let path = match &self.config.bus {
            BusSocket::None if is_needed => {
                return Err(Error::new(ErrorKind::Config, "'bus' => false leaves no way to PHP workers: it needs 'php_workers' => 0"));
            }
            BusSocket::None => return Ok(None),
            BusSocket::At(path) => Ok(path.clone()),
            BusSocket::Default => bus::path_to_bind(self.name()).and_then(|path| {
                let is_free = !self.may_choose_bus_path() || !self.is_taken(&path);
                if is_free { Ok(path) } else { bus::path_to_bind(&format!("{}-{}", self.name(), self.port)) }
            }),
        };
        let may_go_without = self.may_choose_bus_path() && !is_needed;
        match path {
            Ok(path) if !self.is_taken(&path) => {
                self.warn_of_namesakes(&path);
                self.bus_path.replace(Some(path.clone()));
                Ok(Some(path))
            }
            Ok(path) if may_go_without => {
                tracing::warn!(path = %path.display(), "No bus socket: another server has it");
                Ok(None)
            }
            Ok(path) => Err(Error::new(ErrorKind::Io, format!("{} is in use by another server", path.display()))),
            Err(error) if may_go_without => {
                tracing::warn!(%error, "No bus socket");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whoever looks for the server by its name may find another one.
    fn warn_of_namesakes(&self, own: &Path) {
        if self.config.bus != BusSocket::Default {
            return;
        }
        let others = bus::default_paths(self.name()).into_iter().filter(|path| path != own && self.is_taken(path));
        for other in others {
            tracing::warn!(
                name = self.name(),
                socket = %own.display(),
                other = %other.display(),
                "Two servers have the same name: who does not say which of the two sockets he means may reach the other one"
            );
        }
    }
}
