//! When free memory is worth giving back to the system: some time after much of what was kept is not kept any more.
//!
//! Owns that rule. Knows neither the allocator, which is the program's, nor how it is asked.

/// What has to have been freed since the most that was kept, in bytes: half of that, and this at least.
const LEAST: usize = 16 << 20;
/// How long a storm has to be over, in microseconds: the next one would only ask for the memory again,
const CALM_TIME_US: u64 = 1_000_000;
/// and how often memory is given back at most.
const INTERVAL_US: u64 = 5_000_000;

#[derive(Default)]
pub struct Trim {
    most: usize,
    /// When it is due, once enough is free.
    due: Option<u64>,
    next: u64,
}

impl Trim {
    /// To be asked now and then with what is kept, in bytes: whether memory should be given back now.
    pub fn is_due(&mut self, kept: usize, now: u64) -> bool {
        self.most = self.most.max(kept);
        if self.most - kept < LEAST.max(self.most / 2) {
            self.due = None;
            return false;
        }
        let due = *self.due.get_or_insert((now + CALM_TIME_US).max(self.next));
        if now >= due {
            *self = Self { most: kept, due: None, next: now + INTERVAL_US };
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn memory_goes_back_once_a_second_after_more_than_half_of_much_was_freed() {
        let mut trim = Trim::default();
        assert!(!trim.is_due(100 << 20, 0));
        assert!(!trim.is_due(51 << 20, SECOND) && !trim.is_due(51 << 20, 9 * SECOND), "half is kept still");
        assert!(!trim.is_due(50 << 20, 10 * SECOND) && !trim.is_due(1 << 20, 11 * SECOND - 1));
        assert!(trim.is_due(1 << 20, 11 * SECOND));
        assert!(!trim.is_due(1 << 20, 12 * SECOND) && !trim.is_due(0, 100 * SECOND), "there is nothing more");
    }

    #[test]
    fn little_is_not_worth_it() {
        let mut trim = Trim::default();
        assert!(!trim.is_due(LEAST - 1, 0) && !trim.is_due(0, 2 * SECOND) && !trim.is_due(0, 60 * SECOND));
    }

    #[test]
    fn a_storm_that_goes_on_keeps_its_memory_and_one_that_comes_again_costs_no_more_than_once_in_five_seconds() {
        let mut trim = Trim::default();
        for second in 0..100 {
            assert!(!trim.is_due(100 << 20, second * SECOND) && !trim.is_due(0, second * SECOND + SECOND / 2));
        }
        let given_back = (1000..2000).filter(|tenth| {
            let kept = if tenth % 20 == 0 { 100 << 20 } else { 0 };
            trim.is_due(kept, tenth * SECOND / 10)
        });
        assert_eq!(given_back.count(), 17);
    }
}
