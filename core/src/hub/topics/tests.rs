use super::kept::TIDY_PARTS;
use super::members::{Subscriber, ThreadMembers};
use super::*;
use crate::hub::NodeRef;
use crate::hub::memory::Memory;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Now {
    Now { mono: 1 + seconds * SECOND, unix: 1_700_000_000 * SECOND + seconds * SECOND }
}

fn rule(filter: &str, count: usize) -> HistoryRule {
    HistoryRule { filter: filter.into(), count, bytes: 1 << 20, ttl: Duration::from_secs(3600) }
}

fn member(slot: u32) -> Subscriber {
    Subscriber { slot, node: NodeRef::of_main_channel(1) }
}

fn parsed(filter: &str) -> Filter<'_> {
    Filter::parse(filter).unwrap()
}

/// I/O threads that are none: what was posted to them waits until it is taken.
#[derive(Default)]
struct Threads {
    posted: RefCell<BTreeMap<usize, Vec<Arc<Publication>>>>,
    full: Option<usize>,
}

impl PublicationSink for Threads {
    fn has_room(&self, interest: &[(u16, u32)]) -> bool {
        interest.iter().all(|(thread, _)| self.full != Some(usize::from(*thread)))
    }

    fn post(&self, thread: usize, publication: &Arc<Publication>) {
        self.posted.borrow_mut().entry(thread).or_default().push(publication.clone());
    }
}

impl Threads {
    fn take(&self, thread: usize) -> Vec<String> {
        let posted = self.posted.borrow_mut().remove(&thread).unwrap_or_default();
        posted.iter().map(|publication| String::from_utf8(publication.payload.to_vec()).unwrap()).collect()
    }
}

fn publish(topics: &Topics, name: &str, payload: &str, now: Now) -> Published {
    topics.publish(name, Bytes::copy_from_slice(payload.as_bytes()), now, &Threads::default()).unwrap()
}

fn made(max_topics: usize, rules: Vec<HistoryRule>, history_bytes: usize) -> Topics {
    Topics::new(max_topics, 8, rules, history_bytes, Arc::new(Memory::new(1 << 40)))
}

/// What it is given of what is kept, in pieces that are as short as can be.
fn kept(topics: &Topics, name: &str, subscribed: &Subscribed) -> Vec<Publication> {
    let mut found = Vec::new();
    let Some(mut behind) = subscribed.replay_behind else { return found };
    loop {
        let read = topics.read_kept(name, behind, 1);
        assert!(!read.has_gap);
        behind = read.publications.last().map_or(behind, |last| last.position.unwrap().offset);
        found.extend(read.publications);
        if read.since.is_some() {
            return found;
        }
    }
}

fn replay(topics: &Topics, name: &str, subscribed: &Subscribed) -> Vec<String> {
    kept(topics, name, subscribed).iter().map(|publication| String::from_utf8(publication.payload.to_vec()).unwrap()).collect()
}

#[test]
fn a_filter_has_so_many_levels_and_is_charged_for_each() {
    let memory = Arc::new(Memory::new(1 << 30));
    let topics = Topics::new(1_000_000, 8, Vec::new(), 0, memory.clone());
    let subscribe = |filter: &str| topics.subscribe(0, parsed(filter), None, at(0)).map(|_| ());
    assert_eq!(subscribe("a/b/c/d/e/f/g/+"), Ok(()));
    let charged = memory.of(Part::Topics);
    assert!(charged > 2 * 8 * 256, "{charged}");
    assert_eq!(subscribe("a/b/c/d/e/f/g/h/+"), Err(TopicRefusal::TooManyLevels));
    assert_eq!(subscribe("/////////#"), Err(TopicRefusal::TooManyLevels));
    assert_eq!(memory.of(Part::Topics), charged);
    // A name is looked up as a whole, however many levels it has.
    assert_eq!(subscribe("a/b/c/d/e/f/g/h/i/j/k"), Ok(()));
    topics.unsubscribe(0, parsed("a/b/c/d/e/f/g/+"), at(0));
    topics.unsubscribe(0, parsed("a/b/c/d/e/f/g/h/i/j/k"), at(0));
    assert_eq!(memory.of(Part::Topics), 0);
}

