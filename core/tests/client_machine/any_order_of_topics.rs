//! Whatever happens to a client's topics, in any order, against a model of a server: connections that are cut at any byte, a server that
//! loses, skips, refuses and begins anew, a host that is full. Nothing is told twice, all is told in order, and what is missing is told.

use crate::rig::*;
use heartbus_core::event::Position;
use heartbus_core::wire::topic::{Filter, matches};
use heartbus_core::wire::topic_frames::{Message, Subscribe, SubscribeReply, Unsubscribe, error_payload};
use heartbus_core::wire::{self, Dialect};

/// The last three are filters. `w/x` is heard through one alone.
const FILTERS: [&str; 6] = ["a", "b", "b/c", "w/+", "b/#", "+"];
const TOPICS: [&str; 4] = ["a", "b", "b/c", "w/x"];
/// Publications that are kept of each topic.
const KEPT: usize = 4;

#[derive(Clone, Debug)]
enum Happening {
    Subscribe(usize),
    /// Begins anew behind a publication of the past.
    SubscribeSince(usize, prop::sample::Index),
    Unsubscribe(usize),
    /// Where `is_lost`, the subscriber's outbox has no room for it.
    Publish {
        topic: usize,
        is_lost: bool,
    },
    Serve(Vec<Verdict>),
    /// So many bytes of what the server has written arrive.
    Arrive(usize),
    /// So many more, and then nothing on this connection.
    Break(usize),
    Restart,
    HostIsFull,
    HostHasRoom,
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Refuse,
    Skip,
}

fn happening() -> impl Strategy<Value = Happening> {
    let verdict = prop_oneof![8 => Just(Verdict::Accept), 1 => Just(Verdict::Refuse), 1 => Just(Verdict::Skip)];
    prop_oneof![
        4 => (0..FILTERS.len()).prop_map(Happening::Subscribe),
        2 => (0..3usize, any::<prop::sample::Index>()).prop_map(|(topic, back)| Happening::SubscribeSince(topic, back)),
        2 => (0..FILTERS.len()).prop_map(Happening::Unsubscribe),
        8 => (0..TOPICS.len(), prop::bool::weighted(0.1)).prop_map(|(topic, is_lost)| Happening::Publish { topic, is_lost }),
        8 => prop::collection::vec(verdict, 1..8).prop_map(Happening::Serve),
        6 => (0..400usize).prop_map(Happening::Arrive),
        2 => (0..400usize).prop_map(Happening::Break),
        1 => Just(Happening::Restart),
        2 => Just(Happening::HostIsFull),
        3 => Just(Happening::HostHasRoom),
        1 => Just(Happening::Pass),
    ]
}

/// All publications of a topic, as they were, and how many of the last ones are kept.
#[derive(Default)]
struct Log {
    epoch: u64,
    offset: u64,
    kept: usize,
    all: Vec<Position>,
}

impl Log {
    fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch }
    }

    /// How many there were up to this one.
    fn count_until(&self, position: Position) -> usize {
        self.all.iter().filter(|found| (found.epoch, found.offset) <= (position.epoch, position.offset)).count()
    }
}

/// A server that does what ours does.
struct Model {
    dialect: Dialect,
    logs: BTreeMap<&'static str, Log>,
    last_epoch: u64,
    last_channel: u32,
    inbound: VecDeque<(u8, Vec<u8>)>,
    out: Vec<u8>,
    subscribed: BTreeSet<String>,
}

impl Model {
    fn new(dialect: Dialect) -> Self {
        let logs = TOPICS.map(|topic| (topic, Log { epoch: 1, ..Log::default() })).into();
        let (inbound, out, subscribed) = Default::default();
        Self { dialect, logs, last_epoch: 1, last_channel: 6, inbound, out, subscribed }
    }

    fn restart(&mut self) {
        self.last_epoch += 1;
        for log in self.logs.values_mut() {
            (log.epoch, log.offset, log.kept) = (self.last_epoch, 0, 0);
        }
    }

