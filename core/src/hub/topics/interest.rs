//! On which threads somebody wants to hear a topic or a filter, and how many subscriptions that are.

/// How many subscriptions there are on each thread that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest(Vec<(u16, u32)>);

impl Interest {
    pub(super) fn threads(&self) -> &[(u16, u32)] {
        &self.0
    }

    /// True when the thread had none.
    pub(super) fn add(&mut self, thread: usize, count: u32) -> bool {
        match self.0.binary_search_by_key(&(thread as u16), |(thread, _)| *thread) {
            Ok(place) => {
                self.0[place].1 += count;
                false
            }
            Err(place) => {
                self.0.insert(place, (thread as u16, count));
                true
            }
        }
    }

    /// True when the thread has none any more.
    pub(super) fn remove(&mut self, thread: usize) -> bool {
        let Ok(place) = self.0.binary_search_by_key(&(thread as u16), |(thread, _)| *thread) else { return false };
        self.0[place].1 -= 1;
        let is_last = self.0[place].1 == 0;
        if is_last {
            self.0.remove(place);
        }
        is_last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn sum(&self) -> usize {
        self.0.iter().map(|(_, count)| *count as usize).sum()
    }
}
