//! The two clocks: the one that PHP tells the time by, and the one that nobody sets, which measures.

use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// As `microtime(true)`: to be shown, never to be subtracted from.
pub(crate) fn microtime() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() as f64 + f64::from(now.subsec_micros()) / 1e6
}

/// Seconds of the machine's monotonic clock, the same for all its processes.
pub(crate) fn monotonic() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