#[test]
fn what_is_looked_at_for_a_publication_is_bounded_by_its_levels_and_by_the_filters() {
    let topics = Topics::new(1_000_000, 8, Vec::new(), 0, Arc::new(Memory::new(1 << 30)));
    assert_eq!(topics.levels_looked_at("a/b"), 0);
    topics.subscribe(0, parsed("+/b"), None, at(0)).unwrap();
    assert_eq!(topics.levels_looked_at("a/b"), 8);
    for number in 0..1_000 {
        topics.subscribe(0, parsed(&format!("{number}/+")), None, at(0)).unwrap();
    }
    assert_eq!([topics.levels_looked_at("a/b"), topics.levels_looked_at(&"a/".repeat(120))], [8, 512]);
}

#[test]
fn a_publication_goes_once_to_each_thread_that_has_subscribers_and_says_how_many() {
    let topics = made(100, Vec::new(), 0);
    let threads = Threads::default();
    for (thread, filter) in [(0, "a/b"), (0, "a/b"), (2, "a/b"), (2, "a/+"), (3, "#"), (1, "other")] {
        topics.subscribe(thread, parsed(filter), None, at(0)).unwrap();
    }
    let published = topics.publish("a/b", "x".into(), at(0), &threads).unwrap();
    assert_eq!((published.reach, published.position.map(|position| position.offset)), (5, Some(1)));
    assert_eq!([0, 1, 2, 3].map(|thread| threads.take(thread)), [vec!["x"], vec![], vec!["x"], vec!["x"]]);
    assert_eq!(
        (topics.subscribers("a/b"), topics.subscribers("a/c"), topics.subscribers("other"), topics.subscription_count()),
        (5, 2, 2, 6)
    );
    assert_eq!((topics.topic_count(), topics.filter_count()), (2, 2));
    // A topic that nobody has named has no position, but is heard.
    let published = topics.publish("x", "y".into(), at(0), &threads).unwrap();
    assert_eq!((published, threads.take(3)), (Published { position: None, reach: 1 }, vec!["y".to_owned()]));
}

#[test]
fn a_topic_that_nobody_wants_or_keeps_is_forgotten_and_has_another_epoch_afterwards() {
    let topics = made(100, Vec::new(), 0);
    assert_eq!(publish(&topics, "a", "1", at(0)), Published { position: None, reach: 0 });
    topics.subscribe(0, parsed("a"), None, at(0)).unwrap();
    let first = publish(&topics, "a", "2", at(0)).position.unwrap();
    topics.subscribe(7, parsed("a/#"), None, at(0)).unwrap();
    for (thread, filter) in [(0, "a"), (7, "a/#")] {
        topics.unsubscribe(thread, parsed(filter), at(0));
    }
    assert_eq!((topics.topic_count(), topics.filter_count(), topics.subscription_count()), (0, 0, 0));
    let again = topics.subscribe(0, parsed("a"), Some(first), at(0)).unwrap();
    assert!(!again.recovered && again.position.unwrap().epoch != first.epoch && again.position.unwrap().offset == 0);
}

