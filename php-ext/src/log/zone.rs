//! PHP's time zone, for the times of log lines: other threads need it, and may not ask PHP.
//!
//! Owns what PHP's thread found out about it: when the clock of that zone is set forward or back, for more than a year.

use crate::shim;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 24 * 3600;
/// What is found out at once.
const DAYS: i64 = 400;

/// Null: nobody has asked PHP yet.
static ZONE: AtomicPtr<Zone> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// By name. Never freed, because another thread may be looking at one.
    static KNOWN: RefCell<HashMap<String, &'static Zone>> = RefCell::default();
}

struct Zone {
    name: String,
    /// From which moment on, in Unix seconds, it is how many seconds ahead of UTC. The first begins before all others.
    changes: Vec<(i64, i32)>,
    /// What is known ends there.
    until: i64,
}

fn zone() -> Option<&'static Zone> {
    // SAFETY: null, or a zone that is never freed.
    unsafe { ZONE.load(Ordering::Acquire).as_ref() }
}

/// The application may have chosen another: to be called on PHP's thread, while a request runs.
pub(super) fn follow() {
    // SAFETY: asks PHP, whose text lives until it is asked again.
    let name = unsafe {
        let name = shim::heartbus_time_zone();
        if name.is_null() {
            return;
        }
        CStr::from_ptr(name).to_bytes()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let is_known = |zone: &Zone| zone.name.as_bytes() == name && zone.until > now && zone.changes[0].0 <= now;
    if zone().is_some_and(is_known) {
        return;
    }
    let name = String::from_utf8_lossy(name).into_owned();
    let found = KNOWN.with_borrow_mut(|known| match known.get(&name) {
        Some(found) if is_known(found) => *found,
        _ => {
            let found: &'static Zone = Box::leak(Box::new(explore(name.clone(), now)));
            known.insert(name, found);
            found
        }
    });
    ZONE.store(ptr::from_ref(found).cast_mut(), Ordering::Release);
}

fn explore(name: String, now: i64) -> Zone {
    // SAFETY: asks PHP, as above.
    let offset = |at: i64| unsafe { shim::heartbus_time_zone_offset(at) };
    // Clocks that are set back between two starts of a day and forward again are in no zone.
    let mut at = now - DAY;
    let mut changes = vec![(at, offset(at))];
    for _ in 0..DAYS {
        let (next, before) = (at + DAY, changes[changes.len() - 1].1);
        let after = offset(next);
        if after != before {
            let (mut same, mut other) = (at, next);
            while other - same > 1 {
                let middle = same + (other - same) / 2;
                if offset(middle) == before { same = middle } else { other = middle }
            }
            changes.push((other, after));
        }
        at = next;
    }
    Zone { name, changes, until: at }
}

/// How a moment is written there: date and time.
pub(super) fn written(moment: SystemTime) -> String {
    let seconds = match moment.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -((before.duration() + Duration::from_nanos(999_999_999)).as_secs() as i64),
    };
    let offset = zone().map_or(0, |zone| {
        let later = zone.changes.partition_point(|(from, _)| *from <= seconds);
        zone.changes[later.saturating_sub(1)].1
    });
    let local = chrono::DateTime::from_timestamp(seconds + i64::from(offset), 0).unwrap_or_default();
    local.format("%Y-%m-%d %H:%M:%S").to_string()
}
