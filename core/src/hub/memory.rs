//! What strangers can make the server keep: bytes that exist, each counted once, by what they are kept for.
//!
//! Owns the sums, the bound on all of them together, and how much of it each part may take. A part that has its share full
//! refuses or waits by itself, so that it does not take what the others need. Does not know what the bytes are.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What bytes are kept for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Frames that are not whole yet, or that the host has no room for, as long as the memory that they take.
    Input,
    /// What is to be written to connections: payloads, however many receivers they have, replies, and the queues of both.
    Output,
    /// Ids and metadata of the nodes that are online.
    Nodes,
    /// Payloads that wait for the host.
    Events,
    /// Ids and metadata of nodes that have left and are in events that wait for the host.
    Departed,
    /// Frames and answers of other processes on the bus socket.
    Bus,
    /// Events that wait for observers, with their payloads and the texts of their nodes.
    Observers,
    /// Topics, subscriptions, and publications that are kept.
    Topics,
}

impl Part {
    pub const ALL: [Self; 8] =
        [Self::Input, Self::Output, Self::Nodes, Self::Events, Self::Departed, Self::Bus, Self::Observers, Self::Topics];
}

/// The sums at one moment, each that of the [`Part`] of its name.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub total: usize,
    pub input: usize,
    pub output: usize,
    pub nodes: usize,
    pub events: usize,
    pub departed: usize,
    pub bus: usize,
    pub observers: usize,
    pub topics: usize,
}

#[derive(Debug)]
pub struct Memory {
    bound: usize,
    parts: [AtomicUsize; Part::ALL.len()],
}

/// For what belongs to no server.
static NOBODYS: Memory = Memory::new(usize::MAX);

impl Memory {
    pub const fn new(bound: usize) -> Self {
        Self { bound, parts: [const { AtomicUsize::new(0) }; Part::ALL.len()] }
    }

    pub(super) fn nobodys() -> &'static Self {
        &NOBODYS
    }

    pub fn bound(&self) -> usize {
        self.bound
    }

    pub fn add(&self, part: Part, bytes: usize) {
        self.sum(part).fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn remove(&self, part: Part, bytes: usize) {
        self.sum(part).fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What was counted as `before` is `after` now. Costs nothing where both are the same.
    pub fn change(&self, part: Part, before: usize, after: usize) {
        if after > before {
            self.add(part, after - before);
        } else if before > after {
            self.remove(part, before - after);
        }
    }

    /// Where one alone, under a lock, counts a part.
    pub fn set(&self, part: Part, bytes: usize) {
        self.sum(part).store(bytes, Ordering::Relaxed);
    }

    pub fn of(&self, part: Part) -> usize {
        // Two threads may count a thing off before they have counted it: it is less than nothing for a moment then.
        (self.sum(part).load(Ordering::Relaxed) as isize).max(0) as usize
    }

    pub fn total(&self) -> usize {
        Part::ALL.into_iter().map(|part| self.of(part)).sum()
    }

    pub fn stats(&self) -> MemoryStats {
        MemoryStats {
            total: self.total(),
            input: self.of(Part::Input),
            output: self.of(Part::Output),
            nodes: self.of(Part::Nodes),
            events: self.of(Part::Events),
            departed: self.of(Part::Departed),
            bus: self.of(Part::Bus),
            observers: self.of(Part::Observers),
            topics: self.of(Part::Topics),
        }
    }

    /// By how much all parts together are more than they may be.
    pub fn excess(&self) -> usize {
        self.total().saturating_sub(self.bound)
    }

    /// How much a part may take. What connections hold may be all that the others leave, which is a quarter at least.
    pub fn share(&self, part: Part) -> usize {
        match part {
            Part::Input | Part::Output => self.bound,
            Part::Nodes => self.bound / 8 * 3,
            Part::Events => self.bound / 32 * 5,
            Part::Departed | Part::Bus | Part::Topics => self.bound / 16,
            Part::Observers => self.bound / 32,
        }
    }

    /// What connections may hold whatever the others do.
    pub fn share_of_connections(&self) -> usize {
        self.bound / 4
    }

    fn sum(&self, part: Part) -> &AtomicUsize {
        &self.parts[part as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_parts_leave_the_connections_theirs() {
        for bound in [64, 1 << 20, 1 << 30, usize::MAX] {
            let memory = Memory::new(bound);
            let others: usize = Part::ALL[2..].iter().map(|part| memory.share(*part)).sum();
            assert!(others <= bound - memory.share_of_connections(), "{bound}");
            assert!(others >= bound / 2, "{bound}");
        }
    }

    #[test]
    fn the_total_is_what_all_parts_hold_and_the_excess_what_is_above_the_bound() {
        let memory = Memory::new(120);
        for part in Part::ALL {
            memory.add(part, 20);
        }
        memory.change(Part::Input, 20, 25);
        memory.change(Part::Output, 20, 15);
        memory.change(Part::Bus, 20, 20);
        memory.set(Part::Events, 30);
        assert_eq!((memory.total(), memory.excess(), memory.of(Part::Input), memory.of(Part::Output)), (170, 50, 25, 15));
        memory.remove(Part::Events, 30);
        assert_eq!((memory.total(), memory.excess()), (140, 20));
    }

    #[test]
    fn what_is_counted_off_before_it_is_counted_is_nothing_meanwhile() {
        let memory = Memory::new(100);
        memory.remove(Part::Departed, 70);
        assert_eq!((memory.of(Part::Departed), memory.total()), (0, 0));
        memory.add(Part::Departed, 80);
        assert_eq!(memory.of(Part::Departed), 10);
    }
}
