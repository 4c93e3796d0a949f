//! A server of which this process has no part: the script made it, and other processes that were forked off the script run
//! it. It is asked over its bus socket; what only its own processes can do is refused.

use super::Server;
use crate::backend::{ANSWER_TIME, Backend, Line};
use crate::config::BusSocket;
use crate::exception;
use crate::php::{Outcome, object};
use crate::runtime::{Runtime, Watcher};
use crate::shim;
use ext_php_rs::ffi::zend_object;
use heartbus_core::bus::{self, Bus};
use heartbus_core::error::{Error, ErrorKind};
use std::path::PathBuf;
use std::rc::Rc;

/// Tells a process from the one that it was forked off.
pub(super) fn generation() -> u32 {
    // SAFETY: reads a number.
    unsafe { shim::heartbus_generation() }
}

impl Server {
    /// Other processes may run it, this one does not.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let has_part = self.serves_in.get() == Some(generation()) || self.engine.borrow().is_some();
        !has_part && (self.made_in != generation() || self.prepared_in.get().is_some())
    }

    /// Other processes run it, that is certain: Workerman forked this one for something else.
    fn was_prepared_elsewhere(&self) -> bool {
        self.prepared_in.get().is_some_and(|process| process != generation()) && self.is_elsewhere()
    }

    pub(super) fn check_not_elsewhere(&self, call: &str) -> Outcome {
        if self.was_prepared_elsewhere() { Err(self.is_not_for(call)) } else { Ok(()) }
    }

    /// Whoever waits for what the server tells would wait in vain.
    pub(crate) fn check_is_told(&self, call: &str) -> Outcome {
        if self.is_elsewhere() && self.prepared_in.get() != Some(generation()) { Err(self.is_not_for(call)) } else { Ok(()) }
    }

    pub(super) fn is_not_for(&self, call: &str) -> crate::php::Thrown {
        exception::fail(
            ErrorKind::WrongProcess,
            format!("{call} is for the processes that run the server at {}: this is another one of the same script", self.address()),
        )
    }

    /// What the server stands on, as far as this process can reach it; none before it is started, or prepared, by this one.
    pub(crate) fn backend(&self) -> Outcome<Option<Rc<Backend>>> {
        self.reach().map_err(|error| {
            let about = format!("The server at {} runs in other processes, if at all, and cannot be asked from this one", self.address());
            exception::raise(&Error::new(ErrorKind::WrongProcess, format!("{about}: {error}")))
        })
    }

    /// As [`Server::backend`], for what has an answer before the start as well: where nobody answers, and nobody is known to have
    /// started it, it has not been started.
    pub(crate) fn backend_if_started(&self) -> Outcome<Option<Rc<Backend>>> {
        let may_be_idle = self.prepared_in.get().is_none() && self.config.bus != BusSocket::None;
        if may_be_idle && self.is_elsewhere() { Ok(self.reach().unwrap_or_default()) } else { self.backend() }
    }

    fn reach(&self) -> Result<Option<Rc<Backend>>, Error> {
        if let Some(engine) = &*self.engine.borrow() {
            return Ok(Some(engine.clone()));
        }
        if !self.is_elsewhere() {
            return Ok(None);
        }
        if let Some(remote) = self.remote.borrow().as_ref().filter(|remote| remote.is_own_process()) {
            return Ok(Some(remote.clone()));
        }
        match self.find() {
            Ok(bus) => {
                let remote = Rc::new(Backend::Elsewhere(Box::new(Line::of_asker(bus))));
                Ok(Some(self.remote.borrow_mut().insert(remote).clone()))
            }
            // Where Workerman's workers are only being made, nothing runs yet.
            Err(_) if self.prepared_in.get() == Some(generation()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The server may not be where one of its name is usually: it is known by its port.
    fn find(&self) -> Result<Bus, Error> {
        let chosen = self.bus_path.borrow().clone();
        let paths: Vec<PathBuf> = match (chosen, &self.config.bus) {
            (Some(path), _) => vec![path],
            (None, BusSocket::At(path)) => vec![path.clone()],
            (None, BusSocket::None) => return Err(Error::new(ErrorKind::Io, "it has no bus socket ('bus' => false)")),
            (None, BusSocket::Named(name)) => bus::default_paths(name),
            (None, BusSocket::Default) => self.names().iter().flat_map(|name| bus::default_paths(name)).collect(),
        };
        let mut refusal = None;
        for path in paths {
            let found = Bus::connect(&path, ANSWER_TIME).and_then(|mut bus| {
                let port = bus.welcome()?.listen.port();
                if i64::from(port) == self.port { Ok(bus) } else { Err(another_server(&path, port)) }
            });
            match found {
                Ok(bus) => return Ok(bus),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::new(ErrorKind::Io, "there is no folder where its bus socket could be")))
    }

    /// Lets a timer run in a process that has no part of the server. False where no loop would run it.
    pub(super) fn run_timer_here(self: &Rc<Self>, id: i64, this: *mut zend_object) -> Outcome<bool> {
        let runtime = Runtime::current();
        let is_driven =
            runtime.is_looping() || runtime.watcher() != Watcher::Nobody || runtime.join_running_loop(self.config.event_loop)?;
        if is_driven {
            if runtime.object_of(&**self).is_none() {
                runtime.add_server(self.clone(), object(this));
            }
            self.timers.run_one(id, std::time::Instant::now());
            runtime.set_alarm();
        }
        Ok(is_driven)
    }

    pub(super) fn needs_timer_here(&self) -> bool {
        self.was_prepared_elsewhere()
    }
}

pub(super) fn another_server(path: &std::path::Path, port: u16) -> Error {
    Error::new(ErrorKind::Io, format!("{} is the bus socket of the server on port {port}", path.display()))
}