#[test]
fn what_is_no_topic_is_refused_and_so_is_one_too_many() {
    let topics = made(2, vec![rule("kept/#", 1)], 1 << 20);
    let refused = |name: &str| topics.publish(name, Bytes::new(), at(0), &Threads::default()).unwrap_err();
    assert_eq!(["", "a/+", "a\n"].map(refused), [BadTopic::Empty, BadTopic::Wildcard, BadTopic::ControlCharacter].map(TopicRefusal::Bad));
    let position = Some(Position { offset: 1, epoch: 1 });
    assert_eq!(topics.subscribe(0, parsed("a/#"), position, at(0)), Err(TopicRefusal::FilterHasNoPosition));
    topics.subscribe(0, parsed("a"), None, at(0)).unwrap();
    topics.subscribe(0, parsed("a/#"), None, at(0)).unwrap();
    for filter in ["b", "b/#"] {
        assert_eq!(topics.subscribe(0, parsed(filter), None, at(0)), Err(TopicRefusal::TooManyTopics));
    }
    assert_eq!(refused("kept/x"), TopicRefusal::TooManyTopics);
    topics.subscribe(1, parsed("a"), None, at(0)).unwrap();
    topics.subscribe(1, parsed("a/#"), None, at(0)).unwrap();
    topics.unsubscribe(0, parsed("a/#"), at(0));
    topics.unsubscribe(1, parsed("a/#"), at(0));
    topics.subscribe(0, parsed("b"), None, at(0)).unwrap();
}

#[test]
fn where_a_thread_has_no_room_nobody_gets_it() {
    let topics = made(100, vec![rule("#", 10)], 1 << 20);
    for thread in [0, 1] {
        topics.subscribe(thread, parsed("a"), None, at(0)).unwrap();
    }
    let threads = Threads { full: Some(1), ..Threads::default() };
    assert_eq!(topics.publish("a", "x".into(), at(0), &threads), Err(TopicRefusal::ServerFull));
    assert_eq!((threads.take(0), topics.history_bytes()), (vec![], 0));
    topics.unsubscribe(1, parsed("a"), at(0));
    assert_eq!(topics.publish("a", "y".into(), at(0), &threads).unwrap().position.unwrap().offset, 1);
}

#[test]
fn who_comes_back_gets_what_it_missed_or_is_told_that_something_is_missing() {
    let topics = made(100, vec![rule("chat/#", 3)], 1 << 20);
    let positions: Vec<Position> = (1..=5).map(|n| publish(&topics, "chat/a", &n.to_string(), at(0)).position.unwrap()).collect();
    let back = |since: Position| {
        let subscribed = topics.subscribe(0, parsed("chat/a"), Some(since), at(0)).unwrap();
        assert_eq!(subscribed.position, Some(positions[4]));
        (subscribed.recovered, replay(&topics, "chat/a", &subscribed).join(" "))
    };
    assert_eq!(back(positions[4]), (true, String::new()));
    assert_eq!(back(positions[3]), (true, "5".into()));
    assert_eq!(back(positions[1]), (true, "3 4 5".into()));
    assert_eq!(back(positions[0]), (false, "3 4 5".into()), "2 is missing");
    assert_eq!(back(Position::default()), (false, "3 4 5".into()), "1 and 2 are missing");
    assert_eq!(back(Position { offset: 6, ..positions[4] }), (false, "3 4 5".into()), "from the future");
    assert_eq!(back(Position { epoch: 1, ..positions[4] }), (false, "3 4 5".into()), "from another epoch");
    let new = topics.subscribe(0, parsed("chat/new"), Some(Position::default()), at(0)).unwrap();
    assert!(new.recovered && new.replay_behind.is_none());
}

#[test]
fn what_is_kept_has_bounds_of_its_own_in_count_bytes_and_time() {
    let rules = vec![
        HistoryRule { filter: "few".into(), count: 2, bytes: 1 << 20, ttl: Duration::from_secs(10) },
        HistoryRule { filter: "small".into(), count: 100, bytes: 2 * ENTRY + 8, ttl: Duration::from_secs(10) },
        HistoryRule { filter: "none".into(), count: 0, bytes: 1 << 20, ttl: Duration::from_secs(10) },
    ];
    const ENTRY: usize = history::ENTRY_BYTES;
    let topics = made(100, rules, 1 << 20);
    let kept = |name: &str, now: Now| {
        let subscribed = topics.subscribe(0, parsed(name), Some(Position::default()), now).unwrap();
        replay(&topics, name, &subscribed).join(" ")
    };
    for n in 1..=3 {
        for name in ["few", "small", "none"] {
            publish(&topics, name, &format!("000{n}"), at(n));
        }
    }
    assert_eq!([kept("few", at(3)), kept("small", at(3)), kept("none", at(3))], ["0002 0003", "0002 0003", ""]);
    assert_eq!(topics.history_bytes(), 4 * (ENTRY + 4));
    publish(&topics, "small", &"x".repeat(2 * ENTRY), at(3));
    assert_eq!(kept("small", at(3)), "", "what follows a gap is all there is");
    publish(&topics, "small", "5", at(4));
    assert_eq!((kept("small", at(4)), kept("few", at(12))), ("5".into(), "0003".into()));
    (0..TIDY_PARTS).for_each(|_| topics.tidy(at(20)));
    assert_eq!((topics.history_bytes(), topics.topic_count()), (0, 3));
}

