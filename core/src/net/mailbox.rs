//! Commands to an I/O thread from other threads, and the question what connections it has.
//!
//! A command is about one connection, a fan-out about all of them, a publication about those that have subscribed. All arrive at each connection in the order in which they were posted;
//! there is no order between connections. What is to be written is bounded by that connection's outbox; of everything else there is
//! at most one command per connection or node at a time; fan-outs have a bound over all threads ([`crate::hub::fan_out`]). Of listings one waits at a time: a newer one takes the place of the
//! older, whose asker then gets what the other threads said.

use crate::hub::Memory;
use crate::hub::NodeRef;
use crate::hub::fan_out::{FanOut, FanOutSink};
use crate::hub::link::{Command, CommandSink};
use crate::hub::memory::Part;
use crate::hub::topic_fan_out::TopicFanOut;
use crate::hub::topics::members::Subscriber;
use crate::model::ConnectionInfo;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

/// With so many commands a mailbox takes frames only for connections that nothing waits for yet: a burst of small frames takes
/// more memory, and time, than their bytes say.
const MAX_COMMANDS: usize = 1 << 20;

enum MailboxItem {
    Command(Command),
    FanOut(Arc<FanOut>),
    Publication(Arc<TopicFanOut>),
    Question(Box<TopicQuestion>),
}

/// A question about who has subscribed to what, answered behind all that was posted before it. Whoever asks waits for the answer: so
/// there are as many as there are askers.
pub(super) enum TopicQuestion {
    /// The nodes in a topic behind one of them.
    Members { topic: Arc<str>, behind: Option<Subscriber>, limit: usize, answer: SyncSender<MembersPage> },
    /// The topics of a node.
    TopicsOf { slot: u32, connection_id: u64, node: NodeRef, answer: SyncSender<Vec<String>> },
}

/// The ids of nodes in a topic, and behind whom there may be more.
#[derive(Default)]
pub(super) struct MembersPage {
    pub(super) nodes: Vec<Arc<str>>,
    pub(super) next: Option<Subscriber>,
}

pub(super) struct Mailbox {
    thread: usize,
    items: Mutex<Vec<Option<MailboxItem>>>,
    /// How many there are, or were a moment ago.
    count: AtomicUsize,
    /// The thread looks here once more before it sleeps, so that nobody has to wake it.
    is_awake: AtomicBool,
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
    /// `thread`: the number of the thread whose it is.
    pub(super) fn new(thread: usize, waker: mio::Waker, memory: Arc<Memory>) -> Self {
        Self {
            thread,
            items: Mutex::default(),
            count: AtomicUsize::new(0),
            is_awake: AtomicBool::new(false),
            memory,
            listing: Mutex::default(),
            waker,
        }
    }

    /// The thread works: whatever is posted it will find.
    pub(super) fn stay_awake(&self) {
        self.is_awake.store(true, Ordering::Relaxed);
    }

    /// Whether the thread may sleep, as nothing is here: from now on whoever posts wakes it. It and they each write their own word and then
    /// read the other's, in one order of all, so one of them sees the other.
    pub(super) fn may_sleep(&self) -> bool {
        self.is_awake.store(false, Ordering::SeqCst);
        self.count.load(Ordering::SeqCst) == 0
    }

    pub(super) fn has_items(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Moves all commands to those that are followed, of which none may be left; its memory is used for the next ones.
    pub(super) fn drain_into(&self, drained: &mut Drained) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *items, &mut drained.items);
        self.count.store(items.len(), Ordering::Relaxed);
    }

    pub(super) fn ask(&self, listing: Listing) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing);
        self.wake();
    }

    pub(super) fn ask_of_topics(&self, question: TopicQuestion) {
        self.push(MailboxItem::Question(Box::new(question)));
    }

    pub(super) fn take_listing(&self) -> Option<Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn push(&self, item: MailboxItem) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = items.is_empty();
        let before = items.capacity();
        items.push(Some(item));
        self.count.store(items.len(), Ordering::SeqCst);
        self.memory.change(Part::Output, memory_of(before), memory_of(items.capacity()));
        drop(items);
        if was_empty && !self.is_awake.load(Ordering::SeqCst) {
            self.wake();
        }
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
    if capacity > MAX_KEPT { capacity * size_of::<Option<MailboxItem>>() } else { 0 }
}

