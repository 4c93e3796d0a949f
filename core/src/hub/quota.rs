//! How many lines of one kind a log may have per second: whoever can cause them as often as it likes must neither fill a disk
//! with them nor keep a thread busy.
//!
//! Owns the counting, and how what was left out is told. Which kinds there are is the business of those who log.

use super::Now;
use tracing::{Level, error, info, warn};

/// Where the lines come from that tell what was left out.
pub(super) const MODULE: &str = module_path!();

const SECOND: u64 = 1_000_000;

/// What the count of those left out is told of, at which level, and how many there may be per second.
pub(super) type LineKind = (&'static str, Level, u32);

pub(super) struct LineQuotas<const KINDS: usize> {
    kinds: &'static [LineKind; KINDS],
    quotas: [Quota; KINDS],
    has_left_out: bool,
    /// When the counts of what was left out are told again.
    next_counts: u64,
}

#[derive(Copy, Clone, Default)]
struct Quota {
    since: u64,
    written: u32,
    left_out: u64,
}

impl<const KINDS: usize> LineQuotas<KINDS> {
    pub(super) fn new(kinds: &'static [LineKind; KINDS]) -> Self {
        Self { kinds, quotas: [Quota::default(); KINDS], has_left_out: false, next_counts: 0 }
    }

    /// Whether there may be one more line of this kind now. If not, it is counted.
    pub(super) fn may(&mut self, kind: usize, now: Now) -> bool {
        let (quota, (.., most)) = (&mut self.quotas[kind], self.kinds[kind]);
        if now.mono.saturating_sub(quota.since) >= SECOND {
            *quota = Quota { since: now.mono, written: 0, ..*quota };
        }
        let may = quota.written < most;
        if may {
            quota.written += 1;
        } else {
            quota.left_out += 1;
            self.has_left_out = true;
        }
        may
    }

    /// Tells what was left out, at most once per second; to be called more often than that.
    pub(super) fn tell_left_out(&mut self, now: Now) {
        if self.has_left_out && now.mono >= self.next_counts {
            self.tell_counts();
            self.next_counts = now.mono + SECOND;
        }
    }

    /// Tells what was left out and not told yet; to be called at the end. Returns whether there was something.
    pub(super) fn tell_counts(&mut self) -> bool {
        let is_any = std::mem::take(&mut self.has_left_out);
        for (quota, (of, level, _)) in self.quotas.iter_mut().zip(self.kinds) {
            let count = std::mem::take(&mut quota.left_out);
            if count == 0 {
                continue;
            }
            match *level {
                Level::ERROR => error!(of, count, "Log messages left out"),
                Level::WARN => warn!(of, count, "Log messages left out"),
                _ => info!(of, count, "Log messages left out"),
            }
        }
        is_any
    }
}