#[test]
fn over_the_bound_on_all_histories_the_oldest_go_whose_ever_they_are() {
    let bytes = 5 * (history::ENTRY_BYTES + 1);
    let topics = made(100, vec![rule("#", 4)], bytes);
    for n in 0..9 {
        publish(&topics, ["a", "b", "c"][n % 3], &n.to_string(), at(0));
        assert!(topics.history_bytes() <= bytes);
    }
    let kept = |name: &str| replay(&topics, name, &topics.subscribe(0, parsed(name), Some(Position::default()), at(0)).unwrap()).join(" ");
    assert_eq!(["a", "b", "c"].map(kept), ["6", "4 7", "5 8"]);
    // A topic that lost all of it and that nobody wants is gone.
    let topics = made(100, vec![rule("#", 4)], history::ENTRY_BYTES + 1);
    publish(&topics, "a", "1", at(0));
    publish(&topics, "b", "1", at(0));
    assert_eq!(topics.topic_count(), 1);
}

#[test]
fn very_many_topics_of_which_little_is_kept_leave_room_for_those_who_subscribe() {
    let memory = Arc::new(Memory::new(16 << 20));
    let topics = Topics::new(1_000_000, 8, vec![rule("#", 4)], 1 << 30, memory.clone());
    let share = memory.share(Part::Topics);
    for n in 0..20_000 {
        publish(&topics, &format!("topic/{n}"), "x", at(0));
        assert!(memory.of(Part::Topics) <= share - share / 4 + 1_000, "{n}");
    }
    assert!(topics.has_share(share / 100, 16) && topics.subscribe(0, parsed("another"), None, at(0)).is_ok());
    let newest = topics.subscribe(0, parsed("topic/19999"), Some(Position::default()), at(0)).unwrap();
    assert_eq!(replay(&topics, "topic/19999", &newest), ["x"]);
    assert!(topics.history_bytes() >= share / 10, "no more goes than has to");
}

#[test]
fn a_last_value_that_changes_often_does_not_make_the_list_of_all_that_is_kept_long() {
    let topics = made(100, vec![rule("last/#", 1), rule("#", 10)], 1 << 20);
    publish(&topics, "old", "stays", at(0));
    for n in 0..100_000 {
        publish(&topics, "last/value", &n.to_string(), at(0));
    }
    assert!(topics.ledger.places() <= 2048, "{}", topics.ledger.places());
    let kept = |name: &str| replay(&topics, name, &topics.subscribe(0, parsed(name), Some(Position::default()), at(0)).unwrap()).join(" ");
    assert_eq!((kept("old"), kept("last/value")), ("stays".into(), "99999".into()));
}

#[test]
fn a_part_of_what_is_kept_is_short_also_where_payloads_are_empty() {
    const BYTES: usize = 16 * 1024;
    let topics = made(100, vec![rule("#", 10_000)], 64 << 20);
    for _ in 0..10_000 {
        publish(&topics, "a", "", at(0));
    }
    let read = topics.read_kept("a", 0, BYTES);
    assert!(
        (1..=BYTES / history::ENTRY_BYTES + 1).contains(&read.publications.len()) && read.since.is_none(),
        "{}",
        read.publications.len()
    );
    assert_eq!(topics.page(None, 0).0.len(), 1, "a page has a topic, or there would be no next one");
}

