//! The time as PHP tells it.

use std::time::{SystemTime, UNIX_EPOCH};

/// As `microtime(true)`.
pub fn microtime() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() as f64 + f64::from(now.subsec_micros()) / 1e6
}
