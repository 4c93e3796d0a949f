//! Who has to go when more is kept than may be: the connections that hold most, whichever threads they are on.
//!
//! Owns the rounds in which the I/O threads find that out: one that sees too much asks, each says what its connections hold, and
//! the last one names those who go. A thread that does not say anything in time is left out. Nothing is held by a lock
//! while connections are looked at, and nobody waits.

use super::mailbox::Mailbox;
use crate::hub::{Link, Memory};
use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long a thread may take to answer, in microseconds.
const ROUND_TIME_US: u64 = 200_000;

/// A connection, and the memory that is free when it is gone.
pub(super) struct Holder<C = Arc<Link>> {
    pub(super) bytes: usize,
    pub(super) who: C,
}

/// What one thread says.
pub(super) struct Holdings {
    /// Of all its connections.
    pub(super) bytes: usize,
    /// Of those that hold most, as many as could have to go.
    pub(super) most: Vec<Holder>,
}

pub(super) struct Relief {
    /// Rounds that were begun.
    number: AtomicU64,
    round: Mutex<Round>,
    /// Of every thread that has to be asked.
    threads: Vec<Arc<Mailbox>>,
}

#[derive(Default)]
struct Round {
    begun_at: u64,
    /// Threads that have not answered yet; 0 between rounds.
    open: usize,
    bytes: usize,
    most: Vec<Holder>,
}

impl Relief {
    pub(super) fn new(threads: Vec<Arc<Mailbox>>) -> Self {
        Self { number: AtomicU64::new(0), round: Mutex::default(), threads }
    }

    /// The round that is under way, or was last.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Asks all threads, unless they are being asked. Where that takes too long: those who have to go, as far as is known.
    pub(super) fn begin(&self, now: u64, memory: &Memory) -> Vec<Holder> {
        let mut round = self.lock();
        if round.open > 0 {
            return if now < round.begun_at + ROUND_TIME_US { Vec::new() } else { end(round, memory) };
        }
        *round = Round { begun_at: now, open: self.threads.len(), ..Round::default() };
        self.number.fetch_add(1, Ordering::Relaxed);
        drop(round);
        for thread in &self.threads {
            thread.wake();
        }
        Vec::new()
    }

