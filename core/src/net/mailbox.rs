//! Commands to an I/O thread from other threads, and the question what connections it has.
//!
//! A command is about one connection. Commands to one connection arrive in the order in which they were posted; there is no order
//! between connections. What is to be written is bounded by that connection's outbox; of everything else there is
//! at most one command per connection or node at a time. Of listings one waits at a time: a newer one takes the place of the
//! older, whose asker then gets what the other threads said.

use crate::hub::Memory;
use crate::hub::link::{Command, CommandSink};
use crate::hub::memory::Part;
use crate::model::ConnectionInfo;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

/// With so many commands a mailbox takes frames only for connections that nothing waits for yet: a burst of small frames takes
/// more memory, and time, than their bytes say.
const MAX_COMMANDS: usize = 1 << 20;

pub(super) struct Mailbox {
    commands: Mutex<Vec<Option<Command>>>,
    /// How many there are, or were a moment ago.
    count: AtomicUsize,
    memory: Arc<Memory>,
    listing: Mutex<Option<Listing>>,
    waker: mio::Waker,
}

/// A question for the connections of a thread: up to `max` of them.
pub(super) struct Listing {
    pub(super) max: usize,
    pub(super) answer: SyncSender<Vec<ConnectionInfo>>,
}

impl Mailbox {
    pub(super) fn new(waker: mio::Waker, memory: Arc<Memory>) -> Self {
        Self { commands: Mutex::default(), count: AtomicUsize::new(0), memory, listing: Mutex::default(), waker }
    }

    /// Moves all commands to those that are followed, of which none may be left; its memory is used for the next ones.
    pub(super) fn drain_into(&self, drained: &mut Drained) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *commands, &mut drained.commands);
        self.count.store(commands.len(), Ordering::Relaxed);
    }

    pub(super) fn ask(&self, listing: Listing) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing);
        self.wake();
    }

    pub(super) fn take_listing(&self) -> Option<Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            // The thread still looks within one tick.
            tracing::warn!(%error, "Cannot wake an I/O thread");
        }
    }
}

/// Commands sorted at once: as many as a broadcast to ten thousand connections has, and so few that it takes less than half a
/// millisecond.
const SORTED_TOGETHER: usize = 16 * 1024;
/// Where more were drained the memory goes back when they are done with.
const MAX_KEPT: usize = 4096;

/// What a list of commands takes in memory, beside the usual.
fn memory_of(capacity: usize) -> usize {
    if capacity > MAX_KEPT { capacity * size_of::<Option<Command>>() } else { 0 }
}

/// What was taken out of the mailbox and is not opened yet. It comes out sorted by connection, in the order of their slots: that
/// is the order in which they came, and so the order of their memory, also of the kernel's, whose sockets are most of what a
/// fan-out has to fetch into the processor's cache.
#[derive(Default)]
pub(super) struct Drained {
    commands: Vec<Option<Command>>,
    /// So many commands, from the first, are in `order` or were.
    sorted: usize,
    /// The slots and indices of commands,
    order: Vec<(u32, u32)>,
    /// and how many of these came out.
    done: usize,
}

impl Drained {
    pub(super) fn is_empty(&self) -> bool {
        self.done == self.order.len() && self.sorted == self.commands.len()
    }

    /// The next one. `memory`: where the commands are counted.
    pub(super) fn pop(&mut self, memory: &Memory) -> Option<Command> {
        self.sort();
        let &(_, index) = self.order.get(self.done)?;
        self.done += 1;
        let command = self.commands[index as usize].take();
        if self.is_empty() {
            let before = memory_of(self.commands.capacity());
            self.commands.clear();
            self.commands.shrink_to(MAX_KEPT);
            memory.change(Part::Output, before, memory_of(self.commands.capacity()));
            self.order.clear();
            self.order.shrink_to(MAX_KEPT);
            (self.sorted, self.done) = (0, 0);
        }
        command
    }

    /// Whose the command is that comes next.
    pub(super) fn next_slot(&mut self) -> Option<u32> {
        self.sort();
        self.order.get(self.done).map(|(slot, _)| *slot)
    }

    /// Goes on with further commands when all that were sorted came out.
    fn sort(&mut self) {
        if self.done < self.order.len() {
            return;
        }
        let until = self.commands.len().min(self.sorted + SORTED_TOGETHER);
        let unsorted = (self.sorted as u32..).zip(&self.commands[self.sorted..until]);
        self.order.clear();
        self.order.extend(unsorted.filter_map(|(index, command)| Some((command.as_ref()?.slot, index))));
        self.order.sort_unstable();
        (self.sorted, self.done) = (until, 0);
    }
}

