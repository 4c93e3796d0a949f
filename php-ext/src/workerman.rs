//! Workerman as the extension sees it. What it takes of PHP is in `loops/workerman.php`.

use crate::classes::class_named;
use crate::glue::Glue;
use crate::php::{Outcome, text, value};
use ext_php_rs::types::Zval;

pub struct Workerman(Glue);

impl Workerman {
    pub const fn new() -> Workerman {
        Workerman(Glue::new(include_str!("loops/workerman.php"), c"heartbus/loops/workerman.php"))
    }

    /// Whether `Workerman\Worker` can be used; with `autoload` it may be loaded for that.
    pub fn exists(autoload: bool) -> Outcome<bool> {
        Ok(class_named(r"Workerman\Worker", autoload)?.is_some())
    }

    /// Whether this process is a worker of Workerman's.
    pub fn is_running(&self) -> Outcome<bool> {
        Ok(Workerman::exists(false)? && self.0.call("running", [])?.is_true())
    }

    /// A worker without a server: `start` runs in its process.
    pub fn add_worker(&self, name: &str, start: Zval) -> Outcome {
        self.0.call("worker", [text(name), start]).map(drop)
    }

    /// A worker that listens on `address` by itself. Before it is forked, `check` throws when it could not start.
    pub fn add_server(&self, name: &str, address: &str, is_reloadable: bool, closures: ServerClosures) -> Outcome {
        let ServerClosures { check, start, stop } = closures;
        self.0.call("server", [text(name), text(address), value(is_reloadable), check, start, stop]).map(drop)
    }

    /// Workers beside a server's, for its callbacks.
    pub fn add_workers(&self, name: &str, count: i64, closures: WorkerClosures) -> Outcome {
        let WorkerClosures { start, stop, is_busy } = closures;
        self.0.call("workers", [text(name), value(count), start, stop, is_busy]).map(drop)
    }

    /// Returns in no process, unless Workerman throws.
    pub fn run_all(&self, check: Zval) -> Outcome {
        self.0.call("run", [check]).map(drop)
    }

    pub fn stop_all(&self) -> Outcome {
        self.0.call("stop", []).map(drop)
    }

    pub fn watch(&self, stream: Zval, closures: HostClosures) -> Outcome {
        let HostClosures { ready, own, statistics, connections, close_doors, stop } = closures;
        self.0.call("watch", [stream, ready, own, statistics, connections, close_doors, stop]).map(drop)
    }
}

pub struct ServerClosures {
    pub check: Zval,
    pub start: Zval,
    pub stop: Zval,
}

pub struct WorkerClosures {
    pub start: Zval,
    /// With true when the worker is replaced and its server goes on.
    pub stop: Zval,
    /// Whether a graceful stop has to wait.
    pub is_busy: Zval,
}

/// What Workerman's commands ask of all servers in a worker.
pub struct HostClosures {
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
    pub stop: Zval,
}
