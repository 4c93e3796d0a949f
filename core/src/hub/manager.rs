//! This server as a gateway of a manager of Firetower's: what that is to hear, and what it was told.
//!
//! Owns what waits for it, within bounds, and the difference between the subscriptions that there are and those that were announced. Knows
//! no socket: who has one takes what waits.

use super::firetower::MessageId;
use super::memory::{Memory, Part};
use super::topics::{InterestWatcher, Origin};
use crate::wire::firetower::FireFrame;
use crate::wire::topic;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Topics whose subscriptions may have changed; with more than these all of them are looked at.
const MAX_CHANGED: usize = 4096;

/// What a frame takes in memory beside its fields, rounded up.
const FRAME_BYTES: usize = 160;

/// What a topic takes that was announced, beside its name.
const ANNOUNCED_BYTES: usize = 64;

/// What the threads of the server hand over.
pub struct ManagerLink {
    instance: u64,
    /// Bytes that may wait.
    limit: usize,
    memory: Arc<Memory>,
    waiting: Mutex<ForManager>,
    dropped: AtomicU64,
    /// Calls whoever takes what waits.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct ForManager {
    frames: VecDeque<Forwarded>,
    bytes: usize,
    changed: HashSet<Box<str>>,
    have_all_changed: bool,
}

struct Forwarded {
    sequence: u64,
    topic: Box<str>,
    payload: Bytes,
    origin: Origin,
}

impl Forwarded {
    fn bytes(&self) -> usize {
        FRAME_BYTES + self.topic.len() + self.payload.len()
    }
}

impl ManagerLink {
    /// `instance` is the server's among those that speak with each other; `limit` bounds the bytes that wait.
    pub fn new(instance: u64, limit: usize, memory: Arc<Memory>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { instance, limit, memory, waiting: Mutex::default(), dropped: AtomicU64::new(0), wake: Box::new(wake) }
    }

