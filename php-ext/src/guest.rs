//! Loops of others that have no processes of their own: Revolt and ReactPHP. We are guests there: they watch our stream
//! while a server or a client of this process lives, and end when nothing is left to wait for.

use crate::exception;
use crate::glue::Glue;
use crate::php::{Outcome, Thrown, class_named};
use ext_php_rs::types::Zval;
use heartbus_core::error::ErrorKind;

pub(crate) struct Guest {
    /// The name people know it by.
    pub name: &'static str,
    class: &'static str,
    glue: Glue,
}

impl Guest {
    pub(crate) const fn revolt() -> Self {
        Self { name: "Revolt", class: r"Revolt\EventLoop", glue: Glue::new(include_str!("loops/revolt.php"), c"heartbus/loops/revolt.php") }
    }

    pub(crate) const fn react() -> Self {
        Self {
            name: "ReactPHP",
            class: r"React\EventLoop\Loop",
            glue: Glue::new(include_str!("loops/reactphp.php"), c"heartbus/loops/reactphp.php"),
        }
    }

    /// Whether the library can be used; with `autoload` it may be loaded for that.
    pub(crate) fn exists(&self, autoload: bool) -> Outcome<bool> {
        Ok(class_named(self.class, autoload)?.is_some())
    }

    /// Throws what a configuration deserves that asks for it.
    pub(crate) fn is_missing(&self, setting: &str) -> Thrown {
        let text = format!("'loop' => '{setting}' needs {}: there is no class {}", self.name, self.class);
        exception::fail(ErrorKind::Config, text)
    }

    /// Whether the call that runs now comes from this loop.
    pub(crate) fn is_running(&self) -> Outcome<bool> {
        Ok(self.exists(false)? && self.glue.call("running", [])?.is_true())
    }

    /// Whether the application uses this loop: it runs, or can be expected to.
    pub(crate) fn is_used(&self) -> Outcome<bool> {
        Ok(self.exists(false)? && self.glue.call("used", [])?.is_true())
    }

    pub(crate) fn watch(&self, stream: Zval, ready: Zval) -> Outcome {
        self.glue.call("watch", [stream, ready]).map(drop)
    }

    pub(crate) fn unwatch(&self) -> Outcome {
        self.glue.call("unwatch", []).map(drop)
    }
}
