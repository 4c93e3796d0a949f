//! Token buckets: how many frames a connection, or an address, may send.
//!
//! Owns the arithmetic of one bucket and the table of buckets per address. Has no clock: `now` is passed in.

use dashmap::DashMap;
use std::net::IpAddr;

/// What a bucket holds and how fast it fills again.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Frames that may come at once.
    pub capacity: u32,
    /// Frames per second in the long run.
    pub refill_per_second: f64,
    pub by: RateLimitBy,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RateLimitBy {
    /// Each connection has its own bucket.
    Connection,
    /// All connections of an address share one; behind one NAT they share the limit too.
    Ip,
}

#[derive(Copy, Clone, Debug)]
pub struct Bucket {
    tokens: f64,
    refilled: u64,
}

impl Bucket {
    pub fn full(limit: &RateLimit, now: u64) -> Bucket {
        Bucket { tokens: f64::from(limit.capacity), refilled: now }
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

#[cfg(test)]
mod tests {
    use super::*;

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