#[test]
fn one_subscription_costs_little() {
    // What the hub keeps for it is a number per thread; what the thread keeps is this.
    assert!(size_of::<(Subscriber, u64)>() <= 16, "{} bytes", size_of::<(Subscriber, u64)>());
    assert!(size_of::<Topic>() <= 56, "{} bytes", size_of::<Topic>());
}

/// What a subscriber of the model has heard.
#[derive(Default)]
struct Heard(BTreeMap<u32, Vec<(String, String)>>);

/// One I/O thread of the model.
#[derive(Default)]
struct Thread {
    members: ThreadMembers,
    mailbox: VecDeque<Arc<Publication>>,
}

struct Mailboxes<'a>(&'a RefCell<Vec<Thread>>);

impl PublicationSink for Mailboxes<'_> {
    fn has_room(&self, _: &[(u16, u32)]) -> bool {
        true
    }

    fn post(&self, thread: usize, publication: &Arc<Publication>) {
        self.0.borrow_mut()[thread].mailbox.push_back(publication.clone());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, usize),
    Unsubscribe(u32, usize),
    Publish(usize),
    /// A thread follows so many of its commands.
    Work(usize, usize),
}

const FILTERS: [&str; 6] = ["a", "b", "a/x", "a/+", "a/#", "#"];
const NAMES: [&str; 5] = ["a", "b", "a/x", "a/y", "c/d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6_u32, 0..FILTERS.len()).prop_map(|(slot, filter)| Step::Subscribe(slot, filter)),
        2 => (0..6_u32, 0..FILTERS.len()).prop_map(|(slot, filter)| Step::Unsubscribe(slot, filter)),
        4 => (0..NAMES.len()).prop_map(Step::Publish),
        3 => (0..3_usize, 1..4_usize).prop_map(|(thread, count)| Step::Work(thread, count)),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Against a naive model: each publication is for all who match it at that moment and still do when their thread comes to it.
    #[test]
    fn every_subscriber_gets_what_it_asked_for_once_in_order_and_nothing_else(steps in steps()) {
        let topics = made(100, Vec::new(), 0);
        let threads = RefCell::new((0..3).map(|_| Thread::default()).collect::<Vec<_>>());
        // Slots 0 to 5 are on threads 0 to 2 in turn.
        let thread_of = |slot: u32| slot as usize % 3;
        let mut wanted: BTreeMap<(u32, usize), u64> = BTreeMap::new();
        let mut heard = Heard::default();
        let mut expected = Heard::default();
        let mut waiting: BTreeMap<usize, VecDeque<(u64, String, String)>> = BTreeMap::new();
        let mut count = 0;
        let mut work = |thread: usize, most: usize, wanted: &BTreeMap<(u32, usize), u64>, waiting: &mut BTreeMap<usize, VecDeque<(u64, String, String)>>| {
            for _ in 0..most {
                let mut threads = threads.borrow_mut();
                let Some(publication) = threads[thread].mailbox.pop_front() else { break };
                let mut receivers = Vec::new();
                threads[thread].members.receivers(&publication.topic, publication.sequence, &mut receivers);
                for receiver in receivers {
                    let payload = String::from_utf8(publication.payload.to_vec()).unwrap();
                    heard.0.entry(receiver.slot).or_default().push((publication.topic.to_string(), payload));
                }
            }
            let waiting = waiting.entry(thread).or_default();
            for _ in 0..most {
                let Some((number, name, payload)) = waiting.pop_front() else { break };
                for slot in (0..6).filter(|slot| thread_of(*slot) == thread) {
                    let wants = |filter: usize| wanted.get(&(slot, filter)).is_some_and(|since| *since < number);
                    if (0..FILTERS.len()).any(|filter| topic::matches(FILTERS[filter], &name) && wants(filter)) {
                        expected.0.entry(slot).or_default().push((name.clone(), payload.clone()));
                    }
                }
            }
        };
        for step in steps {
            match step {
                Step::Subscribe(slot, filter) if !wanted.contains_key(&(slot, filter)) => {
                    let subscribed = topics.subscribe(thread_of(slot), parsed(FILTERS[filter]), None, at(0)).unwrap();
                    threads.borrow_mut()[thread_of(slot)].members.insert(parsed(FILTERS[filter]), member(slot), subscribed.since).unwrap();
                    // What is on its way to it through a filter comes through the topic's name from now on, also when the filter goes.
                    let is_heard = |other: usize| other > 2 && filter < 3 && topic::matches(FILTERS[other], FILTERS[filter]);
                    let before = wanted.iter().filter(|((who, other), _)| *who == slot && is_heard(*other)).map(|(_, since)| *since).min();
                    wanted.insert((slot, filter), before.map_or(count, |before| before.min(count)));
                }
                Step::Unsubscribe(slot, filter) if wanted.remove(&(slot, filter)).is_some() => {
                    let members = &mut threads.borrow_mut()[thread_of(slot)].members;
                    let id = members.find(parsed(FILTERS[filter])).unwrap();
                    prop_assert!(members.remove(id, member(slot)).is_some_and(|removed| *removed == *FILTERS[filter]));
                    topics.unsubscribe(thread_of(slot), parsed(FILTERS[filter]), at(0));
                }
                Step::Subscribe(..) | Step::Unsubscribe(..) => {}
                Step::Publish(name) => {
                    count += 1;
                    let published = topics.publish(NAMES[name], count.to_string().into(), at(0), &Mailboxes(&threads)).unwrap();
                    let matching = wanted.keys().filter(|(_, filter)| topic::matches(FILTERS[*filter], NAMES[name]));
                    let reached: std::collections::BTreeSet<usize> = matching.clone().map(|(slot, _)| thread_of(*slot)).collect();
                    prop_assert_eq!(published.reach, matching.count());
                    for thread in reached {
                        waiting.entry(thread).or_default().push_back((count, NAMES[name].to_owned(), count.to_string()));
                    }
                }
                Step::Work(thread, most) => work(thread, most, &wanted, &mut waiting),
            }
            prop_assert_eq!(topics.subscription_count(), wanted.len());
        }
        (0..3).for_each(|thread| work(thread, usize::MAX, &wanted, &mut waiting));
        prop_assert_eq!(heard.0, expected.0);
        prop_assert_eq!(threads.borrow().iter().map(|thread| thread.mailbox.len()).sum::<usize>(), 0);
    }
}