/// What was taken out of the mailbox and is not opened yet. It comes out sorted by connection, in the order of their slots: that
/// is the order in which they came, and so the order of their memory, also of the kernel's, whose sockets are most of what
/// writing to many has to fetch into the processor's cache. A fan-out is about all of them, a publication about those who are subscribed when its turn comes: nothing is sorted past it.
#[derive(Default)]
pub(super) struct Drained {
    items: Vec<Option<MailboxItem>>,
    /// So many items, from the first, came out, or are commands that are in `order` or were.
    sorted: usize,
    /// The slots and indices of commands,
    order: Vec<(u32, u32)>,
    /// and how many of these came out.
    done: usize,
}

/// What comes next.
pub(super) enum DrainedItem {
    Command(Command),
    /// One behind the other, with nothing else in between.
    FanOuts(Vec<Arc<FanOut>>),
    Publications(Vec<Arc<TopicFanOut>>),
    Question(TopicQuestion),
}

impl Drained {
    pub(super) fn is_empty(&self) -> bool {
        self.done == self.order.len() && self.sorted == self.items.len()
    }

    /// The next one. `memory`: where the commands are counted.
    pub(super) fn pop(&mut self, memory: &Memory) -> Option<DrainedItem> {
        self.sort();
        let next = if let Some(&(_, index)) = self.order.get(self.done) {
            self.done += 1;
            match self.items[index as usize].take() {
                Some(MailboxItem::Command(command)) => DrainedItem::Command(command),
                // Nothing else is in the order.
                _ => return None,
            }
        } else {
            match self.take_next()? {
                MailboxItem::Command(command) => DrainedItem::Command(command),
                MailboxItem::Question(question) => DrainedItem::Question(*question),
                MailboxItem::FanOut(first) => {
                    let mut run = vec![first];
                    while let Some(Some(MailboxItem::FanOut(_))) = self.items.get(self.sorted) {
                        run.extend(self.take_next().and_then(|item| if let MailboxItem::FanOut(next) = item { Some(next) } else { None }));
                    }
                    DrainedItem::FanOuts(run)
                }
                MailboxItem::Publication(first) => {
                    let mut run = vec![first];
                    while let Some(Some(MailboxItem::Publication(_))) = self.items.get(self.sorted) {
                        run.extend(
                            self.take_next().and_then(|item| if let MailboxItem::Publication(next) = item { Some(next) } else { None }),
                        );
                    }
                    DrainedItem::Publications(run)
                }
            }
        };
        if self.is_empty() {
            let before = memory_of(self.items.capacity());
            self.items.clear();
            self.items.shrink_to(MAX_KEPT);
            memory.change(Part::Output, before, memory_of(self.items.capacity()));
            self.order.clear();
            self.order.shrink_to(MAX_KEPT);
            (self.sorted, self.done) = (0, 0);
        }
        Some(next)
    }

    /// Whose the command is that comes next; `None` where none does, or a fan-out.
    pub(super) fn next_slot(&mut self) -> Option<u32> {
        self.sort();
        self.order.get(self.done).map(|(slot, _)| *slot)
    }

    /// Takes what stands behind all that is sorted.
    fn take_next(&mut self) -> Option<MailboxItem> {
        let item = self.items.get_mut(self.sorted)?.take();
        self.sorted += 1;
        item
    }

