//! How long a client waits before it connects again.

/// Bounds of the time before a reconnect: a server that refuses is not hammered, one that returns is found soon. In microseconds.
pub(super) const MIN_WAIT_US: u64 = 100_000;
pub(super) const MAX_WAIT_US: u64 = 60_000_000;

/// Time before reconnect number `attempt`, which counts from 1: exponential, with full jitter so that the clients of a
/// server that died do not return all at once.
pub fn backoff(base: u64, attempt: u32, random: &mut fastrand::Rng) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let window = base.saturating_mul(1 << doublings).clamp(MIN_WAIT_US, MAX_WAIT_US);
    random.u64(1..=window).max(MIN_WAIT_US)
}