    /// What was published here goes to the manager as well, but for what came from it, or from another server of this kind, whose
    /// manager has it already: so nothing goes around.
    pub(super) fn forward(&self, sequence: u64, topic: &str, payload: &Bytes, origin: &Origin) {
        // Who is there is not the manager's business.
        if topic::is_of_server(topic) || origin.is_from_manager() || origin.message_id().is_some_and(|id| MessageId::parse(id).is_some()) {
            return;
        }
        let forwarded = Forwarded { sequence, topic: topic.into(), payload: payload.clone(), origin: origin.clone() };
        let (bytes, mut waiting) = (forwarded.bytes(), self.lock());
        // One that is longer goes where nothing else waits.
        if self.frame(&forwarded).check().is_err() || !waiting.frames.is_empty() && waiting.bytes + bytes > self.limit {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += bytes;
        self.memory.add(Part::Output, bytes);
        waiting.frames.push_back(forwarded);
        drop(waiting);
        (self.wake)();
    }

    fn frame<'a>(&self, Forwarded { topic, payload, origin, .. }: &'a Forwarded) -> FireFrame<'a> {
        FireFrame { kind: origin.kind().as_str(), message_id: "", source: origin.source(), topic, content: payload }
    }

    /// Frames that wait, about as many bytes as are wanted; none where nothing waits.
    pub fn take_frames(&self, wanted: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < wanted {
            let mut waiting = self.lock();
            let Some(forwarded) = waiting.frames.pop_front() else { break };
            let bytes = forwarded.bytes();
            waiting.bytes -= bytes;
            drop(waiting);
            self.memory.remove(Part::Output, bytes);
            let message_id = MessageId { instance: self.instance, sequence: forwarded.sequence }.to_string();
            if (FireFrame { message_id: &message_id, ..self.frame(&forwarded) }).write(&mut out).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        out
    }

    /// Topics of which the number of subscriptions may be another one than before; `None`: that may be so of all.
    pub fn take_changed(&self) -> Option<Vec<Box<str>>> {
        let mut waiting = self.lock();
        let changed = std::mem::take(&mut waiting.changed);
        if std::mem::take(&mut waiting.have_all_changed) { None } else { Some(changed.into_iter().collect()) }
    }

    /// Whoever is told from now on knows nothing.
    pub fn set_all_changed(&self) {
        let mut waiting = self.lock();
        waiting.have_all_changed = true;
        waiting.changed.clear();
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, ForManager> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterestWatcher for ManagerLink {
    fn changed(&self, topic: &str) {
        let mut waiting = self.lock();
        if waiting.have_all_changed {
            return;
        }
        if waiting.changed.len() >= MAX_CHANGED {
            waiting.have_all_changed = true;
            waiting.changed = HashSet::new();
        } else if !waiting.changed.insert(topic.into()) {
            return;
        }
        drop(waiting);
        (self.wake)();
    }
}

impl Drop for ManagerLink {
    fn drop(&mut self) {
        self.memory.remove(Part::Output, self.lock().bytes);
    }
}

/// A list of topics for the manager: each as often as there are clients more, or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub subscribes: bool,
    pub topics: Vec<Box<str>>,
}

/// What the manager was told on this connection.
pub struct Announced {
    counts: HashMap<Box<str>, usize>,
    /// What is to be told, in two lists.
    more: Vec<Box<str>>,
    less: Vec<Box<str>>,
    memory: Arc<Memory>,
    counted: usize,
}

/// Names in one announcement.
pub const ANNOUNCED_TOGETHER: usize = 1000;

impl Announced {
    pub fn nothing(memory: Arc<Memory>) -> Self {
        Self { counts: HashMap::new(), more: Vec::new(), less: Vec::new(), memory, counted: 0 }
    }

    /// There are so many subscriptions to a topic now.
    pub fn note(&mut self, topic: &str, count: usize) {
        // It could not stand in a frame, or is this server's alone.
        if topic::is_of_server(topic) || topic.bytes().any(|byte| matches!(byte, b' ' | b'\n' | b'\r')) {
            return;
        }
        let before = self.counts.get(topic).copied().unwrap_or(0);
        match count {
            0 => drop(self.counts.remove(topic)),
            _ => drop(self.counts.insert(topic.into(), count)),
        }
        let entry = topic.len() + ANNOUNCED_BYTES;
        let counted = self.counted + if before == 0 && count > 0 { entry } else { 0 } - if before > 0 && count == 0 { entry } else { 0 };
        self.memory.change(Part::Topics, self.counted, counted);
        self.counted = counted;
        let (list, times) = if count > before { (&mut self.more, count - before) } else { (&mut self.less, before - count) };
        list.extend(std::iter::repeat_n::<Box<str>>(topic.into(), times));
    }

    /// What is to be told next; `None`: it is told everything. `is_all`: also where that is less than goes together.
    pub fn next(&mut self, is_all: bool) -> Option<Announcement> {
        for (subscribes, list) in [(true, &mut self.more), (false, &mut self.less)] {
            if list.len() >= ANNOUNCED_TOGETHER || is_all && !list.is_empty() {
                let rest = list.split_off(list.len().min(ANNOUNCED_TOGETHER));
                return Some(Announcement { subscribes, topics: std::mem::replace(list, rest) });
            }
        }
        None
    }

    /// Those that are announced, to be looked at again where all may have changed.
    pub fn topics(&self) -> Vec<Box<str>> {
        self.counts.keys().cloned().collect()
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.memory.remove(Part::Topics, self.counted);
    }
}

#[cfg(test)]
mod tests {
    use super::super::topics::{FireKind, FireOrigin};
    use super::*;
    use crate::wire::firetower::{FireFront, front};
    use std::sync::atomic::AtomicUsize;

    fn link(limit: usize) -> (ManagerLink, Arc<Memory>, Arc<AtomicUsize>) {
        let (memory, woken) = (Arc::new(Memory::new(1 << 20)), Arc::new(AtomicUsize::new(0)));
        let wakes = woken.clone();
        let wake = move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        };
        (ManagerLink::new(7, limit, memory.clone(), wake), memory, woken)
    }

    fn of_gateway(message_id: &str, is_from_manager: bool) -> Origin {
        let kind = FireKind::Publish;
        Origin::Firetower(Box::new(FireOrigin { kind, message_id: message_id.into(), source: "user".into(), is_from_manager }))
    }

    #[test]
    fn what_is_published_here_goes_there_under_an_id_of_this_server_and_nothing_goes_around() {
        let (link, memory, woken) = link(1 << 16);
        let other = MessageId { instance: 8, sequence: 1 }.to_string();
        link.forward(1, "t", &"a".into(), &Origin::User);
        link.forward(2, "t", &"from the manager".into(), &of_gateway("1234567890", true));
        link.forward(3, "t", &"from another server".into(), &of_gateway(&other, false));
        link.forward(4, "t", &"b".into(), &of_gateway("1234567890", false));
        link.forward(5, "$nodes", &"who is here".into(), &Origin::System);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        let frames = link.take_frames(1 << 16);
        let FireFront::Frame { frame, len } = front(&frames, 1000) else { panic!() };
        assert_eq!((frame.message_id, frame.source, frame.topic, frame.content), ("000000000007000000000001", "user", "t", &b"a"[..]));
        let FireFront::Frame { frame, len: second } = front(&frames[len..], 1000) else { panic!() };
        assert_eq!((frame.message_id, frame.content, len + second), ("000000000007000000000004", &b"b"[..], frames.len()));
        assert_eq!((memory.total(), link.dropped()), (0, 0));
    }

    #[test]
    fn more_than_may_wait_is_dropped_and_counted_but_a_long_one_goes_where_nothing_waits() {
        let (link, memory, _) = link(1000);
        link.forward(1, "t", &vec![b'x'; 5000].into(), &Origin::User);
        link.forward(2, "t", &"dropped".into(), &Origin::User);
        link.forward(3, "a topic", &"cannot stand in a frame".into(), &Origin::User);
        assert_eq!(link.dropped(), 2);
        assert!(memory.of(Part::Output) > 5000 && link.take_frames(1).len() > 5000 && link.take_frames(1).is_empty());
        for sequence in 0..20 {
            link.forward(sequence, "t", &"x".into(), &Origin::User);
        }
        assert_eq!(link.dropped(), 2 + 14, "six fit");
        drop(link);
        assert_eq!(memory.total(), 0);
    }

    #[test]
    fn topics_that_change_are_told_once_and_very_many_as_all() {
        let (link, _, woken) = link(1000);
        link.changed("a");
        link.changed("a");
        assert_eq!((woken.load(Ordering::Relaxed), link.take_changed()), (1, Some(vec!["a".into()])));
        assert_eq!(link.take_changed(), Some(Vec::new()));
        (0..=MAX_CHANGED).for_each(|n| link.changed(&n.to_string()));
        link.changed("one more");
        assert_eq!((link.take_changed(), link.take_changed()), (None, Some(Vec::new())));
        link.changed("a");
        link.set_all_changed();
        assert_eq!((link.take_changed(), link.take_changed()), (None, Some(Vec::new())));
    }

    #[test]
    fn announcements_say_the_difference_to_what_was_announced_in_lists_of_bounded_length() {
        let memory = Arc::new(Memory::new(1 << 20));
        let mut announced = Announced::nothing(memory.clone());
        announced.note("a", 2);
        announced.note("b", 1);
        announced.note("a topic", 5);
        announced.note("$nodes", 2);
        assert_eq!(announced.next(false), None, "more may come");
        let list = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        assert_eq!(announced.next(true), Some(Announcement { subscribes: true, topics: list(&["a", "a", "b"]) }));
        assert_eq!(announced.next(true), None);
        announced.note("a", 1);
        announced.note("b", 1);
        announced.note("c", 0);
        assert_eq!(announced.next(true), Some(Announcement { subscribes: false, topics: list(&["a"]) }));
        announced.note("many", 2500);
        let lens = std::iter::from_fn(|| announced.next(true)).map(|next| next.topics.len()).collect::<Vec<_>>();
        assert_eq!(lens, [1000, 1000, 500]);
        assert_eq!(
            {
                let mut topics = announced.topics();
                topics.sort();
                topics
            },
            list(&["a", "b", "many"])
        );
        announced.note("a", 0);
        assert_eq!(memory.of(Part::Topics), 1 + 4 + 2 * ANNOUNCED_BYTES);
        drop(announced);
        assert_eq!(memory.total(), 0);
    }
}
