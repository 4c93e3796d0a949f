//! Token buckets: how many frames a connection, an address, or everybody together may send.
//!
//! Owns the arithmetic of one bucket, the table of buckets per address, and the one bucket that all threads share. Has no clock: `now` is passed in.

use crate::settings::RateLimit;
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Copy, Clone, Debug)]
pub struct Bucket {
    tokens: f64,
    refilled: u64,
}

impl Bucket {
    pub fn full(limit: &RateLimit, now: u64) -> Self {
        Self { tokens: f64::from(limit.capacity), refilled: now }
    }

    /// Takes one token. A refused call takes nothing.
    pub fn take(&mut self, limit: &RateLimit, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.refilled) as f64 / 1e6;
        self.tokens = (self.tokens + elapsed * limit.refill_per_second).min(f64::from(limit.capacity));
        // Threads read their clocks once per pass: an older reading must not make the same time count twice.
        self.refilled = self.refilled.max(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// Undoes a [`Bucket::take`] that came to nothing.
    pub fn put_back(&mut self) {
        self.tokens += 1.0;
    }

    /// A full bucket is the same as none.
    fn is_full(&self, limit: &RateLimit, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.refilled) as f64 / 1e6;
        self.tokens + elapsed * limit.refill_per_second >= f64::from(limit.capacity)
    }
}

/// Buckets per address. Bounded by the addresses that sent something within the time a bucket takes to fill.
#[derive(Default)]
pub struct AddressBuckets(DashMap<IpAddr, Bucket>);

impl AddressBuckets {
    pub fn take(&self, address: IpAddr, limit: &RateLimit, now: u64) -> bool {
        self.0.entry(address).or_insert_with(|| Bucket::full(limit, now)).take(limit, now)
    }

    pub fn put_back(&self, address: IpAddr) {
        if let Some(mut bucket) = self.0.get_mut(&address) {
            bucket.put_back();
        }
    }

    /// Forgets the buckets that are full again. With a refill rate of 0 a bucket never is, and its address stays refused.
    pub fn forget_full(&self, limit: &RateLimit, now: u64) {
        self.0.retain(|_, bucket| !bucket.is_full(limit, now));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One bucket for all connections on all threads: so many frames in a second, no more of them at once.
///
/// Kept as the moment at which it will be full again, in nanoseconds: one number, so threads need no lock for it.
#[derive(Debug)]
pub struct SharedBucket {
    /// How long a token takes to come back. 0 means that there is no limit.
    token_ns: u64,
    full_at_ns: AtomicU64,
}

/// How long an empty bucket takes to fill, in nanoseconds.
const FILLING_NS: u64 = 1_000_000_000;

impl SharedBucket {
    /// 0 means no limit.
    pub fn new(per_second: u64) -> Self {
        Self { token_ns: FILLING_NS.checked_div(per_second).unwrap_or(0), full_at_ns: AtomicU64::new(0) }
    }

    /// Takes one token. A refused call takes nothing.
    pub fn take(&self, now: u64) -> bool {
        if self.token_ns == 0 {
            return true;
        }
        let now = now * 1000;
        let after = |full_at: u64| full_at.max(now) + self.token_ns;
        self.full_at_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| (after(full_at) <= now + FILLING_NS).then(|| after(full_at)))
            .is_ok()
    }

    /// Undoes a [`SharedBucket::take`] that came to nothing.
    pub fn put_back(&self) {
        self.full_at_ns.fetch_sub(self.token_ns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RateLimitBy;

    const LIMIT: RateLimit = RateLimit { capacity: 3, refill_per_second: 2.0, by: RateLimitBy::Connection };
    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_new_bucket_is_full_and_an_empty_one_refuses() {
        let mut bucket = Bucket::full(&LIMIT, 0);
        assert_eq!([true; 3], std::array::from_fn(|_| bucket.take(&LIMIT, 0)));
        assert!(!bucket.take(&LIMIT, 0));
    }

    #[test]
    fn tokens_come_back_at_the_refill_rate_and_never_above_the_capacity() {
        let mut bucket = Bucket::full(&LIMIT, 0);
        while bucket.take(&LIMIT, 0) {}
        assert!(!bucket.take(&LIMIT, SECOND / 2 - 1));
        assert!(bucket.take(&LIMIT, SECOND));
        let taken = (0..10).filter(|_| bucket.take(&LIMIT, 100 * SECOND)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_refused_call_takes_nothing() {
        let mut bucket = Bucket::full(&LIMIT, 0);
        while bucket.take(&LIMIT, 0) {}
        for now in (0..SECOND / 2).step_by(10_000) {
            assert!(!bucket.take(&LIMIT, now));
        }
        assert!(bucket.take(&LIMIT, SECOND / 2 + 1));
    }

    #[test]
    fn readings_of_different_threads_that_alternate_make_no_tokens() {
        let mut bucket = Bucket::full(&LIMIT, SECOND);
        let taken = (0..1000).filter(|n| bucket.take(&LIMIT, SECOND + (n % 2) * 100_000)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn the_shared_bucket_gives_so_many_at_once_and_so_many_per_second() {
        for rate in [1, 3, 7, 1000] {
            let bucket = SharedBucket::new(rate);
            let taken = |now: u64| (0..5000).filter(|_| bucket.take(now)).count() as u64;
            assert_eq!((taken(SECOND), taken(SECOND)), (rate, 0), "{rate}");
            assert_eq!(taken(SECOND + SECOND / 2), rate / 2, "{rate}");
            assert_eq!((taken(100 * SECOND), taken(100 * SECOND + SECOND)), (rate, rate), "{rate}");
            bucket.put_back();
            assert_eq!(taken(101 * SECOND), 1, "{rate}");
        }
    }

    #[test]
    fn the_shared_bucket_is_no_limit_at_zero_and_readings_that_go_back_make_no_tokens() {
        assert!((0..100_000).all(|_| SharedBucket::new(0).take(1)));
        let bucket = SharedBucket::new(3);
        let taken = (0..1000).filter(|n| bucket.take(SECOND + (n % 2) * 100_000)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn threads_together_take_no_more_from_the_shared_bucket_than_there_is() {
        let bucket = SharedBucket::new(500);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.take(SECOND)).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 500);
    }

    #[test]
    fn addresses_have_buckets_of_their_own_and_full_ones_are_forgotten() {
        let buckets = AddressBuckets::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        while buckets.take(a, &LIMIT, 0) {}
        assert!(buckets.take(b, &LIMIT, 0));
        buckets.forget_full(&LIMIT, SECOND);
        assert_eq!(buckets.len(), 1, "b is full again after half a second");
        buckets.forget_full(&LIMIT, 2 * SECOND);
        assert!(buckets.is_empty());
    }
}