    /// Says what a thread's connections hold. After the last thread, those who have to go.
    pub(super) fn answer(&self, number: u64, holdings: Holdings, memory: &Memory) -> Vec<Holder> {
        let mut round = self.lock();
        if number != self.number() || round.open == 0 {
            // Too late.
            return Vec::new();
        }
        round.bytes += holdings.bytes;
        round.most.extend(holdings.most);
        round.open -= 1;
        if round.open > 0 { Vec::new() } else { end(round, memory) }
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(mut round: MutexGuard<'_, Round>, memory: &Memory) -> Vec<Holder> {
    let Round { bytes, most, .. } = std::mem::take(&mut *round);
    drop(round);
    choose(most, to_free(bytes, memory))
}

/// How many bytes connections have to give back that alone hold `bytes`: what is too much, and a sixteenth of the bound, so that
/// not every further byte means another round. Never what connections may hold whatever others do: where they are not to blame,
/// their end would help nobody.
pub(super) fn to_free(bytes: usize, memory: &Memory) -> usize {
    match memory.excess() {
        0 => 0,
        excess => (excess + memory.bound() / 16).min(bytes.saturating_sub(memory.share_of_connections())),
    }
}

/// Those that hold most, as many as hold `wanted` together.
pub(super) fn choose<C>(mut holders: Vec<Holder<C>>, wanted: usize) -> Vec<Holder<C>> {
    holders.sort_unstable_by_key(|holder| Reverse(holder.bytes));
    let mut freed = 0;
    let count = holders.iter().take_while(|holder| {
        let goes = freed < wanted && holder.bytes > 0;
        freed += holder.bytes;
        goes
    });
    let count = count.count();
    holders.truncate(count);
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::link::{Command, CommandSink};
    use crate::hub::memory::Part;

    struct Nobody;

    impl CommandSink for Nobody {
        fn post(&self, _command: Command) {}
    }

    fn holders(sizes: &[usize]) -> Vec<Holder> {
        let link = |id| Arc::new(Link::new(id, ([127, 0, 0, 1], 1).into(), 0, Arc::new(Nobody)));
        (1..).zip(sizes).map(|(id, bytes)| Holder { bytes: *bytes, who: link(id) }).collect()
    }

    fn holdings(sizes: &[usize]) -> Holdings {
        Holdings { bytes: sizes.iter().sum(), most: holders(sizes) }
    }

    fn sizes(holders: &[Holder]) -> Vec<usize> {
        holders.iter().map(|holder| holder.bytes).collect()
    }

    fn full(bound: usize, kept: usize) -> Memory {
        let memory = Memory::new(bound);
        memory.add(Part::Input, kept);
        memory
    }

    fn threads(count: usize) -> (Vec<mio::Poll>, Relief) {
        let polls: Vec<mio::Poll> = (0..count).map(|_| mio::Poll::new().unwrap()).collect();
        let mailbox = |poll: &mio::Poll| {
            let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
            Arc::new(Mailbox::new(0, waker, Arc::new(Memory::new(1))))
        };
        let mailboxes = polls.iter().map(mailbox).collect();
        (polls, Relief::new(mailboxes))
    }

    #[test]
    fn those_who_hold_most_go_and_no_more_of_them_than_it_takes() {
        assert_eq!(sizes(&choose(holders(&[10, 500, 20, 300, 0]), 501)), [500, 300]);
        assert_eq!(sizes(&choose(holders(&[10, 500, 20, 300, 0]), 500)), [500]);
        assert_eq!(sizes(&choose(holders(&[10, 0]), 500)), [10]);
        assert_eq!(sizes(&choose(holders(&[10, 0]), 0)), [0; 0]);
    }

    #[test]
    fn connections_give_back_what_is_too_much_and_never_what_is_theirs_whatever_others_hold() {
        assert_eq!(to_free(1600, &full(1600, 1600)), 0);
        assert_eq!(to_free(1650, &full(1600, 1650)), 50 + 100);
        assert_eq!(to_free(500, &full(1600, 3000)), 100);
        assert_eq!(to_free(400, &full(1600, 3000)), 0);
    }

    #[test]
    fn the_largest_of_all_threads_goes_and_the_last_thread_says_so() {
        let (mut polls, relief) = threads(3);
        let memory = full(1600, 1700);
        assert!(relief.begin(1, &memory).is_empty() && relief.begin(2, &memory).is_empty());
        assert_eq!(relief.number(), 1);
        for poll in &mut polls {
            let mut events = mio::Events::with_capacity(1);
            poll.poll(&mut events, None).unwrap();
            assert!(!events.is_empty());
        }
        assert!(relief.answer(1, holdings(&[300, 200]), &memory).is_empty());
        assert!(relief.answer(1, holdings(&[10]), &memory).is_empty());
        let chosen = relief.answer(1, holdings(&[900]), &memory);
        assert_eq!(sizes(&chosen), [900]);
        assert!(relief.answer(1, holdings(&[900]), &memory).is_empty(), "the round is over");
    }

    #[test]
    fn a_thread_that_does_not_answer_holds_nobody_up_for_ever() {
        let (_polls, relief) = threads(2);
        let memory = full(1600, 1700);
        relief.begin(1, &memory);
        assert!(relief.answer(1, holdings(&[1500]), &memory).is_empty());
        assert!(relief.begin(ROUND_TIME_US, &memory).is_empty());
        assert_eq!(sizes(&relief.begin(1 + ROUND_TIME_US, &memory)), [1500]);
        assert!(relief.answer(1, holdings(&[100]), &memory).is_empty(), "that round is over");
        relief.begin(2 + ROUND_TIME_US, &memory);
        assert_eq!(relief.number(), 2);
        assert!(relief.answer(1, holdings(&[100]), &memory).is_empty(), "that was the first round");
        assert!(relief.answer(2, holdings(&[100]), &memory).is_empty());
        assert_eq!(sizes(&relief.answer(2, holdings(&[1600]), &memory)), [1600]);
    }
}
