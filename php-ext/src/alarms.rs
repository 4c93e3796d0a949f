//! What is to happen once at a time: kept in the order of the times, and found again by a number.
//!
//! Pure: `now` is passed in.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

pub(crate) struct Alarms<T> {
    /// By their times, and by their numbers where these are the same.
    due: BTreeMap<(Instant, i64), T>,
    /// The times of the numbers.
    times: HashMap<i64, Instant>,
    last: i64,
}

impl<T> Default for Alarms<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), times: HashMap::new(), last: 0 }
    }
}

impl<T> Alarms<T> {
    /// Returns the number that cancels it.
    pub(crate) fn add(&mut self, at: Instant, what: T) -> i64 {
        self.last += 1;
        self.due.insert((at, self.last), what);
        self.times.insert(self.last, at);
        self.last
    }

    pub(crate) fn cancel(&mut self, number: i64) -> Option<T> {
        let at = self.times.remove(&number)?;
        self.due.remove(&(at, number))
    }

    /// The next one that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        let first = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        self.times.remove(&first.key().1);
        Some(first.remove())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn alarms_come_in_the_order_of_their_times_and_not_before() {
        let (mut alarms, start) = (Alarms::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        alarms.add(at(2), "late");
        alarms.add(at(1), "early");
        alarms.add(at(1), "as early, and set later");
        assert_eq!(alarms.next(), Some(at(1)));
        assert_eq!(alarms.take_due(start), None);
        assert_eq!(alarms.take_due(at(1)), Some("early"));
        assert_eq!(alarms.take_due(at(1)), Some("as early, and set later"));
        assert_eq!(alarms.take_due(at(1)), None);
        assert_eq!(alarms.take_due(at(3)), Some("late"));
        assert_eq!(alarms.next(), None);
    }

    #[test]
    fn a_cancelled_alarm_never_comes_and_cannot_be_cancelled_again() {
        let (mut alarms, start) = (Alarms::default(), Instant::now());
        let first = alarms.add(start, 1);
        let second = alarms.add(start, 2);
        assert_eq!(alarms.cancel(first), Some(1));
        assert_eq!(alarms.cancel(first), None);
        assert_eq!(alarms.take_due(start), Some(2));
        assert_eq!(alarms.cancel(second), None);
        assert_eq!(alarms.take_due(start), None);
    }
}
