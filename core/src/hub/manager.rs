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
use std::fmt;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Topics whose subscriptions may have changed; with more than these all of them are looked at.
const MAX_CHANGED: usize = 4096;

/// What a frame takes in memory beside its fields, rounded up.
const FRAME_BYTES: usize = 160;

/// What a topic takes that was announced, beside its name, rounded up.
const ANNOUNCED_BYTES: usize = 128;

/// Announcements that another server may refuse later on: as many as it takes to announce what a gateway may have at most.
const MAX_SENT: usize = 128;
/// Refusals that wait for being looked at. More are lost: what they were about is announced again with the next connection.
const MAX_REFUSED: usize = 4096;

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
    refused: Vec<RefusedAnnouncement>,
}

/// Something that another server has refused of an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAnnouncement {
    pub announcement: AnnouncementId,
    /// One of its topics; any other text where it was refused as a whole.
    pub topic: Box<str>,
}

struct Forwarded {
    sequence: u64,
    topic: Box<str>,
    payload: Bytes,
    origin: Origin,
}

impl Forwarded {
    fn bytes(&self) -> usize {
        FRAME_BYTES + self.topic.len() + self.payload.len() + self.origin.bytes()
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
        let changed = take(&mut waiting.changed);
        if take(&mut waiting.have_all_changed) { None } else { Some(changed.into_iter().collect()) }
    }

    /// Whoever is told from now on knows nothing.
    pub fn set_all_changed(&self) {
        let mut waiting = self.lock();
        waiting.have_all_changed = true;
        waiting.changed.clear();
        waiting.refused.clear();
    }

    /// Another server has refused something. To be announced again after a while.
    pub fn refuse(&self, refused: RefusedAnnouncement) {
        let mut waiting = self.lock();
        if waiting.refused.len() < MAX_REFUSED {
            waiting.refused.push(refused);
        }
        drop(waiting);
        (self.wake)();
    }

    pub fn take_refused(&self) -> Vec<RefusedAnnouncement> {
        take(&mut self.lock().refused)
    }

    /// Something cannot be told.
    pub fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
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

/// By which a server names what it refuses of an announcement.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementId(u64);

impl fmt::Display for AnnouncementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "announcement-{}", self.0)
    }
}

impl AnnouncementId {
    /// `None`: it is one of something else.
    pub fn parse(id: &str) -> Option<Self> {
        id.strip_prefix("announcement-")?.parse().ok().map(Self)
    }
}

/// A list of topics for the manager: each as often as there are clients more, or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub id: AnnouncementId,
    pub subscribes: bool,
    pub topics: Vec<Arc<str>>,
}

/// What the manager was told on this connection.
pub struct Announced {
    topics: HashMap<Arc<str>, ToldCount>,
    /// Those of which there were more than was told when they were put there, and those of which there were less.
    due: [VecDeque<Arc<str>>; 2],
    /// How much is to be told, of all topics together.
    changes: usize,
    /// The last ones, each with the number of its topics that were not refused.
    sent: VecDeque<Announcement>,
    /// Each once.
    refused: Vec<Arc<str>>,
    last_id: u64,
    memory: Arc<Memory>,
    counted: usize,
}

#[derive(Default)]
struct ToldCount {
    now: usize,
    told: usize,
    is_due: bool,
    is_refused: bool,
}

impl ToldCount {
    fn change(&self) -> usize {
        self.now.abs_diff(self.told)
    }
}

/// Names in one announcement.
pub const ANNOUNCED_TOGETHER: usize = 1000;

impl Announced {
    pub fn nothing(memory: Arc<Memory>) -> Self {
        let (topics, due, sent, refused) = Default::default();
        Self { topics, due, changes: 0, sent, refused, last_id: 0, memory, counted: 0 }
    }

    /// There are so many subscriptions to a topic now. False where the manager cannot be told.
    pub fn note(&mut self, topic: &str, count: usize) -> bool {
        // It is this server's alone.
        if topic::is_of_server(topic) {
            return true;
        }
        // It could not stand in a frame.
        if topic.bytes().any(|byte| matches!(byte, b' ' | b'\n' | b'\r')) {
            return count == 0;
        }
        if let Some(told) = self.topics.get_mut(topic) {
            self.changes -= told.change();
            told.now = count;
            self.changes += told.change();
        } else if count > 0 {
            self.count(self.counted + topic.len() + ANNOUNCED_BYTES);
            self.topics.insert(topic.into(), ToldCount { now: count, ..ToldCount::default() });
            self.changes += count;
        }
        self.put_into_line(topic);
        true
    }

    fn put_into_line(&mut self, topic: &str) {
        let Some((name, _)) = self.topics.get_key_value(topic) else { return };
        let name = name.clone();
        if let Some(told) = self.topics.get_mut(topic).filter(|told| told.change() > 0 && !told.is_due) {
            told.is_due = true;
            self.due[usize::from(told.now < told.told)].push_back(name);
        }
    }

