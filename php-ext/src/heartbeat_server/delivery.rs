//! The events on their way to a server's callbacks: in which order they are told, how far that has come, and what a worker acknowledges
//! of it. Pure: it knows neither PHP nor where events come from.

use heartbus_core::event::Event;
use std::collections::VecDeque;

/// What one call of a `data.batch` callback gets: as many messages as wait, up to these bounds. A single longer message
/// still makes a call of its own.
const MESSAGES: usize = 1024;
const MESSAGE_BYTES: usize = 1 << 20;

/// An event on its way to its callback.
#[derive(Debug)]
pub(super) struct Pending<N> {
    pub(super) event: Event<N>,
    /// Only for a channel that PHP holds: the callbacks for it run in another worker.
    pub(super) watched: bool,
    pub(super) mark: Mark,
}

/// Where an event stands among the others.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) redelivered: bool,
    /// A worker's batch, and its place there.
    pub(super) batch: u64,
    pub(super) place: u32,
    pub(super) is_last: bool,
}

/// What a worker says of a batch in whose middle it ends: so many of its events were told, so many of the next were taken out for a
/// callback that has not seen them.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) batch: u64,
    pub(super) told: u32,
    pub(super) unseen: u32,
}

/// To be handed back when events were told.
#[must_use]
pub(super) struct Begun {
    before: Option<(u64, bool)>,
    is_nested: bool,
}

pub(super) struct Delivery<N> {
    pending: VecDeque<Pending<N>>,
    /// Of the event whose callback runs: its number, and whether it may have been told before.
    current: Option<(u64, bool)>,
    /// Events that were taken out of an inbox so far.
    sequence: u64,
    /// A worker took out as many events as it wanted at once.
    may_have_more: bool,
    /// A worker's batch, and how many of its events were begun; none when it was acknowledged.
    seen: Option<(u64, u32)>,
    /// The batch and the place of the event whose callback runs, of several inside each other the outermost.
    outermost: Option<(u64, u32)>,
    /// The batch and the place of the event that came last.
    last_place: (u64, u32),
    /// A worker's batch that was told and not acknowledged yet.
    finished_batch: Option<u64>,
    /// Events that a worker got merged with others.
    coalesced: u64,
}

impl<N> Default for Delivery<N> {
    fn default() -> Self {
        Self {
            pending: VecDeque::new(),
            current: None,
            sequence: 0,
            may_have_more: false,
            seen: None,
            outermost: None,
            last_place: (0, 0),
            finished_batch: None,
            coalesced: 0,
        }
    }
}

impl<N> Delivery<N> {
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn may_have_more(&self) -> bool {
        self.may_have_more
    }

    /// Events of an inbox of this process: they are numbered here, and nobody acknowledges them.
    pub(super) fn push_own(&mut self, events: impl IntoIterator<Item = Event<N>>) {
        for event in events {
            self.sequence += 1;
            self.pending.push_back(Pending { event, watched: false, mark: Mark { sequence: self.sequence, ..Mark::default() } });
        }
    }

    /// An event of a worker's batch; its place there is found here.
    pub(super) fn push_delivered(&mut self, event: Event<N>, watched: bool, mark: Mark) {
        let place = match self.last_place {
            (last, place) if last == mark.batch => place + 1,
            _ => 0,
        };
        self.last_place = (mark.batch, place);
        self.pending.push_back(Pending { event, watched, mark: Mark { place, ..mark } });
    }

    /// What has been read already does not make the descriptor readable.
    pub(super) fn set_may_have_more(&mut self, may_have_more: bool) {
        self.may_have_more = may_have_more;
    }

    pub(super) fn take_next(&mut self) -> Option<Pending<N>> {
        self.pending.pop_front()
    }

    /// The messages that wait in front and can be told at once. They are of one worker's batch: what is acknowledged is whole.
    /// One that may have been told before comes alone, so that the callback can learn its number, and what kills worker after
    /// worker takes none of its neighbours along.
    pub(super) fn take_messages(&mut self) -> Vec<Pending<N>> {
        let Some(batch) = self.pending.front().map(|first| first.mark.batch) else { return Vec::new() };
        let (mut count, mut bytes) = (0, 0);
        for Pending { event, watched, mark } in self.pending.iter().take(MESSAGES) {
            let Event::Data { payload, .. } = event else { break };
            bytes += payload.len();
            if *watched || mark.batch != batch || count > 0 && (mark.redelivered || bytes > MESSAGE_BYTES) {
                break;
            }
            count += 1;
            if mark.redelivered {
                break;
            }
        }
        self.pending.drain(..count).collect()
    }

    /// Drops what waits. Returns how many.
    pub(super) fn drop_pending(&mut self) -> usize {
        std::mem::take(&mut self.pending).len()
    }

