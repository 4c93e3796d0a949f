//! Questions that wait for the host's decision.
//!
//! Owns their numbers, how many may be open, and that each is answered once: by the host, or by whoever asked and waits no longer. What is
//! asked, and for how long it is waited, is the business of sessions.

use super::link::Link;
use crate::model::{Decision, EventKind};
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why an answer is none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no question of this number: it was answered, or nobody waits for the answer any more.
    NoSuchQuestion,
    /// It answers something else; the question stays open.
    OfOtherKind,
}

pub struct Decisions {
    most: usize,
    open: Mutex<OpenQuestions>,
    ignored: AtomicU64,
}

struct OpenQuestions {
    last: u32,
    /// Who waits for what, by the number of the question.
    asked_by: HashMap<u32, (Arc<Link>, EventKind)>,
}

impl Decisions {
    pub fn new(most: usize) -> Self {
        // An answer to the server that was here before must not be one to this.
        let last = RandomState::new().hash_one(0) as u32;
        Self { most, open: Mutex::new(OpenQuestions { last, asked_by: HashMap::new() }), ignored: AtomicU64::new(0) }
    }

    /// The number of a question of this connection; `None` where as many are open as may.
    pub fn open(&self, asked_by: &Arc<Link>, kind: EventKind) -> Option<u32> {
        let mut open = self.lock();
        if open.asked_by.len() >= self.most {
            return None;
        }
        loop {
            open.last = open.last.wrapping_add(1);
            let number = open.last;
            if number != 0
                && let Entry::Vacant(place) = open.asked_by.entry(number)
            {
                place.insert((asked_by.clone(), kind));
                return Some(number);
            }
        }
    }

    /// Nobody waits for the answer any more. False: it is on its way.
    pub fn close(&self, number: u32) -> bool {
        let mut open = self.lock();
        let was_open = open.asked_by.remove(&number).is_some();
        // After a storm.
        if open.asked_by.is_empty() {
            open.asked_by.shrink_to(64);
        }
        was_open
    }

    /// The host's answer goes to whoever asked, once.
    ///
    /// # Errors
    /// [`NoAnswer`]; where there is no such question that is counted.
    pub fn answer(&self, number: u32, decision: Decision) -> Result<(), NoAnswer> {
        let mut open = self.lock();
        let kind = open.asked_by.get(&number).map(|(_, kind)| *kind);
        if kind.is_some_and(|kind| !answers(&decision, kind)) {
            return Err(NoAnswer::OfOtherKind);
        }
        let asked_by = open.asked_by.remove(&number);
        drop(open);
        let Some((asked_by, _)) = asked_by else {
            self.ignored.fetch_add(1, Ordering::Relaxed);
            return Err(NoAnswer::NoSuchQuestion);
        };
        asked_by.decide(number, decision);
        Ok(())
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().asked_by.len()
    }

    /// Answers to nothing.
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, OpenQuestions> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answers(decision: &Decision, kind: EventKind) -> bool {
    match decision {
        Decision::Refuse | Decision::Allow => true,
        Decision::AllowWithMetadata(_) => kind == EventKind::Authenticate,
        Decision::AllowTopics(_) => kind == EventKind::SubscribeBefore,
        Decision::AllowPublication { .. } => kind == EventKind::PublishBefore,
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::{Answered, Command, CommandKind, CommandSink};
    use super::*;

    #[derive(Default)]
    struct Commands(Mutex<Vec<Command>>);

    impl CommandSink for Commands {
        fn post(&self, command: Command) {
            self.0.lock().unwrap().push(command);
        }
    }

    fn decisions(most: usize) -> (Decisions, Arc<Link>, Arc<Commands>) {
        let commands = Arc::new(Commands::default());
        (Decisions::new(most), Arc::new(Link::new(7, ([127, 0, 0, 1], 1).into(), 3, commands.clone())), commands)
    }

    #[test]
    fn an_answer_goes_to_the_connection_that_asked_once() {
        let (decisions, link, commands) = decisions(10);
        let (first, second) =
            (decisions.open(&link, EventKind::Authenticate).unwrap(), decisions.open(&link, EventKind::Authenticate).unwrap());
        assert!(first != second && decisions.count() == 2);
        assert_eq!(decisions.answer(second, Decision::Allow), Ok(()));
        assert_eq!(decisions.answer(second, Decision::Refuse), Err(NoAnswer::NoSuchQuestion), "twice");
        assert_eq!((decisions.count(), decisions.ignored()), (1, 1));
        let posted: Vec<_> = commands.0.lock().unwrap().drain(..).collect();
        assert_eq!((posted.len(), posted[0].slot, posted[0].connection_id), (1, 3, 7));
        let answer = Answered { number: second, decision: Decision::Allow };
        assert_eq!(posted[0].kind, CommandKind::Decide(Box::new(answer)));
    }

    #[test]
    fn whoever_waits_no_longer_is_answered_no_more() {
        let (decisions, link, commands) = decisions(10);
        let number = decisions.open(&link, EventKind::Authenticate).unwrap();
        assert!(decisions.close(number) && !decisions.close(number));
        assert_eq!(decisions.answer(number, Decision::Allow), Err(NoAnswer::NoSuchQuestion));
        assert!(commands.0.lock().unwrap().is_empty());
        let number = decisions.open(&link, EventKind::Authenticate).unwrap();
        decisions.answer(number, Decision::Allow).unwrap();
        assert!(!decisions.close(number), "the answer is on its way");
    }

    #[test]
    fn no_more_are_open_than_may_be_and_a_number_that_is_open_is_not_given_again() {
        let (decisions, link, _) = decisions(2);
        decisions.lock().last = u32::MAX - 1;
        let first = decisions.open(&link, EventKind::Authenticate).unwrap();
        let second = decisions.open(&link, EventKind::Authenticate).unwrap();
        assert_eq!((first, second), (u32::MAX, 1), "0 is none");
        assert_eq!(decisions.open(&link, EventKind::Authenticate), None);
        decisions.close(second);
        decisions.lock().last = u32::MAX - 1;
        assert_eq!(decisions.open(&link, EventKind::Authenticate), Some(1));
    }

    #[test]
    fn an_answer_to_something_else_is_none_and_the_question_stays_open() {
        let (decisions, link, commands) = decisions(10);
        let registers = decisions.open(&link, EventKind::Authenticate).unwrap();
        let subscribes = decisions.open(&link, EventKind::SubscribeBefore).unwrap();
        assert_eq!(decisions.answer(registers, Decision::AllowTopics(vec![])), Err(NoAnswer::OfOtherKind));
        assert_eq!(decisions.answer(subscribes, Decision::AllowWithMetadata("{}".into())), Err(NoAnswer::OfOtherKind));
        assert_eq!((decisions.count(), decisions.ignored(), commands.0.lock().unwrap().len()), (2, 0, 0));
        assert_eq!(decisions.answer(subscribes, Decision::AllowTopics(vec!["a".into()])), Ok(()));
    }
}
