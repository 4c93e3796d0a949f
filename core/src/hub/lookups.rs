//! Which host name is looked up next, and how long its answer is known.
//!
//! Pure: names, answers and the time come in; turns come out. Knows no resolver and no thread, only how many there may be.
//!
//! Nobody can call a look-up off, and one of a name that nobody answers for takes half a minute. So one look-up per name runs
//! at a time, however many wait for it; and of the places there are, names that were not found the last time get half at
//! most, and names that nobody knows yet leave some to those that were found before.

use super::Now;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Look-ups that may run at the same time.
pub const MAX_RUNNING: usize = 32;

/// How many of them may be of names that are trusted as little as this, in the order of [`Trust`], or less.
const PLACES: [usize; 3] = [MAX_RUNNING / 2, MAX_RUNNING - 4, MAX_RUNNING];

/// How long addresses are known, and how long it is known that there are none, in microseconds.
const KNOWN_US: u64 = 5_000_000;
const UNKNOWN_US: u64 = 1_000_000;

/// A look-up that took longer did not prove much.
const SLOW_US: u64 = 1_000_000;

/// Names that are remembered although nobody waits for them.
const MAX_IDLE: usize = 1024;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 64;

/// The addresses of a name, whose ports mean nothing, or why there are none.
pub type LookupResult = Result<Arc<[SocketAddr]>, Arc<str>>;

/// What the last look-up of a name came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    NotFound,
    New,
    Found,
}

#[derive(Default)]
pub struct Lookups {
    names: HashMap<Arc<str>, Name>,
    /// In the order of asking, for each degree of trust.
    waiting: [VecDeque<Arc<str>>; 3],
    running: [usize; 3],
    /// Names that are only remembered.
    idle: usize,
}

struct Name {
    trust: Trust,
    state: LookupState,
}

enum LookupState {
    Waiting,
    Running { since: u64 },
    Idle { answer: LookupResult, until: u64 },
}

impl Lookups {
    /// The answer, where it is known. Otherwise the name is looked up when its turn comes.
    pub fn ask(&mut self, name: &str, now: Now) -> Option<LookupResult> {
        if let Some(known) = self.names.get_mut(name) {
            match &known.state {
                LookupState::Idle { answer, until } if now.mono < *until => return Some(answer.clone()),
                LookupState::Idle { .. } => {}
                LookupState::Waiting | LookupState::Running { .. } => return None,
            }
            known.state = LookupState::Waiting;
            self.idle -= 1;
        }
        let (name, trust) = match self.names.get_key_value(name) {
            Some((name, known)) => (name.clone(), known.trust),
            None => {
                let name = Arc::<str>::from(name);
                self.names.insert(name.clone(), Name { trust: Trust::New, state: LookupState::Waiting });
                (name, Trust::New)
            }
        };
        self.waiting[trust as usize].push_back(name);
        None
    }

    /// The name to look up now, if there is one that may be.
    pub fn next(&mut self, now: Now) -> Option<Arc<str>> {
        let trust = self.turn()?;
        let name = self.waiting[trust as usize].pop_front()?;
        if let Some(known) = self.names.get_mut(&name) {
            known.state = LookupState::Running { since: now.mono };
        }
        self.running[trust as usize] += 1;
        Some(name)
    }

    /// Whether `next` has one.
    pub fn has_next(&self) -> bool {
        self.turn().is_some()
    }

    /// What the look-up of a name that was next has come to.
    pub fn finish(&mut self, name: &Arc<str>, result: Result<Vec<SocketAddr>, String>, now: Now) -> LookupResult {
        let answer: LookupResult = match result {
            Ok(mut addresses) => {
                addresses.truncate(MAX_ADDRESSES);
                Ok(addresses.into())
            }
            Err(why) => Err(why.into()),
        };
        let Some(known) = self.names.get_mut(name) else { return answer };
        let LookupState::Running { since } = known.state else { return answer };
        self.running[known.trust as usize] -= 1;
        known.trust = match &answer {
            Err(_) => Trust::NotFound,
            Ok(_) if now.mono - since > SLOW_US => Trust::New,
            Ok(_) => Trust::Found,
        };
        let until = now.mono + if answer.is_ok() { KNOWN_US } else { UNKNOWN_US };
        known.state = LookupState::Idle { answer: answer.clone(), until };
        self.idle += 1;
        self.forget(now);
        answer
    }

    /// Nobody waits for the name any more. If it is being looked up, that goes on.
    pub fn give_up(&mut self, name: &str) {
        let Some((name, _)) = self.names.get_key_value(name).filter(|(_, known)| matches!(known.state, LookupState::Waiting)) else {
            return;
        };
        let name = name.clone();
        let Some(known) = self.names.get_mut(&name) else { return };
        self.waiting[known.trust as usize].retain(|waiting| !Arc::ptr_eq(waiting, &name));
        known.state = LookupState::Idle { answer: Err("nobody waited for it".into()), until: 0 };
        self.idle += 1;
    }

    pub fn is_running(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|known| matches!(known.state, LookupState::Running { .. }))
    }

    /// Names that are known, waited for or looked up.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// How many names wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Those that are trusted most have the first turn.
    fn turn(&self) -> Option<Trust> {
        [Trust::Found, Trust::New, Trust::NotFound].into_iter().find(|trust| {
            let taken = |upto: usize| self.running[..=upto].iter().sum::<usize>();
            !self.waiting[*trust as usize].is_empty() && (*trust as usize..3).all(|upto| taken(upto) < PLACES[upto])
        })
    }

    /// Whoever looks names up without end must not fill the memory with them.
    fn forget(&mut self, now: Now) {
        if self.idle <= MAX_IDLE {
            return;
        }
        let is_idle = |known: &Name| matches!(known.state, LookupState::Idle { .. });
        self.names.retain(|_, known| !matches!(known.state, LookupState::Idle { until, .. } if until <= now.mono));
        self.idle = self.names.values().filter(|known| is_idle(known)).count();
        if self.idle > MAX_IDLE {
            let mut surplus = self.idle - MAX_IDLE / 2;
            self.names.retain(|_, known| {
                let goes = surplus > 0 && is_idle(known);
                surplus -= usize::from(goes);
                !goes
            });
            self.idle = MAX_IDLE / 2;
        }
    }
}