    /// What is to be told next; `None`: it is told everything. `is_all`: also where that is less than goes together.
    pub fn next(&mut self, is_all: bool) -> Option<Announcement> {
        if self.changes == 0 || !is_all && self.changes < ANNOUNCED_TOGETHER {
            return None;
        }
        loop {
            for subscribes in [true, false] {
                let topics = self.take_due(subscribes);
                if !topics.is_empty() {
                    self.last_id += 1;
                    let announcement = Announcement { id: AnnouncementId(self.last_id), subscribes, topics };
                    self.sent.push_back(announcement.clone());
                    if self.sent.len() > MAX_SENT {
                        self.sent.pop_front();
                    }
                    return Some(announcement);
                }
            }
            if self.due.iter().all(VecDeque::is_empty) {
                return None;
            }
        }
    }

    fn take_due(&mut self, subscribes: bool) -> Vec<Arc<str>> {
        let (own, other) = if subscribes { (0, 1) } else { (1, 0) };
        let mut topics = Vec::new();
        while topics.len() < ANNOUNCED_TOGETHER
            && let Some(name) = self.due[own].pop_front()
        {
            let Some(told) = self.topics.get_mut(&name) else { continue };
            let change = told.change();
            if change > 0 && (told.now > told.told) != subscribes {
                // It has turned since it was put there.
                self.due[other].push_back(name);
                continue;
            }
            let count = change.min(ANNOUNCED_TOGETHER - topics.len());
            told.told = if subscribes { told.told + count } else { told.told - count };
            self.changes -= count;
            topics.extend(std::iter::repeat_n(name.clone(), count));
            if count < change {
                self.due[own].push_front(name);
                break;
            }
            told.is_due = false;
            self.forget_if_gone(&name);
        }
        topics
    }

    fn forget_if_gone(&mut self, name: &str) {
        if self.topics.get(name).is_some_and(|told| told.now == 0 && told.told == 0 && !told.is_due && !told.is_refused) {
            self.topics.remove(name);
            self.count(self.counted - name.len() - ANNOUNCED_BYTES);
        }
    }

    /// Another server has not done something of what it was told. It is told again after [`Announced::tell_refused_again`], or with what changes
    /// of it before.
    pub fn take_back(&mut self, refused: &RefusedAnnouncement) {
        let Some(place) = self.sent.iter().position(|sent| sent.id == refused.announcement) else { return };
        let announcement = &mut self.sent[place];
        let subscribes = announcement.subscribes;
        let names = match announcement.topics.iter().position(|name| **name == *refused.topic) {
            Some(place) => vec![announcement.topics.swap_remove(place)],
            None => take(&mut announcement.topics),
        };
        // What is not to be heard of any more, and was never heard of, is as it should be.
        for name in names.iter().filter(|_| subscribes) {
            if let Some(told) = self.topics.get_mut(name) {
                self.changes -= told.change();
                told.told = told.told.saturating_sub(1);
                self.changes += told.change();
                if !std::mem::replace(&mut told.is_refused, true) {
                    self.refused.push(name.clone());
                }
            }
        }
    }