    /// Events that follow each other are told now, by one callback.
    pub(super) fn begin(&mut self, first: Mark, last: Mark) -> Begun {
        self.finished_batch = last.is_last.then_some(last.batch);
        let is_nested = self.outermost.is_some();
        self.outermost = self.outermost.or(Some((first.batch, first.place)));
        self.seen = Some((last.batch, last.place + 1));
        Begun { before: self.current.replace((first.sequence, first.redelivered)), is_nested }
    }

    /// The callback has returned, or thrown.
    pub(super) fn end(&mut self, begun: Begun) {
        self.current = begun.before;
        if !begun.is_nested {
            self.outermost = None;
        }
    }

    /// A batch of which every event was told: once.
    pub(super) fn take_finished(&mut self) -> Option<u64> {
        let batch = self.finished_batch.take()?;
        self.seen = None;
        Some(batch)
    }

    /// The number of the event whose callback runs, and whether it may have been told before.
    pub(super) fn current(&self) -> Option<(u64, bool)> {
        self.current
    }

    /// The last batch of which an event has come.
    pub(super) fn last_batch(&self) -> u64 {
        self.last_place.0
    }

    /// Another engine, whose batches are counted anew. What is pending stays.
    pub(super) fn begin_attachment(&mut self) {
        self.end_attachment();
        self.last_place = (0, 0);
        self.may_have_more = false;
    }

    /// Nobody is there to acknowledge anything to.
    pub(super) fn end_attachment(&mut self) {
        self.finished_batch = None;
        self.seen = None;
    }

    /// The process ends in the middle of a batch: the event whose callback did that was told, what no callback has seen was not.
    pub(super) fn give_back(&mut self) -> Option<Part> {
        let (batch, seen) = self.seen.take()?;
        let told = match self.outermost {
            None => seen,
            Some((same, place)) if same == batch => place,
            Some(_) => 0,
        };
        Some(Part { batch, told, unseen: seen - told })
    }

    /// Counts an event that stands for `count`.
    pub(super) fn count_merged(&mut self, count: u32) {
        self.coalesced += u64::from(count.saturating_sub(1));
    }

    pub(super) fn coalesced(&self) -> u64 {
        self.coalesced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Event<u32> {
        Event::Data { node: 7, channel_id: 1, payload: vec![b'x'; bytes].into() }
    }

    fn heartbeat() -> Event<u32> {
        Event::Heartbeat { node: 7, count: 1 }
    }

    fn mark(batch: u64, is_last: bool) -> Mark {
        Mark { sequence: 100, batch, is_last, ..Mark::default() }
    }

    fn places(delivery: &mut Delivery<u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| delivery.take_next()).map(|pending| (pending.mark.batch, pending.mark.place)).collect()
    }

    #[test]
    fn events_of_an_inbox_are_numbered_from_one_on_over_all_refills() {
        let mut delivery = Delivery::default();
        delivery.push_own([heartbeat(), heartbeat()]);
        assert_eq!(delivery.take_next().map(|pending| pending.mark.sequence), Some(1));
        delivery.push_own([heartbeat()]);
        let rest: Vec<_> = std::iter::from_fn(|| delivery.take_next()).map(|pending| pending.mark.sequence).collect();
        assert_eq!(rest, [2, 3]);
        assert_eq!(delivery.take_finished(), None, "nobody acknowledges them");
    }

    #[test]
    fn places_are_counted_per_batch_and_anew_for_another_engine() {
        let mut delivery = Delivery::default();
        for batch in [1, 1, 2] {
            delivery.push_delivered(heartbeat(), false, mark(batch, false));
        }
        assert_eq!(places(&mut delivery), [(1, 0), (1, 1), (2, 0)]);
        assert_eq!(delivery.last_batch(), 2);
        delivery.begin_attachment();
        assert_eq!(delivery.last_batch(), 0);
        delivery.push_delivered(heartbeat(), false, mark(2, false));
        assert_eq!(places(&mut delivery), [(2, 0)]);
    }

    #[test]
    fn a_batch_is_finished_by_its_last_event_and_acknowledged_once() {
        let mut delivery = Delivery::<u32>::default();
        let begun = delivery.begin(mark(3, false), mark(3, false));
        delivery.end(begun);
        assert_eq!(delivery.take_finished(), None);
        let begun = delivery.begin(mark(3, true), mark(3, true));
        delivery.end(begun);
        assert_eq!(delivery.take_finished(), Some(3));
        assert_eq!(delivery.take_finished(), None);
        assert_eq!(delivery.give_back(), None, "what was acknowledged is not given back");
    }

    #[test]
    fn messages_are_told_together_up_to_what_is_no_message() {
        let mut delivery = Delivery::default();
        delivery.push_own([message(1), message(2), heartbeat(), message(3)]);
        assert_eq!(delivery.take_messages().len(), 2);
        assert_eq!(delivery.take_messages().len(), 0, "a heartbeat is in front");
        assert!(delivery.take_next().is_some());
        assert_eq!(delivery.take_messages().len(), 1);
        assert_eq!(delivery.take_messages().len(), 0, "none is left");
    }

