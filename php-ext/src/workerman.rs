//! Workerman as the extension sees it. What it takes of PHP is in `loops/workerman.php`.

use crate::glue::Glue;
use crate::identity::Identity;
use crate::php::{Outcome, class_named, text, value};
use ext_php_rs::types::Zval;

pub(crate) struct Workerman(Glue);

impl Workerman {
    pub(crate) const fn new() -> Self {
        Self(Glue::new(include_str!("loops/workerman.php"), c"heartbus/loops/workerman.php"))
    }

    /// Whether `Workerman\Worker` can be used; with `autoload` it may be loaded for that.
    pub(crate) fn exists(autoload: bool) -> Outcome<bool> {
        Ok(class_named(r"Workerman\Worker", autoload)?.is_some())
    }

    /// Whether this process is a worker of Workerman's.
    pub(crate) fn is_running(&self) -> Outcome<bool> {
        Ok(Self::exists(false)? && self.0.call("running", [])?.is_true())
    }

    /// A worker without a server: `start` runs in its process.
    pub(crate) fn add_worker(&self, name: &str, start: Zval) -> Outcome {
        self.0.call("worker", [text(name), start]).map(drop)
    }

    /// A worker that listens on `address` by itself. Before it is forked, `check` throws when it could not start.
    pub(crate) fn add_server(&self, name: &str, address: &str, identity: &Identity, closures: ServerClosures) -> Outcome {
        let ServerClosures { check, start, stop } = closures;
        let (user, group) = (text(&*identity.user), text(&*identity.group));
        self.0.call("server", [text(name), user, group, text(address), check, start, stop]).map(drop)
    }

    /// Workers beside a server's, for its callbacks.
    pub(crate) fn add_workers(&self, name: &str, count: i64, identity: &Identity, closures: WorkerClosures) -> Outcome {
        let WorkerClosures { start, stop, is_busy } = closures;
        let (user, group) = (text(&*identity.user), text(&*identity.group));
        self.0.call("workers", [text(name), user, group, value(count), start, stop, is_busy]).map(drop)
    }

    /// The command of this process starts Workerman.
    pub(crate) fn is_starting(&self) -> Outcome<bool> {
        Ok(self.0.call("starting", [])?.is_true())
    }

    /// Returns in no process, unless Workerman throws.
    pub(crate) fn run_all(&self, check: Zval) -> Outcome {
        self.0.call("run", [check]).map(drop)
    }

    pub(crate) fn stop_all(&self) -> Outcome {
        self.0.call("stop", []).map(drop)
    }

    pub(crate) fn watch(&self, stream: Zval, closures: HostClosures) -> Outcome {
        let HostClosures { ready, own, statistics, connections, close_doors, patience, waits, stop } = closures;
        self.0.call("watch", [stream, ready, own, statistics, connections, close_doors, patience, waits, stop]).map(drop)
    }
}

pub(crate) struct ServerClosures {
    /// With the user and the group that it would run as. It returns whether a reload replaces the worker.
    pub check: Zval,
    pub start: Zval,
    pub stop: Zval,
}

pub(crate) struct WorkerClosures {
    /// With the number of the worker among them.
    pub start: Zval,
    /// With true when the worker is replaced and its server goes on.
    pub stop: Zval,
    /// Whether a graceful stop has to wait.
    pub is_busy: Zval,
}

/// What Workerman's commands ask of all servers in a worker.
pub(crate) struct HostClosures {
    /// Tells what waits.
    pub ready: Zval,
    /// Outgoing connections, which nobody waits for, and timers.
    pub own: Zval,
    /// What to add to `ConnectionInterface::$statistics`.
    pub statistics: Zval,
    /// The first open connections, each as the arguments of a row.
    pub connections: Zval,
    /// No new connections.
    pub close_doors: Zval,
    /// How many seconds a graceful stop waits; null: without end.
    pub patience: Zval,
    /// Says in the log whom a graceful stop waits for, with so many connections of the application's own; or that it does not
    /// wait any longer.
    pub waits: Zval,
    pub stop: Zval,
}
