//! A hashed timing wheel: what is due, told at most one tick late, at a constant cost per entry.
//!
//! Owns the entries and their order in time. Does not know what an entry means, and has no clock: `now` is passed in,
//! in microseconds of any monotonic origin.
//!
//! | operation | cost |
//! |---|---|
//! | [`Wheel::insert`], [`Wheel::remove`], [`Wheel::rearm`] | O(1) |
//! | an entry that is postponed elsewhere (a heartbeat) | nothing: the wheel is not touched |
//! | a tick | the entries of one slot |
//!
//! An entry further away than one turn of the wheel stays in its slot and is looked at once per turn.

use std::num::NonZeroU32;

/// Length of a tick in microseconds. An entry fires at the first tick after its deadline, so at most this late.
pub const TICK: u64 = 100_000;

/// Slots of the wheel: one turn takes 51.2 s, longer than the usual heartbeat timeout.
const SLOTS: u32 = 512;

/// "No entry" in the lists that link the entries of a slot, and those that are free.
const NONE: u32 = u32::MAX;

/// When an entry is due that is free.
const NEVER: u32 = u32::MAX;

/// When an entry is due that has fired and is in no slot.
const FIRED: u32 = NEVER - 1;

/// The last tick that an entry can wait for.
const LAST: u32 = FIRED - 1;

/// Names one entry until it is removed; after that the key must not be used again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimerKey(NonZeroU32);

