//! What clients keep of what their servers send, and of what waits to be sent: one sum over all of a group.
//!
//! Owns the sum, and who has to go while it is more than it may be: whoever keeps most, as with a server's connections. What a client
//! keeps is its machine's business.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Default)]
pub(super) struct KeptByAll {
    sum: AtomicUsize,
}

/// One client's part of the sum.
#[derive(Default)]
pub(super) struct KeptByOne {
    bytes: AtomicUsize,
    is_chosen: AtomicBool,
}

impl KeptByAll {
    pub(super) fn sum(&self) -> usize {
        self.sum.load(Ordering::Relaxed)
    }

    /// `one`, which nobody else counts at the same time, keeps `after` bytes now. Returns by how much all keep more than `bound`, if this
    /// made it more.
    pub(super) fn count(&self, one: &KeptByOne, after: usize, bound: usize) -> usize {
        let before = one.bytes.swap(after, Ordering::Relaxed);
        if after < before {
            self.sum.fetch_sub(before - after, Ordering::Relaxed);
            return 0;
        }
        let more = after - before;
        if more == 0 { 0 } else { (self.sum.fetch_add(more, Ordering::Relaxed) + more).saturating_sub(bound) }
    }

    /// It is gone.
    pub(super) fn forget(&self, one: &KeptByOne) {
        self.sum.fetch_sub(one.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl KeptByOne {
    /// Whether it has to go, which is said once.
    pub(super) fn is_chosen(&self) -> bool {
        self.is_chosen.load(Ordering::Relaxed) && self.is_chosen.swap(false, Ordering::Relaxed)
    }
}

/// Chooses those who keep most until the excess goes with them, and tells `choose` of each. Those who were chosen before and did not go
/// yet count.
pub(super) fn relieve<'a, T>(clients: impl Iterator<Item = (&'a KeptByOne, T)>, excess: usize, mut choose: impl FnMut(T)) {
    let mut holders: Vec<_> = clients.map(|(kept, client)| (kept.bytes.load(Ordering::Relaxed), kept, client)).collect();
    holders.sort_unstable_by_key(|(bytes, ..)| Reverse(*bytes));
    let chosen_before = holders.iter().filter(|(_, kept, _)| kept.is_chosen.load(Ordering::Relaxed));
    let mut freed: usize = chosen_before.map(|(bytes, ..)| bytes).sum();
    for (bytes, kept, client) in holders {
        if freed >= excess || bytes == 0 {
            return;
        }
        if !kept.is_chosen.swap(true, Ordering::Relaxed) {
            freed += bytes;
            choose(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_what_all_keep_and_whoever_makes_it_too_much_is_told_by_how_much() {
        let (all, one, other) = (KeptByAll::default(), KeptByOne::default(), KeptByOne::default());
        assert_eq!(
            [all.count(&one, 60, 100), all.count(&other, 50, 100), all.count(&other, 50, 100), all.count(&one, 20, 100)],
            [0, 10, 0, 0]
        );
        all.forget(&other);
        assert_eq!((all.sum(), all.count(&one, 101, 100)), (20, 1));
    }

    #[test]
    fn those_who_keep_most_are_chosen_until_it_is_enough_and_each_once() {
        let (all, clients) = (KeptByAll::default(), [30, 0, 50, 40].map(|bytes| (KeptByOne::default(), bytes)));
        for (one, bytes) in &clients {
            all.count(one, *bytes, usize::MAX);
        }
        let chosen = |excess| {
            let mut chosen = Vec::new();
            relieve(clients.iter().map(|(one, bytes)| (one, *bytes)), excess, |bytes| chosen.push(bytes));
            chosen
        };
        assert_eq!((chosen(60), chosen(90), chosen(91)), (vec![50, 40], vec![], vec![30]));
        assert_eq!(chosen(1000), [0; 0], "who keeps nothing stays");
        assert!(clients[2].0.is_chosen() && !clients[2].0.is_chosen());
    }
}