/// Mailboxes of real threads.
struct Shared(Vec<Mutex<VecDeque<Arc<Publication>>>>);

impl PublicationSink for Shared {
    fn has_room(&self, _: &[(u16, u32)]) -> bool {
        true
    }

    fn post(&self, thread: usize, publication: &Arc<Publication>) {
        self.0[thread].lock().unwrap().push_back(publication.clone());
    }
}

#[test]
fn with_many_threads_all_hear_a_topic_in_the_same_order_and_who_comes_back_misses_nothing() {
    const PUBLISHERS: u64 = 3;
    const EACH: u64 = 3_000;
    let topics = made(100, vec![rule("kept", 1 << 20)], 64 << 20);
    let shared = Shared((0..2).map(|_| Mutex::default()).collect());
    let (start, done) = (Barrier::new(PUBLISHERS as usize + 2), AtomicBool::new(false));
    let heard: Vec<Vec<(u64, Bytes)>> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (topics, shared, start) = (&topics, &shared, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..EACH {
                        topics.publish("kept", format!("{publisher}:{n}").into(), at(n), shared).unwrap();
                        topics.publish("other", "never".into(), at(n), shared).unwrap();
                    }
                })
            })
            .collect();
        let listeners: Vec<_> = (0..2)
            .map(|thread| {
                let (topics, shared, start, done) = (&topics, &shared, &start, &done);
                scope.spawn(move || {
                    start.wait();
                    let mut members = ThreadMembers::default();
                    let mut heard: Vec<(u64, Bytes)> = Vec::new();
                    let mut last = Position::default();
                    let mut random = fastrand::Rng::with_seed(thread as u64);
                    loop {
                        let is_over = done.load(Ordering::Acquire);
                        let subscribed = topics.subscribe(thread, parsed("kept"), Some(last), at(0)).unwrap();
                        assert!(subscribed.recovered);
                        let hear = |publication: &Publication, heard: &mut Vec<(u64, Bytes)>, last: &mut Position| {
                            assert_eq!(&*publication.topic, "kept");
                            *last = publication.position.unwrap();
                            heard.push((last.offset, publication.payload.clone()));
                        };
                        let mut since = Some(subscribed.since);
                        if let Some(mut behind) = subscribed.replay_behind {
                            // Others publish between one piece and the next.
                            since = loop {
                                let read = topics.read_kept("kept", behind, 500);
                                assert!(!read.has_gap);
                                read.publications.iter().for_each(|publication| hear(publication, &mut heard, &mut last));
                                behind = last.offset;
                                if read.since.is_some() {
                                    break read.since;
                                }
                            };
                        }
                        let id = members.insert(parsed("kept"), member(1), since.unwrap()).unwrap();
                        for _ in 0..random.usize(0..200) {
                            let Some(publication) = shared.0[thread].lock().unwrap().pop_front() else { break };
                            let mut receivers = Vec::new();
                            members.receivers(&publication.topic, publication.sequence, &mut receivers);
                            receivers.iter().for_each(|_| hear(&publication, &mut heard, &mut last));
                        }
                        assert!(members.remove(id, member(1)).is_some());
                        topics.unsubscribe(thread, parsed("kept"), at(0));
                        if is_over {
                            return heard;
                        }
                    }
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        done.store(true, Ordering::Release);
        listeners.into_iter().map(|listener| listener.join().unwrap()).collect()
    });
    assert!(heard[0] == heard[1], "both hear the same");
    assert!(heard[0].iter().map(|(offset, _)| *offset).eq(1..=PUBLISHERS * EACH), "each once, in order");
    for publisher in 0..PUBLISHERS {
        let prefix = format!("{publisher}:");
        let own = heard[0].iter().filter(|(_, payload)| payload.starts_with(prefix.as_bytes()));
        assert!(
            own.map(|(_, payload)| payload.clone()).eq((0..EACH).map(|n| Bytes::from(format!("{publisher}:{n}")))),
            "in the order of sending"
        );
    }
}

#[test]
fn who_gets_publications_at_once_is_entered_and_goes_live_where_their_order_is_decided() {
    let topics = made(10, vec![rule("a", 10)], 1 << 20);
    let (first, second) = (publish(&topics, "a", "1", at(0)), publish(&topics, "a", "2", at(0)));
    let is_locked = || assert!(topics.shards[(topics.random.hash_one("a") >> (u64::BITS - SHARD_BITS)) as usize].try_lock().is_err());
    let (mut entered, mut live) = (None, None);
    let begun = topics
        .subscribe_and(FEEDS, parsed("a"), first.position, at(0), |begun| {
            is_locked();
            entered = Some(begun.replay_behind);
        })
        .unwrap();
    assert_eq!((entered, begun.position), (Some(Some(1)), second.position));
    let first_part = topics.read_kept_and("a", 0, 1, |_| panic!("there is more"));
    assert_eq!((first_part.publications.len(), first_part.since), (1, None));
    let rest = topics.read_kept_and("a", 1, 1, |since| {
        is_locked();
        live = Some(since);
    });
    assert_eq!((rest.publications.len(), rest.since, live), (1, Some(2), Some(2)));
    // A filter is entered where filters are.
    let enter = |_: &Subscribed| assert!(topics.filters.try_read().is_err());
    topics.subscribe_and(FEEDS, parsed("#"), None, at(0), enter).unwrap();
}
