//! The number of this process: how things tell whether they belong to it, or to the process that it was forked off.
//!
//! Owns the number. Does not know who forks.

use std::sync::atomic::{AtomicU32, Ordering};

/// 0: to be asked for.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// Asks the kernel each time, which costs more than many a call that wants to know it, unless the host keeps it.
pub fn id() -> u32 {
    match KEPT.load(Ordering::Relaxed) {
        0 => std::process::id(),
        kept => kept,
    }
}

/// For hosts that hear of every fork: from now on the number is kept. To be called again in every process that is forked
/// off this one, before anything else happens there.
pub fn keep_id() {
    KEPT.store(std::process::id(), Ordering::Relaxed);
}
