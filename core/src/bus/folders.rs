//! Finding a server by its name, in the folders where the sockets of servers usually are.

use super::{Bus, check_name, default_paths};
use crate::error::{Error, ErrorKind};
use crate::net::bus::{search, socket};
use std::path::{Path, PathBuf};
use std::time::Duration;

impl Bus {
    /// Connects to the server of that name, at the first of its [`default_paths`] where one answers. Where none does, the only one
    /// that answers in a folder which a service manager made, or for root in another user's, will do.
    ///
    /// # Errors
    /// As [`Bus::connect`], and `Io` when several answer there; `Config` for a name that no server can have.
    pub fn find(name: &str, timeout: Duration) -> Result<Self, Error> {
        check_name(name)?;
        let paths = default_paths(name);
        for path in &paths {
            match Self::connect(path, timeout) {
                Ok(bus) => return Ok(bus),
                // One that we may not use, or that hangs, is the one that was meant.
                Err(error) if is_taken(path) => return Err(error),
                Err(_) => {}
            }
        }
        match &search::elsewhere(name)[..] {
            [only] => Self::connect(only, timeout),
            [] => {
                let others = search::others(name);
                let known = if others.is_empty() { String::new() } else { format!(" (others: {})", listed(&others, ", ")) };
                Err(Error::new(ErrorKind::Io, format!("No Heartbus server at {}{known}", listed(&paths, " or "))))
            }
            several => {
                let text =
                    format!("Several servers are named {name}, and none of them is ours: connect to one of {}", listed(several, ", "));
                Err(Error::new(ErrorKind::Io, text))
            }
        }
    }
}

/// Whether somebody listens on this socket file.
pub fn is_taken(path: &Path) -> bool {
    socket::is_taken(path)
}

fn listed(paths: &[PathBuf], between: &str) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(between)
}
