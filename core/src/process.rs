//! The number of this process: how things tell whether they belong to it, or to the process that it was forked off; and how its
//! allocator is asked to give memory back.
//!
//! Owns the number, and the way to the allocator. Does not know who forks, nor when there is memory to give back.

use std::sync::OnceLock;
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

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// For hosts whose allocator keeps what was freed: an I/O thread of a server has this called, on a thread made for that, some time after
/// much of what it had kept was freed. The first one counts.
pub fn give_back_memory_with(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

pub(crate) fn give_back_memory() -> Option<fn()> {
    GIVE_BACK.get().copied()
}