    #[test]
    fn messages_of_two_batches_are_not_told_together() {
        let mut delivery = Delivery::default();
        for batch in [1, 1, 2] {
            delivery.push_delivered(message(1), false, mark(batch, false));
        }
        assert_eq!(delivery.take_messages().len(), 2);
        assert_eq!(delivery.take_messages().len(), 1);
    }

    #[test]
    fn a_message_that_may_have_been_told_comes_alone() {
        let mut delivery = Delivery::default();
        for redelivered in [false, true, false] {
            delivery.push_delivered(message(1), false, Mark { redelivered, ..mark(1, false) });
        }
        let counts: Vec<_> = (0..3).map(|_| delivery.take_messages().len()).collect();
        assert_eq!(counts, [1, 1, 1]);
    }

    #[test]
    fn a_message_that_is_only_watched_is_not_told_with_others() {
        let mut delivery = Delivery::default();
        delivery.push_delivered(message(1), false, mark(1, false));
        delivery.push_delivered(message(1), true, mark(1, false));
        assert_eq!(delivery.take_messages().len(), 1);
        assert_eq!(delivery.take_messages().len(), 0);
        assert_eq!(delivery.pending(), 1);
    }

    #[test]
    fn messages_told_together_are_bounded_by_number_and_by_bytes() {
        let mut delivery = Delivery::default();
        delivery.push_own((0..MESSAGES + 1).map(|_| message(1)));
        assert_eq!(delivery.take_messages().len(), MESSAGES);
        assert_eq!(delivery.drop_pending(), 1);
        delivery.push_own([message(MESSAGE_BYTES), message(1), message(MESSAGE_BYTES + 1)]);
        assert_eq!(delivery.take_messages().len(), 1, "the second would go beyond");
        assert_eq!(delivery.take_messages().len(), 1);
        assert_eq!(delivery.take_messages().len(), 1, "a long one has a call of its own");
    }

    #[test]
    fn the_number_of_the_event_is_known_while_its_callback_runs_also_inside_another() {
        let mut delivery = Delivery::<u32>::default();
        let numbered = |sequence| Mark { sequence, redelivered: sequence == 2, ..mark(1, false) };
        assert_eq!(delivery.current(), None);
        let outer = delivery.begin(numbered(1), numbered(1));
        let inner = delivery.begin(numbered(2), numbered(2));
        assert_eq!(delivery.current(), Some((2, true)));
        delivery.end(inner);
        assert_eq!(delivery.current(), Some((1, false)));
        delivery.end(outer);
        assert_eq!(delivery.current(), None);
    }

    #[test]
    fn a_process_that_ends_between_callbacks_has_told_all_it_began() {
        let mut delivery = Delivery::<u32>::default();
        for place in 0..3 {
            let at = Mark { place, ..mark(5, false) };
            let begun = delivery.begin(at, at);
            delivery.end(begun);
        }
        assert_eq!(delivery.give_back(), Some(Part { batch: 5, told: 3, unseen: 0 }));
        assert_eq!(delivery.give_back(), None);
    }

    #[test]
    fn a_process_that_ends_in_a_callback_gives_back_what_was_taken_out_with_its_event() {
        let mut delivery = Delivery::<u32>::default();
        let (first, last) = (Mark { place: 2, ..mark(5, false) }, Mark { place: 9, ..mark(5, false) });
        let _begun = delivery.begin(first, last);
        assert_eq!(delivery.give_back(), Some(Part { batch: 5, told: 2, unseen: 8 }));
    }

    #[test]
    fn of_callbacks_inside_each_other_the_outermost_decides_what_was_told() {
        let mut delivery = Delivery::<u32>::default();
        let at = |batch, place| Mark { place, ..mark(batch, false) };
        let _outer = delivery.begin(at(5, 1), at(5, 1));
        let _inner = delivery.begin(at(5, 2), at(5, 4));
        assert_eq!(delivery.give_back(), Some(Part { batch: 5, told: 1, unseen: 4 }));
        let _of_the_next_batch = delivery.begin(at(6, 0), at(6, 0));
        assert_eq!(delivery.give_back(), Some(Part { batch: 6, told: 0, unseen: 1 }));
    }

    #[test]
    fn nothing_is_acknowledged_to_an_engine_that_is_gone() {
        let mut delivery = Delivery::<u32>::default();
        let begun = delivery.begin(mark(3, true), mark(3, true));
        delivery.end(begun);
        delivery.end_attachment();
        assert_eq!(delivery.take_finished(), None);
        assert_eq!(delivery.give_back(), None);
    }

    #[test]
    fn an_event_that_stands_for_several_counts_the_others() {
        let mut delivery = Delivery::<u32>::default();
        delivery.count_merged(1);
        delivery.count_merged(4);
        assert_eq!(delivery.coalesced(), 3);
    }
}
