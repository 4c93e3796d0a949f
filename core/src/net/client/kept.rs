//! What clients keep of what their servers send, and of what waits to be sent: one sum over all of a group.
//!
//! Owns the sum, and who has to go while it is more than it may be: whoever keeps most, as with a server's connections. What a client
//! keeps is its machine's business.

use super::ClientShared;
use crate::hub::client::ClientMachine;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Default)]
pub(super) struct KeptByAll {
    sum: AtomicUsize,
}

/// One client's part of the sum.
#[derive(Default)]
pub(super) struct Kept {
    bytes: AtomicUsize,
    is_chosen: AtomicBool,
}

impl KeptByAll {
    pub(super) fn sum(&self) -> usize {
        self.sum.load(Ordering::Relaxed)
    }
}

impl Kept {
    /// Whether it has to go, which is said once.
    pub(super) fn is_chosen(&self) -> bool {
        self.is_chosen.load(Ordering::Relaxed) && self.is_chosen.swap(false, Ordering::Relaxed)
    }
}

impl ClientShared {
    /// Counts what the client keeps now, and chooses who has to go if that is too much.
    pub(super) fn count_kept(&self, machine: &ClientMachine) {
        let after = machine.kept();
        // Only under the lock on the machine, so nobody counts at the same time.
        let before = self.kept.bytes.load(Ordering::Relaxed);
        if after == before {
            return;
        }
        self.kept.bytes.store(after, Ordering::Relaxed);
        let sum = &self.fleet.kept.sum;
        if after < before {
            sum.fetch_sub(before - after, Ordering::Relaxed);
            return;
        }
        let sum = sum.fetch_add(after - before, Ordering::Relaxed) + (after - before);
        let bound = machine.settings().total_buffer_bytes;
        if sum > bound {
            self.relieve(sum - bound);
        }
    }

    /// Chooses those who keep most until the excess goes with them. Those who were chosen before and did not go yet count.
    fn relieve(&self, excess: usize) {
        let members = self.fleet.members();
        let mut holders: Vec<_> =
            members.clients.values().map(|member| (member.shared.kept.bytes.load(Ordering::Relaxed), &member.shared)).collect();
        holders.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let chosen_before = holders.iter().filter(|(_, client)| client.kept.is_chosen.load(Ordering::Relaxed));
        let mut freed: usize = chosen_before.map(|(bytes, _)| bytes).sum();
        for (bytes, client) in holders {
            if freed >= excess || bytes == 0 {
                return;
            }
            if !client.kept.is_chosen.swap(true, Ordering::Relaxed) {
                freed += bytes;
                client.wake.notify_one();
            }
        }
    }
}

impl Drop for ClientShared {
    fn drop(&mut self) {
        self.fleet.kept.sum.fetch_sub(*self.kept.bytes.get_mut(), Ordering::Relaxed);
    }
}