    fn hang_up(&mut self) {
        (self.inbound, self.out, self.subscribed) = Default::default();
    }

    fn write(&mut self, frame_type: FrameType, payload: &[u8]) {
        wire::encode(self.dialect, frame_type, self.last_channel, payload, &mut self.out).unwrap();
    }

    fn message(&mut self, topic: &str, position: Position) {
        let (mut payload, data) = (Vec::new(), format!("{topic} {position:?}"));
        let message = Message { topic: topic.into(), position: Some(position), data: data.as_bytes().into() };
        message.encode(self.dialect, &mut payload).unwrap();
        self.write(FrameType::MESSAGE, &payload);
    }

    fn publish(&mut self, topic: &'static str, is_lost: bool) {
        let log = self.logs.get_mut(topic).unwrap();
        log.offset += 1;
        let position = log.position();
        log.all.push(position);
        log.kept = KEPT.min(log.kept + 1);
        if !is_lost && self.subscribed.iter().any(|filter| matches(filter, topic)) {
            self.message(topic, position);
        }
    }

    fn serve(&mut self, verdict: Verdict) {
        let Some((frame_type, payload)) = self.inbound.pop_front() else { return };
        let dialect = self.dialect;
        match FrameType(frame_type) {
            FrameType::REGISTER => {
                self.last_channel += 1;
                let protocol = if dialect == Dialect::V2 { 2 } else { 1 };
                self.out.extend(frame(6, 0, &agreement("n1", self.last_channel, protocol)));
            }
            FrameType::ACK | FrameType::HEARTBEAT_REQ => {}
            _ if verdict == Verdict::Skip => self.write(FrameType::ERROR, server_error("Rate limit exceeded", 429).as_bytes()),
            FrameType::SUBSCRIBE => {
                let Subscribe { filter, since } = Subscribe::decode(dialect, &payload).unwrap();
                if verdict == Verdict::Refuse {
                    self.subscribed.remove(&*filter);
                    return self.write(FrameType::ERROR, &error_payload("why", 403, Some(&filter), None));
                }
                let is_new = self.subscribed.insert(filter.to_string());
                let (mut answer, mut replay) = (Vec::new(), Vec::new());
                let (mut position, mut recovered) = (None, true);
                if let Some(log) = self.logs.get(&*filter) {
                    let before = log.offset - log.kept as u64;
                    position = Some(log.position());
                    let mut behind = log.offset;
                    if let Some(since) = since {
                        let is_known = since.epoch == log.epoch && since.offset <= log.offset;
                        recovered = if since == Position::default() { before == 0 } else { is_known && since.offset >= before };
                        behind = if is_known { since.offset.max(before) } else { before };
                    }
                    replay = (behind + 1..=log.offset).map(|offset| Position { offset, epoch: log.epoch }).collect();
                }
                assert!(since.is_none() || matches!(Filter::known(&filter), Filter::Exact(_)) || !is_new);
                SubscribeReply { filter: (*filter).into(), position, recovered }.encode(dialect, &mut answer);
                self.write(FrameType::SUBSCRIBE, &answer);
                replay.into_iter().for_each(|position| self.message(&filter, position));
            }
            FrameType::UNSUBSCRIBE => {
                let filter = Unsubscribe::decode(dialect, &payload).unwrap().filter;
                self.subscribed.remove(&*filter);
                self.write(FrameType::UNSUBSCRIBE, &payload);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What the host knows of a topic: how many of its publications are over, and whether it was told that it has not got some.
#[derive(Debug, Default)]
struct Heard {
    /// `None`: not answered yet.
    count: Option<usize>,
    has_gap: bool,
    /// There was an answer that it had no room for: messages go on from there.
    is_unsure: bool,
}

#[derive(Default)]
struct Host {
    wanted: BTreeMap<&'static str, Heard>,
    /// Filters that were given up, of which something may still be under way.
    left: BTreeSet<&'static str>,
    through_filter: usize,
    is_full: bool,
    is_stalled: bool,
}

impl Host {
    fn hear(&mut self, event: ClientEvent, model: &Model) {
        match event {
            ClientEvent::Subscribed { filter, position, recovered } => {
                let heard = self.wanted.get_mut(&*filter).unwrap_or_else(|| panic!("{filter} is not wanted any more"));
                heard.has_gap |= !recovered;
                if let (None, Some(position), false) = (heard.count, position, heard.is_unsure) {
                    heard.count = Some(model.logs[&*filter].count_until(position));
                }
            }
            ClientEvent::Message(message) => {
                let (topic, position) = (&*message.topic, message.position.unwrap());
                assert_eq!(message.payload, format!("{topic} {position:?}").into_bytes());
                assert_eq!(message.node_id.as_deref(), Some("n1"));
                let count = model.logs[topic].count_until(position);
                match self.wanted.get_mut(topic) {
                    Some(Heard { count: Some(before), has_gap, .. }) => {
                        let is_next = if *has_gap { count > *before } else { count == *before + 1 };
                        assert!(is_next, "{topic}: {position:?} is {count} behind {before}, told of a gap: {has_gap}");
                        (*before, *has_gap) = (count, false);
                    }
                    Some(heard) if heard.is_unsure => *heard = Heard { count: Some(count), ..Heard::default() },
                    // Through a filter.
                    _ => assert!(self.wanted.keys().chain(&self.left).any(|filter| matches(filter, topic)), "nobody wants {topic}"),
                }
                if topic == "w/x" {
                    assert!(count > self.through_filter, "again, or out of order");
                    self.through_filter = count;
                }
            }
            ClientEvent::SubscribeRefused { filter, .. } => {
                let (filter, _) = self.wanted.remove_entry(&*filter).unwrap_or_else(|| panic!("{filter} was not wanted"));
                // Of two requests, the first of which seemed to be skipped, the second may be granted.
                self.left.insert(filter);
            }
            _ => {}
        }
    }

    /// Takes what there is to be told, until it is full.
    fn take(&mut self, rig: &mut Rig, model: &Model) {
        while let Some(event) = rig.machine.poll_event(rig.now) {
            let waits = matches!(event, ClientEvent::Message(_) | ClientEvent::Subscribed { .. } | ClientEvent::SubscribeRefused { .. });
            if self.is_full && waits {
                if let ClientEvent::Subscribed { filter, .. } = &event
                    && let Some(heard) = self.wanted.get_mut(&**filter)
                {
                    heard.is_unsure = heard.count.is_none();
                }
                rig.machine.stall(event);
                self.is_stalled = true;
                return;
            }
            self.hear(event, model);
        }
    }
}

fn story(dialect: Dialect, story: Vec<Happening>) {
    let mut rig = Rig::new(if dialect == Dialect::V2 { modern() } else { settings() });
    rig.machine.handle_connected(rig.now);
    let (mut model, mut host) = (Model::new(dialect), Host::default());
    let settle = || {
        let whole = [Happening::Serve(vec![Verdict::Accept; 30]), Happening::Arrive(usize::MAX)];
        std::iter::repeat_n(whole, 3).flatten().chain([Happening::Pass])
    };
    let ending = [Happening::HostHasRoom].into_iter().chain(std::iter::repeat_n((), 4).flat_map(|()| settle()));
    let last = (0..TOPICS.len()).map(|topic| Happening::Publish { topic, is_lost: false });
    for happening in story.into_iter().chain(ending).chain(last).chain(settle()) {
        let mut is_broken = false;
        match happening {
            // What is stalled was said of the subscription before.
            Happening::Subscribe(n) if !host.is_stalled => {
                rig.machine.subscribe(FILTERS[n], None).unwrap();
                host.wanted.entry(FILTERS[n]).or_insert(Heard::default());
            }
            Happening::SubscribeSince(n, back) if !host.is_stalled && !model.logs[FILTERS[n]].all.is_empty() => {
                let position = *back.get(&model.logs[FILTERS[n]].all);
                rig.machine.subscribe(FILTERS[n], Some(position)).unwrap();
                let count = Some(model.logs[FILTERS[n]].count_until(position));
                host.wanted.insert(FILTERS[n], Heard { count, ..Heard::default() });
            }
            Happening::Unsubscribe(n) if !host.is_stalled => {
                assert_eq!(rig.machine.unsubscribe(FILTERS[n]).is_ok(), host.wanted.remove(FILTERS[n]).is_some());
                if !model.logs.contains_key(FILTERS[n]) {
                    host.left.insert(FILTERS[n]);
                }
            }
            Happening::Subscribe(_) | Happening::SubscribeSince(..) | Happening::Unsubscribe(_) => {}
            Happening::Publish { topic, is_lost } => model.publish(TOPICS[topic], is_lost),
            Happening::Serve(verdicts) => verdicts.into_iter().for_each(|verdict| model.serve(verdict)),
            Happening::Arrive(len) | Happening::Break(len) => {
                is_broken = matches!(happening, Happening::Break(_));
                if rig.machine.is_reading() {
                    let len = len.min(model.out.len());
                    rig.machine.handle_bytes(&model.out[..len]);
                    model.out.drain(..len);
                }
            }
            Happening::Restart => {
                model.restart();
                is_broken = true;
            }
            Happening::HostIsFull => host.is_full = true,
            Happening::HostHasRoom => {
                (host.is_full, host.is_stalled) = (false, false);
                rig.machine.resume(rig.now);
            }
            Happening::Pass
                if rig.machine.phase() == ClientPhase::Open && rig.machine.deadline().is_some_and(|at| at < rig.now.mono + 2 * SECOND) =>
            {
                rig.pass_to_deadline();
            }
            Happening::Pass => {}
        }
        host.take(&mut rig, &model);
        if is_broken {
            rig.machine.handle_closed(SocketEnd::Closed, rig.now);
            host.is_stalled = false;
            host.take(&mut rig, &model);
            host.left.clear();
            model.hang_up();
            rig.pass_to_deadline();
            assert_eq!(rig.machine.phase(), ClientPhase::Dial);
        }
        if rig.machine.phase() == ClientPhase::Dial {
            rig.machine.handle_connected(rig.now);
        }
        host.take(&mut rig, &model);
        rig.machine.fill_outbox(rig.now);
        let mut written = &rig.written_raw()[..];
        while let (_, Decoded::Frame { frame, len }) = wire::decode(written, MAX_BODY_LEN) {
            model.inbound.push_back((frame.frame_type.0, frame.payload.bytes().into_owned()));
            written = &written[len..];
        }
        assert!(written.is_empty());
    }
    assert_eq!(model.subscribed.iter().map(|filter| &**filter).collect::<Vec<_>>(), host.wanted.keys().copied().collect::<Vec<_>>());
    assert_eq!(rig.machine.stats().subscriptions, host.wanted.len());
    for (filter, heard) in &host.wanted {
        if let Some(log) = model.logs.get(filter) {
            assert_eq!(heard.count, Some(log.all.len()), "{filter} has come to its end");
            assert!(!heard.has_gap);
            assert_eq!(rig.machine.position(filter), Some(log.position()));
        }
    }
    if host.wanted.contains_key("w/+") {
        assert_eq!(host.through_filter, model.logs["w/x"].all.len());
    }
    let kept = rig.machine.stats().bytes_kept;
    for filter in host.wanted.keys() {
        rig.machine.unsubscribe(filter).unwrap();
    }
    assert!(host.wanted.is_empty() || kept > 0);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.machine.stats().bytes_kept, 0, "nothing is kept of what nobody wants");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn nothing_is_told_twice_all_in_order_and_what_is_missing_is_told(
        happenings in prop::collection::vec(happening(), 1..80), is_modern: bool,
    ) {
        story(if is_modern { Dialect::V2 } else { Dialect::V1 }, happenings);
    }
}
