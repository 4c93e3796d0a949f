//! Where a server's bus socket is.

use super::Server;
use crate::config::BusSocket;
use heartbus_core::bus;
use heartbus_core::error::{Error, ErrorKind};
use std::path::PathBuf;

impl Server {
    /// Nobody has said where the bus socket is to be.
    pub(super) fn may_choose_bus_path(&self) -> bool {
        self.config.name.is_none() && self.config.bus == BusSocket::Default
    }

    /// Where the bus socket will be; none where there will be none. Servers that have no name of their own share the default
    /// name: all but the first have their port in it.
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
                let is_free = !self.may_choose_bus_path() || !bus::is_taken(&path);
                if is_free { Ok(path) } else { bus::path_to_bind(&format!("{}-{}", self.name(), self.port)) }
            }),
        };
        let may_go_without = self.may_choose_bus_path() && !is_needed;
        match path {
            Ok(path) if !may_go_without || !bus::is_taken(&path) => {
                self.bus_path.replace(Some(path.clone()));
                Ok(Some(path))
            }
            Ok(path) => {
                tracing::warn!(path = %path.display(), "No bus socket: another server has it");
                Ok(None)
            }
            Err(error) if may_go_without => {
                tracing::warn!(%error, "No bus socket");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