    /// Goes on with further commands when all that were sorted came out.
    fn sort(&mut self) {
        if self.done < self.order.len() {
            return;
        }
        let until = self.items.len().min(self.sorted + SORTED_TOGETHER);
        let commands = self.items[self.sorted..until].iter().map_while(|item| match item {
            Some(MailboxItem::Command(command)) => Some(command.slot),
            _ => None,
        });
        self.order.clear();
        self.order.extend(commands.zip(self.sorted as u32..));
        self.order.sort_unstable();
        (self.sorted, self.done) = (self.sorted + self.order.len(), 0);
    }
}

impl CommandSink for Mailbox {
    fn post(&self, command: Command) {
        self.push(MailboxItem::Command(command));
    }

    fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < MAX_COMMANDS && self.memory.excess() == 0
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn thread(&self) -> usize {
        self.thread
    }
}

impl FanOutSink for Mailbox {
    fn post_fan_out(&self, fan_out: Arc<FanOut>) {
        self.push(MailboxItem::FanOut(fan_out));
    }

    fn post_publication(&self, fan_out: Arc<TopicFanOut>) {
        self.push(MailboxItem::Publication(fan_out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::frame::{Body, QueuedFrame};
    use crate::hub::link::CommandKind;
    use crate::model::CloseReason;
    use crate::wire::{Dialect, FrameType};

    fn command(slot: u32, connection_id: u64, kind: CommandKind) -> Option<MailboxItem> {
        Some(MailboxItem::Command(Command { slot, connection_id, kind }))
    }

    fn pop(drained: &mut Drained) -> Option<Command> {
        drained.pop(&Memory::new(1)).map(|next| match next {
            DrainedItem::Command(command) => command,
            _ => panic!("something that nobody posted"),
        })
    }

    #[test]
    fn nothing_is_sorted_past_a_fan_out_and_those_that_come_together_come_out_together() {
        let memory = Arc::new(Memory::new(1));
        let poll = mio::Poll::new().unwrap();
        let mailbox = Mailbox::new(0, mio::Waker::new(poll.registry(), mio::Token(0)).unwrap(), memory.clone());
        let fan_out = || Arc::new(FanOut::for_test(b"x", &memory));
        let post = |slot| mailbox.post(Command { slot, connection_id: 1, kind: CommandKind::Resume });
        mailbox.post_fan_out(fan_out());
        [7, 3].into_iter().for_each(post);
        mailbox.post_fan_out(fan_out());
        mailbox.post_fan_out(fan_out());
        [5, 2, 2].into_iter().for_each(post);
        mailbox.post_fan_out(fan_out());
        let mut drained = Drained::default();
        mailbox.drain_into(&mut drained);
        let mut got = Vec::new();
        loop {
            let slot = drained.next_slot();
            match drained.pop(&memory) {
                Some(DrainedItem::Command(command)) => {
                    assert_eq!(slot, Some(command.slot));
                    got.push(format!("{}", command.slot));
                }
                Some(DrainedItem::FanOuts(fan_outs)) => {
                    assert_eq!(slot, None);
                    got.push(format!("{} fan-outs", fan_outs.len()));
                }
                Some(_) => panic!("something that nobody posted"),
                None => break,
            }
        }
        assert_eq!(got, ["1 fan-outs", "3", "7", "2 fan-outs", "2", "2", "5", "1 fan-outs"]);
        assert!(drained.is_empty() && memory.total() == 0, "the last of them is gone with its bodies");
    }

    #[test]
    fn a_thread_that_works_is_not_woken_and_looks_once_more_before_it_sleeps() {
        let mut poll = mio::Poll::new().unwrap();
        let mailbox = Mailbox::new(0, mio::Waker::new(poll.registry(), mio::Token(0)).unwrap(), Arc::new(Memory::new(1)));
        let mut events = mio::Events::with_capacity(1);
        let mut is_woken = || {
            poll.poll(&mut events, Some(std::time::Duration::ZERO)).unwrap();
            !events.is_empty()
        };
        let post = || mailbox.post(Command { slot: 1, connection_id: 1, kind: CommandKind::Resume });
        let mut drained = Drained::default();
        post();
        assert!(is_woken(), "it slept");
        mailbox.stay_awake();
        mailbox.drain_into(&mut drained);
        assert!(pop(&mut drained).is_some() && !mailbox.has_items());
        post();
        assert!(!is_woken() && mailbox.has_items() && !mailbox.may_sleep());
        mailbox.drain_into(&mut drained);
        assert!(pop(&mut drained).is_some() && mailbox.may_sleep());
        post();
        assert!(is_woken(), "it sleeps");
    }

    /// `connection_id` counts the commands in the order of posting.
    fn drained(slots: impl IntoIterator<Item = u32>) -> Drained {
        let commands = (0..).zip(slots).map(|(connection_id, slot)| command(slot, connection_id, CommandKind::Resume));
        Drained { items: commands.collect(), ..Drained::default() }
    }

    fn opened(drained: &mut Drained) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| pop(drained)).map(|command| (command.slot, command.connection_id)).collect()
    }

    #[test]
    fn letters_come_by_connection_and_those_for_one_in_the_order_of_posting() {
        let mut drained = drained([7, 3, 7, 0, 3, 7]);
        assert!(!drained.is_empty());
        assert_eq!(opened(&mut drained), [(0, 3), (3, 1), (3, 4), (7, 0), (7, 2), (7, 5)]);
        assert!(drained.is_empty() && pop(&mut drained).is_none());
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
        assert!(drained.is_empty() && drained.items.capacity() <= MAX_KEPT && drained.order.capacity() <= MAX_KEPT);
    }

    #[test]
    fn more_letters_than_usual_are_counted_until_they_are_opened() {
        let memory = Arc::new(Memory::new(1));
        let poll = mio::Poll::new().unwrap();
        let mailbox = Mailbox::new(0, mio::Waker::new(poll.registry(), mio::Token(0)).unwrap(), memory.clone());
        let mut drained = Drained::default();
        for (count, counted) in [(MAX_KEPT, 0), (MAX_KEPT + 1, 2 * MAX_KEPT * size_of::<Option<MailboxItem>>()), (MAX_KEPT, 0)] {
            (0..count).for_each(|id| mailbox.post(Command { slot: 1, connection_id: id as u64, kind: CommandKind::Resume }));
            assert_eq!(memory.of(Part::Output), counted, "{count}");
            mailbox.drain_into(&mut drained);
            while drained.pop(&memory).is_some() {}
            assert_eq!(memory.of(Part::Output), 0);
        }
    }

    #[test]
    fn a_letter_is_small() {
        assert!(size_of::<Option<MailboxItem>>() <= 32, "{} bytes", size_of::<Option<MailboxItem>>());
    }

    #[test]
    fn the_slot_that_comes_next_is_known_also_where_the_next_ones_are_not_sorted_yet() {
        let count = SORTED_TOGETHER as u32 + 2;
        let mut drained = drained((0..count).rev());
        for _ in 0..count {
            let next = drained.next_slot();
            assert!(next.is_some());
            assert_eq!(pop(&mut drained).map(|command| command.slot), next);
        }
        assert_eq!(drained.next_slot(), None);
    }

    #[test]
    fn a_letter_that_wishes_for_an_end_stays_behind_what_was_to_be_written_before() {
        let body = Body::encode(Dialect::V2, b"x", &Arc::new(Memory::new(1))).unwrap();
        let write = || CommandKind::Write(QueuedFrame::new(Dialect::V2, FrameType::DATA, 1, body.clone()));
        let kinds = [(4, write()), (1, write()), (4, CommandKind::End(CloseReason::Kicked)), (4, write())];
        let commands = kinds.map(|(slot, kind)| command(slot, 1, kind));
        let mut drained = Drained { items: commands.into(), ..Drained::default() };
        let got: Vec<_> =
            std::iter::from_fn(|| pop(&mut drained)).map(|command| (command.slot, matches!(command.kind, CommandKind::End(_)))).collect();
        assert_eq!(got, [(1, false), (4, false), (4, true), (4, false)]);
    }
}