impl CommandSink for Mailbox {
    fn post(&self, command: Command) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = commands.is_empty();
        let before = commands.capacity();
        commands.push(Some(command));
        self.count.store(commands.len(), Ordering::Relaxed);
        self.memory.change(Part::Output, memory_of(before), memory_of(commands.capacity()));
        drop(commands);
        if was_empty {
            self.wake();
        }
    }

    fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < MAX_COMMANDS && self.memory.excess() == 0
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::frame::{Body, QueuedFrame};
    use crate::hub::link::CommandKind;
    use crate::model::CloseReason;
    use crate::wire::{Dialect, FrameType};

    /// `connection_id` counts the commands in the order of posting.
    fn drained(slots: impl IntoIterator<Item = u32>) -> Drained {
        let commands = (0..).zip(slots).map(|(connection_id, slot)| Some(Command { slot, connection_id, kind: CommandKind::Resume }));
        Drained { commands: commands.collect(), ..Drained::default() }
    }

    fn opened(drained: &mut Drained) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| drained.pop(&Memory::new(1))).map(|command| (command.slot, command.connection_id)).collect()
    }

    #[test]
    fn letters_come_by_connection_and_those_for_one_in_the_order_of_posting() {
        let mut drained = drained([7, 3, 7, 0, 3, 7]);
        assert!(!drained.is_empty());
        assert_eq!(opened(&mut drained), [(0, 3), (3, 1), (3, 4), (7, 0), (7, 2), (7, 5)]);
        assert!(drained.is_empty() && drained.pop(&Memory::new(1)).is_none());
    }

    #[test]
    fn of_many_letters_each_comes_once_and_none_before_an_earlier_one_for_the_same_connection() {
        let count = 3 * SORTED_TOGETHER + 5;
        let mut drained = drained((0..count as u32).map(|n| n.wrapping_mul(0x9e37_79b9) % 1000));
        let got = opened(&mut drained);
        assert_eq!(got.len(), count);
        let mut last = [None; 1000];
        for (slot, number) in got {
            assert!(last[slot as usize] < Some(number));
            last[slot as usize] = Some(number);
        }
        assert!(drained.is_empty() && drained.commands.capacity() <= MAX_KEPT && drained.order.capacity() <= MAX_KEPT);
    }

    #[test]
    fn more_letters_than_usual_are_counted_until_they_are_opened() {
        let memory = Arc::new(Memory::new(1));
        let poll = mio::Poll::new().unwrap();
        let mailbox = Mailbox::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap(), memory.clone());
        let mut drained = Drained::default();
        for (count, counted) in [(MAX_KEPT, 0), (MAX_KEPT + 1, 2 * MAX_KEPT * size_of::<Option<Command>>()), (MAX_KEPT, 0)] {
            (0..count).for_each(|id| mailbox.post(Command { slot: 1, connection_id: id as u64, kind: CommandKind::Resume }));
            assert_eq!(memory.of(Part::Output), counted, "{count}");
            mailbox.drain_into(&mut drained);
            while drained.pop(&memory).is_some() {}
            assert_eq!(memory.of(Part::Output), 0);
        }
    }

    #[test]
    fn a_letter_is_small() {
        assert!(size_of::<Option<Command>>() <= 32, "{} bytes", size_of::<Option<Command>>());
    }

    #[test]
    fn the_slot_that_comes_next_is_known_also_where_the_next_ones_are_not_sorted_yet() {
        let count = SORTED_TOGETHER as u32 + 2;
        let mut drained = drained((0..count).rev());
        for _ in 0..count {
            let next = drained.next_slot();
            assert!(next.is_some());
            assert_eq!(drained.pop(&Memory::new(1)).map(|command| command.slot), next);
        }
        assert_eq!(drained.next_slot(), None);
    }

    #[test]
    fn a_letter_that_wishes_for_an_end_stays_behind_what_was_to_be_written_before() {
        let body = Body::encode(Dialect::V2, b"x", &Arc::new(Memory::new(1))).unwrap();
        let write = || CommandKind::Write(QueuedFrame::new(Dialect::V2, FrameType::DATA, 1, body.clone()));
        let kinds = [(4, write()), (1, write()), (4, CommandKind::End(CloseReason::Kicked)), (4, write())];
        let commands = kinds.map(|(slot, kind)| Some(Command { slot, connection_id: 1, kind }));
        let mut drained = Drained { commands: commands.into(), ..Drained::default() };
        let got: Vec<_> = std::iter::from_fn(|| drained.pop(&Memory::new(1)))
            .map(|command| (command.slot, matches!(command.kind, CommandKind::End(_))))
            .collect();
        assert_eq!(got, [(1, false), (4, false), (4, true), (4, false)]);
    }
}