    /// Whether something was refused that is to be told again.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    pub fn tell_refused_again(&mut self) {
        for name in take(&mut self.refused) {
            if let Some(told) = self.topics.get_mut(&name) {
                told.is_refused = false;
            }
            self.put_into_line(&name);
            self.forget_if_gone(&name);
        }
    }

    /// Those that are announced, to be looked at again where all may have changed.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.topics.keys().cloned().collect()
    }

    fn count(&mut self, counted: usize) {
        self.memory.change(Part::Topics, self.counted, counted);
        self.counted = counted;
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

    fn list(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    /// The next announcement: whether it subscribes, and to what.
    fn next(announced: &mut Announced) -> Option<(bool, Vec<Arc<str>>)> {
        announced.next(true).map(|next| (next.subscribes, next.topics))
    }

    #[test]
    fn announcements_say_the_difference_to_what_was_announced_in_lists_of_bounded_length() {
        let memory = Arc::new(Memory::new(1 << 20));
        let mut announced = Announced::nothing(memory.clone());
        assert!(announced.note("a", 2) && announced.note("b", 1) && announced.note("$nodes", 2));
        assert!(!announced.note("a topic", 5) && announced.note("a topic", 0), "it cannot stand in a frame");
        assert_eq!(announced.next(false), None, "more may come");
        assert_eq!(next(&mut announced), Some((true, list(&["a", "a", "b"]))));
        assert_eq!(next(&mut announced), None);
        assert!(announced.note("a", 1) && announced.note("b", 1) && announced.note("c", 0));
        assert_eq!(next(&mut announced), Some((false, list(&["a"]))));
        announced.note("many", 2500);
        let lens = std::iter::from_fn(|| announced.next(true)).map(|next| next.topics.len()).collect::<Vec<_>>();
        assert_eq!(lens, [1000, 1000, 500]);
        let mut topics = announced.topics();
        topics.sort();
        assert_eq!(topics, list(&["a", "b", "many"]));
        announced.note("a", 0);
        assert_eq!(next(&mut announced), Some((false, list(&["a"]))));
        assert_eq!(memory.of(Part::Topics), 1 + 4 + 2 * ANNOUNCED_BYTES);
        drop(announced);
        assert_eq!(memory.total(), 0);
    }

    #[test]
    fn what_changes_to_and_fro_before_it_is_told_is_kept_once_and_told_as_it_is_at_last() {
        let memory = Arc::new(Memory::new(1 << 20));
        let mut announced = Announced::nothing(memory.clone());
        for count in [500_000, 3, 400_000, 0, 7, 2] {
            announced.note("a", count);
            announced.note("b", 10 - count.min(10));
        }
        assert_eq!(memory.of(Part::Topics), 2 * (1 + ANNOUNCED_BYTES));
        assert!(announced.due.iter().map(VecDeque::len).sum::<usize>() <= 2, "each waits once");
        assert_eq!(next(&mut announced), Some((true, list(&["a", "a", "b", "b", "b", "b", "b", "b", "b", "b"]))));
        // From more to less, while it waits.
        announced.note("a", 5);
        announced.note("a", 1);
        announced.note("b", 0);
        announced.note("b", 9);
        let mut told = [next(&mut announced).unwrap(), next(&mut announced).unwrap()];
        told.sort();
        assert_eq!(told, [(false, list(&["a"])), (true, list(&["b"]))]);
        assert_eq!((next(&mut announced), announced.changes), (None, 0));
        announced.note("a", 0);
        announced.note("b", 0);
        while next(&mut announced).is_some() {}
        assert_eq!((memory.total(), announced.topics.len()), (0, 0));
    }

    #[test]
    fn what_is_refused_is_told_again_if_it_still_is_so() {
        let mut announced = Announced::nothing(Arc::new(Memory::new(1 << 20)));
        let refused = |announcement: &Announcement, topic: &str| RefusedAnnouncement { announcement: announcement.id, topic: topic.into() };
        assert!(["a", "b", "c"].into_iter().all(|topic| announced.note(topic, 2)));
        let first = announced.next(true).unwrap();
        assert_eq!(AnnouncementId::parse(&first.id.to_string()), Some(first.id));
        announced.take_back(&refused(&first, "b"));
        announced.take_back(&refused(&Announcement { id: AnnouncementId(99), ..first.clone() }, "a"));
        assert_eq!((announced.has_refused(), next(&mut announced)), (true, None), "not at once");
        announced.tell_refused_again();
        assert_eq!((announced.has_refused(), next(&mut announced)), (false, Some((true, list(&["b"])))));
        // What nobody wants any more is not.
        announced.take_back(&refused(&first, "b"));
        announced.note("b", 1);
        announced.tell_refused_again();
        assert_eq!(next(&mut announced), None);
        // The whole of it.
        announced.take_back(&refused(&first, "*"));
        announced.tell_refused_again();
        assert_eq!(next(&mut announced), Some((true, list(&["a", "a", "c", "c"]))));
        announced.take_back(&refused(&first, "*"));
        announced.tell_refused_again();
        assert_eq!(next(&mut announced), None, "once");
        let (link, ..) = link(1000);
        link.refuse(refused(&first, "a"));
        assert_eq!((link.take_refused(), link.take_refused()), (vec![refused(&first, "a")], vec![]));
    }

    #[test]
    fn what_changes_before_a_refusal_is_repaired_is_told_as_the_manager_has_it() {
        let mut announced = Announced::nothing(Arc::new(Memory::new(1 << 20)));
        let refuse = |announced: &mut Announced, announcement: &Announcement| {
            announced.take_back(&RefusedAnnouncement { announcement: announcement.id, topic: "a".into() });
        };
        announced.note("a", 1);
        let first = announced.next(true).unwrap();
        refuse(&mut announced, &first);
        // It has none: there is nothing to take away, and one to add.
        announced.note("a", 0);
        assert_eq!(next(&mut announced), None);
        announced.note("a", 1);
        assert_eq!(next(&mut announced), Some((true, list(&["a"]))));
        announced.tell_refused_again();
        assert_eq!((next(&mut announced), announced.changes), (None, 0));
        // Of two it has one, which is wanted still.
        announced.note("a", 3);
        let second = announced.next(true).unwrap();
        refuse(&mut announced, &second);
        announced.note("a", 2);
        announced.tell_refused_again();
        assert_eq!((next(&mut announced), announced.changes), (None, 0));
        announced.note("a", 0);
        assert_eq!(next(&mut announced), Some((false, list(&["a", "a"]))));
        assert!(announced.topics.is_empty());
    }

    #[test]
    fn what_a_gateways_frame_says_beside_its_content_counts() {
        let (link, memory, _) = link(1 << 16);
        let long = "x".repeat(255);
        let origin = FireOrigin {
            kind: FireKind::Other(long[..].into()),
            message_id: long[..].into(),
            source: long[..].into(),
            is_from_manager: false,
        };
        link.forward(1, "t", &"a".into(), &Origin::Firetower(Box::new(origin)));
        assert!(memory.of(Part::Output) > FRAME_BYTES + 3 * 255);
        link.take_frames(1 << 16);
        assert_eq!(memory.total(), 0);
    }
}