impl TimerKey {
    fn of(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// There are as many as nodes, so every byte counts: items are small and plain.
struct Entry<T> {
    previous: u32,
    next: u32,
    /// The tick at which the entry fires, counted from the wheel's origin: 32 bits last for 13 years.
    due: u32,
    item: T,
}

pub struct Wheel<T> {
    entries: Vec<Entry<T>>,
    /// The first entry that is free; `next` has the one after it.
    free: u32,
    len: usize,
    heads: Box<[u32; SLOTS as usize]>,
    origin: u64,
    /// The tick that is being told, or was told last.
    current: u32,
    /// The next entry of the current slot to look at.
    cursor: u32,
}

impl<T: Copy> Wheel<T> {
    pub fn new(now: u64) -> Self {
        Self { entries: Vec::new(), free: NONE, len: 0, heads: Box::new([NONE; SLOTS as usize]), origin: now, current: 0, cursor: NONE }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fires `item` at the first tick that is strictly after `deadline`; a deadline in the past means the next tick.
    pub fn insert(&mut self, deadline: u64, item: T) -> TimerKey {
        let entry = Entry { previous: NONE, next: NONE, due: FIRED, item };
        let index = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = std::mem::replace(&mut self.entries[index as usize], entry).next;
            index
        };
        self.len += 1;
        self.rearm(TimerKey::of(index), deadline);
        TimerKey::of(index)
    }

    /// Puts an entry that has fired back, under the same key.
    pub fn rearm(&mut self, key: TimerKey, deadline: u64) {
        let due = (deadline.saturating_sub(self.origin) / TICK + 1).min(u64::from(LAST)) as u32;
        let due = due.max(self.current.saturating_add(1));
        let index = key.index();
        let next = std::mem::replace(&mut self.heads[(due % SLOTS) as usize], index);
        let entry = &mut self.entries[index as usize];
        assert_eq!(entry.due, FIRED, "only what has fired is put back");
        entry.previous = NONE;
        entry.next = next;
        entry.due = due;
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
    }

    /// Whether an entry has fired and was not put back since.
    pub fn has_fired(&self, key: TimerKey) -> bool {
        self.entries[key.index() as usize].due == FIRED
    }

    /// Takes an entry out, whether it has fired or not.
    pub fn remove(&mut self, key: TimerKey) -> T {
        let index = key.index();
        let due = self.entries[index as usize].due;
        assert_ne!(due, NEVER, "a key is used once");
        if due != FIRED {
            self.unlink(index);
        }
        let entry = &mut self.entries[index as usize];
        entry.due = NEVER;
        entry.next = std::mem::replace(&mut self.free, index);
        self.len -= 1;
        entry.item
    }

    /// Takes an entry out of its slot.
    fn unlink(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Entry { previous, next, due, .. } = *entry;
        entry.due = FIRED;
        if previous == NONE {
            self.heads[(due % SLOTS) as usize] = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if self.cursor == index {
            self.cursor = next;
        }
    }

    /// Tells one entry whose tick has come; call until it returns `None`. It is in no slot any more and is to be put back
    /// ([`Wheel::rearm`]) or removed. Between two calls entries may be inserted and removed, also those that were about to fire.
    pub fn pop(&mut self, now: u64) -> Option<(TimerKey, T)> {
        let target = (now.saturating_sub(self.origin) / TICK).min(u64::from(LAST)) as u32;
        loop {
            while self.cursor != NONE {
                let index = self.cursor;
                let Entry { due, next, item, .. } = self.entries[index as usize];
                if due <= self.current {
                    self.unlink(index);
                    return Some((TimerKey::of(index), item));
                }
                self.cursor = next;
            }
            if self.current >= target {
                return None;
            }
            // After a long stop one turn is enough: it visits every slot, and whatever is due by then fires.
            self.current = (self.current + 1).max(target.saturating_sub(SLOTS - 1));
            self.cursor = self.heads[(self.current % SLOTS) as usize];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn pop(wheel: &mut Wheel<u32>, now: u64) -> Option<u32> {
        let (key, item) = wheel.pop(now)?;
        assert_eq!(wheel.remove(key), item);
        Some(item)
    }

    fn fired(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
        let mut all: Vec<u32> = std::iter::from_fn(|| pop(wheel, now)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn an_entry_fires_after_its_deadline_and_at_most_one_tick_late() {
        let mut wheel = Wheel::new(7);
        wheel.insert(7 + 3 * TICK, 1);
        assert_eq!(fired(&mut wheel, 7 + 3 * TICK), [0_u32; 0], "at the deadline itself it is not late yet");
        assert_eq!(fired(&mut wheel, 7 + 4 * TICK), [1]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_means_the_next_tick() {
        let mut wheel = Wheel::new(0);
        assert_eq!(pop(&mut wheel, 50 * TICK), None);
        wheel.insert(3, 1);
        assert_eq!(fired(&mut wheel, 50 * TICK), [0_u32; 0]);
        assert_eq!(fired(&mut wheel, 51 * TICK), [1]);
    }

    #[test]
    fn an_entry_many_turns_away_waits_for_its_turn() {
        let mut wheel = Wheel::new(0);
        let deadline = 3 * u64::from(SLOTS) * TICK + TICK / 2;
        wheel.insert(deadline, 1);
        let mut now = 0;
        while now < deadline {
            assert_eq!(pop(&mut wheel, now), None);
            now += TICK;
        }
        assert_eq!(pop(&mut wheel, now), Some(1));
    }

    #[test]
    fn after_a_long_stop_everything_due_fires_at_once() {
        let mut wheel = Wheel::new(0);
        for n in 0..2000 {
            wheel.insert(u64::from(n) * TICK, n);
        }
        assert_eq!(fired(&mut wheel, 1500 * TICK), (0..1500).collect::<Vec<_>>());
        assert_eq!(fired(&mut wheel, 9000 * TICK), (1500..2000).collect::<Vec<_>>());
    }

    #[test]
    fn entries_may_be_inserted_and_removed_while_their_slot_fires() {
        let mut wheel = Wheel::new(0);
        let keys: Vec<TimerKey> = (0..4).map(|n| wheel.insert(0, n)).collect();
        let first = pop(&mut wheel, TICK).expect("four are due");
        let other = if first == 3 { 2 } else { 3 };
        wheel.remove(keys[other as usize]);
        wheel.insert(0, 9);
        let rest = fired(&mut wheel, TICK);
        assert_eq!(rest.len(), 2);
        assert!(!rest.contains(&other) && !rest.contains(&9));
        assert_eq!(fired(&mut wheel, 2 * TICK), [9]);
    }

    #[test]
    fn an_entry_that_fired_is_put_back_under_its_key_or_removed() {
        let mut wheel = Wheel::new(0);
        let [first, second] = [1, 2].map(|n| wheel.insert(0, n));
        let mut told = [wheel.pop(TICK), wheel.pop(TICK)].map(|told| told.expect("two are due"));
        told.sort_unstable_by_key(|(_, item)| *item);
        assert_eq!((told, wheel.pop(TICK), wheel.len()), ([(first, 1), (second, 2)], None, 2));
        wheel.rearm(first, 5 * TICK);
        assert_eq!((wheel.remove(second), wheel.len()), (2, 1));
        assert_eq!(wheel.pop(5 * TICK), None);
        assert_eq!(wheel.pop(6 * TICK), Some((first, 1)));
    }

    #[test]
    #[should_panic(expected = "only what has fired is put back")]
    fn an_entry_that_still_waits_cannot_be_put_back() {
        let mut wheel = Wheel::new(0);
        let key = wheel.insert(0, 1);
        wheel.rearm(key, TICK);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(usize),
        /// What fires is put back for so long, the first so many times.
        Rearm(u64, usize),
        Advance(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..120_000_000u64).prop_map(Step::Insert),
            any::<usize>().prop_map(Step::Remove),
            (0..120_000_000u64, 0..5usize).prop_map(|(after, times)| Step::Rearm(after, times)),
            (0..20_000_000u64).prop_map(Step::Advance),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_wheel_fires_what_a_plain_list_would(steps in steps()) {
            let mut wheel = Wheel::new(0);
            let mut model: HashMap<u32, (TimerKey, u64)> = HashMap::new();
            let (mut now, mut told, mut serial) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Insert(after) => {
                        // The tick in progress is over: an entry never fires in the tick that inserted it.
                        let tick = ((now + after) / TICK + 1).max(told + 1);
                        model.insert(serial, (wheel.insert(now + after, serial), tick));
                        serial += 1;
                    }
                    Step::Remove(pick) => {
                        let mut ids: Vec<u32> = model.keys().copied().collect();
                        ids.sort_unstable();
                        if !ids.is_empty() {
                            let id = ids[pick % ids.len()];
                            let (key, _) = model.remove(&id).expect("picked from the model");
                            prop_assert_eq!(wheel.remove(key), id);
                        }
                    }
                    Step::Rearm(after, times) => {
                        now += TICK;
                        told = now / TICK;
                        for _ in 0..times {
                            let Some((key, id)) = wheel.pop(now) else { break };
                            prop_assert!(model[&id] == (key, model[&id].1) && model[&id].1 <= told);
                            wheel.rearm(key, now + after);
                            model.insert(id, (key, (now + after) / TICK + 1));
                        }
                        // The others of this tick.
                        let due: Vec<u32> = model.iter().filter(|(_, (_, tick))| *tick <= told).map(|(id, _)| *id).collect();
                        prop_assert_eq!(fired(&mut wheel, now).len(), due.len());
                        model.retain(|id, _| !due.contains(id));
                    }
                    Step::Advance(by) => {
                        now += by;
                        told = now / TICK;
                        let mut expected: Vec<u32> = model.iter().filter(|(_, (_, tick))| *tick <= told).map(|(id, _)| *id).collect();
                        expected.sort_unstable();
                        model.retain(|_, (_, tick)| *tick > told);
                        prop_assert_eq!(fired(&mut wheel, now), expected);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
