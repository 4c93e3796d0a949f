//! How many lines a place in the code may write: whatever peers or the host do in a loop, a log neither fills a disk nor keeps a
//! thread busy. What is left out is counted.
//!
//! Owns the counts of the process. Nothing here waits for a lock: a process that was forked off in the middle of a line goes on.
//! Does not know where lines go, and has no clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use tracing::{Level, Metadata};

const SECOND: u64 = 1_000_000;

/// One line per event of a life, where somebody wants to read them all: far more than a quiet second has.
const LIVES: u32 = 1000;
/// One line per thing that went wrong: enough to see what is going on.
const COMPLAINTS: u32 = 10;

/// More places than the code has that lines come from.
const PLACES: usize = 256;

struct CallSite {
    /// Where it is in memory; 0: nobody's yet.
    address: AtomicUsize,
    since: AtomicU64,
    written: AtomicU32,
    left_out: AtomicU64,
    /// What is left out. Whoever finds it locked goes on without.
    text: Mutex<Option<(Level, String)>>,
}

impl CallSite {
    const fn new() -> Self {
        Self {
            address: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            written: AtomicU32::new(0),
            left_out: AtomicU64::new(0),
            text: Mutex::new(None),
        }
    }
}

pub(super) struct Quotas {
    places: [CallSite; PLACES],
    /// The process that the counts are of.
    process: AtomicU32,
}

impl Quotas {
    pub(super) const fn new() -> Self {
        Self { places: [const { CallSite::new() }; PLACES], process: AtomicU32::new(0) }
    }

    /// What was left out in a process that this one was forked off is told there.
    pub(super) fn belong_to(&self, process: u32) {
        if self.process.swap(process, Ordering::Relaxed) != process {
            self.places.iter().for_each(|place| place.left_out.store(0, Ordering::Relaxed));
        }
    }

    /// Whether a line may be written. Where not, `text` says what is left out.
    pub(super) fn may(&self, line: &'static Metadata<'static>, now: u64, text: impl FnOnce() -> String) -> bool {
        let place = self.place(std::ptr::from_ref(line).addr());
        let since = place.since.load(Ordering::Relaxed);
        // A process that was forked off, or a clock of which another thread read more, is no reason for a panic.
        if now.saturating_sub(since) >= SECOND && place.since.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            place.written.store(0, Ordering::Relaxed);
        }
        let most = if *line.level() <= Level::WARN { COMPLAINTS } else { LIVES };
        if place.written.fetch_add(1, Ordering::Relaxed) < most {
            return true;
        }
        if place.left_out.fetch_add(1, Ordering::Relaxed) == 0
            && let Ok(mut kept) = place.text.try_lock()
        {
            *kept = Some((*line.level(), text()));
        }
        false
    }

    /// What was left out and not told yet, in seconds that are over, or at all: of what, at which level, and how many.
    pub(super) fn take_left_out(&self, now: u64, all: bool) -> Vec<(Level, String, u64)> {
        let is_due = |place: &&CallSite| {
            place.left_out.load(Ordering::Relaxed) > 0 && (all || now.saturating_sub(place.since.load(Ordering::Relaxed)) >= SECOND)
        };
        let told = self.places.iter().filter(is_due).map(|place| {
            let count = place.left_out.swap(0, Ordering::Relaxed);
            let text = place.text.try_lock().ok().and_then(|mut text| text.take());
            let (level, of) = text.unwrap_or((Level::WARN, String::new()));
            (level, of, count)
        });
        told.filter(|(.., count)| *count > 0).collect()
    }

    fn place(&self, address: usize) -> &CallSite {
        let first = address / align_of::<Metadata<'_>>() % PLACES;
        let is_its_own = |place: &&CallSite| {
            let taken = place.address.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok() || taken == Err(address)
        };
        // Should there be no place left, some share one.
        self.places[first..].iter().chain(&self.places[..first]).find(is_its_own).unwrap_or(&self.places[first])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Subscriber};

    /// Remembers where lines come from.
    struct Places(Arc<Mutex<Vec<&'static Metadata<'static>>>>);

    impl Subscriber for Places {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(event.metadata());
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn places(log: impl FnOnce()) -> Vec<&'static Metadata<'static>> {
        let places = Arc::default();
        tracing::subscriber::with_default(Places(Arc::clone(&places)), log);
        std::mem::take(&mut *places.lock().unwrap())
    }

    fn written(quotas: &Quotas, line: &'static Metadata<'static>, now: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(quotas.may(line, now, || "of this".into()))).sum()
    }

    #[test]
    fn a_place_writes_so_many_lines_per_second_by_its_level_and_the_rest_is_counted() {
        let lines = places(|| {
            tracing::error!("a");
            tracing::warn!("b");
            tracing::info!("c");
            tracing::debug!("d");
        });
        let quotas = Quotas::new();
        for (line, most) in lines.iter().zip([COMPLAINTS, COMPLAINTS, LIVES, LIVES]) {
            assert_eq!(written(&quotas, line, SECOND, 5000), most);
            assert_eq!(written(&quotas, line, 2 * SECOND - 1, 5000), 0);
            assert_eq!(written(&quotas, line, 2 * SECOND, 5000), most);
        }
        let told = quotas.take_left_out(3 * SECOND, false);
        let mut counts: Vec<_> = told.iter().map(|(level, of, count)| (*level, of.as_str(), *count)).collect();
        counts.sort_by_key(|(level, ..)| *level);
        let left = |most: u32| u64::from(15_000 - 2 * most);
        let expected = [(Level::ERROR, COMPLAINTS), (Level::WARN, COMPLAINTS), (Level::INFO, LIVES), (Level::DEBUG, LIVES)];
        assert_eq!(counts, expected.map(|(level, most)| (level, "of this", left(most))));
        assert!(quotas.take_left_out(u64::MAX, true).is_empty(), "it is told once");
    }

    #[test]
    fn what_is_left_out_is_told_when_its_second_is_over_or_at_the_end() {
        let lines = places(|| tracing::error!("x"));
        let quotas = Quotas::new();
        written(&quotas, lines[0], SECOND, 11);
        assert!(quotas.take_left_out(2 * SECOND - 1, false).is_empty());
        assert_eq!(quotas.take_left_out(2 * SECOND - 1, true).len(), 1);
        written(&quotas, lines[0], SECOND, 1);
        assert_eq!(quotas.take_left_out(2 * SECOND, false), [(Level::ERROR, "of this".to_owned(), 1)]);
    }

    #[test]
    fn a_process_that_was_forked_off_tells_nothing_of_its_parent() {
        let lines = places(|| tracing::error!("x"));
        let quotas = Quotas::new();
        quotas.belong_to(1);
        written(&quotas, lines[0], SECOND, 20);
        quotas.belong_to(1);
        assert_eq!(quotas.take_left_out(SECOND, true).len(), 1);
        written(&quotas, lines[0], SECOND, 20);
        quotas.belong_to(2);
        assert!(quotas.take_left_out(SECOND, true).is_empty());
    }

    #[test]
    fn more_places_than_there_is_room_for_are_bounded_all_the_same() {
        let quotas = Quotas::new();
        for address in 1..=2 * PLACES {
            quotas.place(address * align_of::<Metadata<'_>>());
        }
        let lines = places(|| tracing::error!("x"));
        assert_eq!(written(&quotas, lines[0], SECOND, 100), COMPLAINTS);
    }
}
