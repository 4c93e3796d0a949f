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
        self.config.host.name.is_none() && self.config.bus == BusSocket::Default
    }

    /// What its bus socket may be named after. Servers that have no name of their own share the default name: all but the
    /// first have their port in it.
    pub(super) fn names(&self) -> Vec<String> {
        let name = self.name().to_owned();
        if self.may_choose_bus_path() { vec![name.clone(), format!("{name}-{}", self.port)] } else { vec![name] }
    }

    /// The other servers that this process knows.
    pub(super) fn siblings(&self) -> Vec<Rc<Self>> {
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
        let candidates = match &self.config.bus {
            BusSocket::None if is_needed => {
                return Err(Error::new(ErrorKind::Config, "'bus' => false leaves no way to PHP workers: it needs 'php_workers' => 0"));
            }
            BusSocket::None => return Ok(None),
            BusSocket::At(path) => vec![Ok(path.clone())],
            BusSocket::Named(name) => vec![bus::path_to_bind(name)],
            BusSocket::Default => self.names().iter().map(|name| bus::path_to_bind(name)).collect(),
        };
        let mut refusal = None;
        for candidate in candidates {
            match candidate {
                Ok(path) if !self.is_taken(&path) => {
                    self.bus_path.replace(Some(path.clone()));
                    return Ok(Some(path));
                }
                Ok(path) => refusal = Some(Error::new(ErrorKind::Io, format!("{} is in use by another server", path.display()))),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) if is_needed || !self.may_choose_bus_path() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "No bus socket");
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Whoever looks for the server by its name may find another one. To be said once it runs.
    pub(super) fn warn_of_namesakes(&self) {
        let own = self.bus_path.borrow();
        let Some(own) = own.as_deref().filter(|_| self.config.bus == BusSocket::Default) else { return };
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
