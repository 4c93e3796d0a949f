//! A worker's time without its engine, and when somebody is told of it.

use heartbus_core::error::Error;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an engine may be on its way before somebody is told that a worker misses it, and how often it is said again.
const PATIENCE: Duration = Duration::from_secs(2);
const SILENT_TIME: Duration = Duration::from_secs(30);

/// A worker's time without its engine: since when, and when it was last told.
#[derive(Default)]
pub(super) struct Absence {
    began: Cell<Option<Instant>>,
    told: Cell<Option<Instant>>,
}

impl Absence {
    pub(super) fn goes_on(&self, path: &Path, error: &Error) {
        let now = Instant::now();
        let began = self.began.get().unwrap_or(now);
        self.began.set(Some(began));
        let is_due = self.told.get().map_or(now >= began + PATIENCE, |told| now >= told + SILENT_TIME);
        if is_due {
            self.told.set(Some(now));
            let seconds = (now - began).as_secs();
            tracing::error!(socket = %path.display(), %error, seconds, "A PHP worker cannot reach its engine: it is told nothing");
        }
    }

    pub(super) fn is_over(&self, path: &Path) {
        self.began.set(None);
        if self.told.take().is_some() {
            tracing::warn!(socket = %path.display(), "A PHP worker has its engine again");
        }
    }
}
