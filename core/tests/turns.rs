//! Turns of bounded work, and silence that is judged after a look at the socket only: sessions on a thread that is slow, stopped
//! and late, in virtual time.

#[path = "support/bus.rs"]
mod bus;

use bus::*;
use heartbus_core::event::CloseReason;
use heartbus_core::hub::link::{CommandKind, Eviction};
use heartbus_core::hub::memory::Part;
use heartbus_core::hub::wheel::TICK;
use heartbus_core::hub::{Budget, Look, Next, NodeRef, TimerKind, budget};
use heartbus_core::wire::{FrameType, v2};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

fn receive(bus: &mut Bus, slot: u32, bytes: &[u8], turn: Budget) -> (usize, Next) {
    bus.thread.budget = turn;
    bus.with(slot, |session, cx| session.receive(cx, bytes)).expect("the connection is there")
}

/// The types of the frames that were answered with.
fn answers(bus: &mut Bus) -> Vec<u8> {
    bus.answers().into_iter().map(|(frame_type, ..)| frame_type).collect()
}

fn gateway(bus: &mut Bus, nodes: usize) -> u32 {
    let slot = bus.open();
    for n in 0..nodes {
        bus.register(slot, &format!("n{n}"));
    }
    bus.thread.budget = Budget::unlimited();
    slot
}

#[test]
fn a_turn_ends_when_it_is_used_up_and_the_next_goes_on_with_the_same_frame() {
    let mut bus = Bus::new(true);
    let slot = bus.open();
    let ping = frame(4, 0, "");
    let pings = ping.repeat(3_000);
    let (mut rest, mut turns, mut pongs) = (&pings[..], 0, 0);
    loop {
        let (consumed, next) = receive(&mut bus, slot, rest, Budget::share(1));
        turns += 1;
        pongs += answers(&mut bus).iter().filter(|frame_type| **frame_type == 5).count();
        assert_eq!(consumed % ping.len(), 0);
        assert!(consumed as u64 / ping.len() as u64 * 200 <= budget::TURN + 1_000, "{consumed} bytes in one turn");
        rest = &rest[consumed..];
        match next {
            Next::Again => assert!(!rest.is_empty()),
            other => break assert_eq!((other, rest.len()), (Next::Continue, 0)),
        }
    }
    assert_eq!(pongs, 3_000);
    assert!(turns > 5, "{turns} turns");
    // Half a frame is nothing that a turn could go on with.
    assert_eq!(receive(&mut bus, slot, &ping[..9], Budget::of(0)), (0, Next::Continue));
    assert_eq!(receive(&mut bus, slot, &ping, Budget::of(0)), (0, Next::Again));
}

#[test]
fn a_heartbeat_for_many_nodes_that_the_host_is_told_of_takes_several_turns_and_names_each_node_once_that_stays() {
    let mut bus = Bus::new(true);
    let slot = gateway(&mut bus, 1_000);
    answers(&mut bus);
    bus.host.hears_heartbeats.store(true, Ordering::Relaxed);
    let beats = frame(1, 0, "").repeat(2);
    let (mut rest, mut turns, mut longest) = (&beats[..], 0, 0);
    while !rest.is_empty() {
        let before = bus.host.heartbeats.lock().unwrap().len();
        let (consumed, next) = receive(&mut bus, slot, rest, Budget::share(1));
        rest = &rest[consumed..];
        turns += 1;
        longest = longest.max(bus.host.heartbeats.lock().unwrap().len() - before);
        assert_eq!(next, if rest.is_empty() { Next::Continue } else { Next::Again });
        if turns == 1 {
            // One that was told already, and one that was not.
            for id in ["n0", "n999"] {
                let channel_id = bus.hub.node(id).unwrap().channel_id();
                bus.with(slot, |session, cx| {
                    session.evict(cx, Eviction { node: NodeRef::of_main_channel(channel_id), why: CloseReason::Kicked })
                });
            }
            answers(&mut bus);
        }
    }
    assert!(turns >= 4 && longest as u64 * 200 <= budget::TURN, "{turns} turns of up to {longest} nodes");
    let first = (0..999).map(|n| format!("n{n}"));
    let second = (1..999).map(|n| format!("n{n}"));
    assert_eq!(*bus.host.heartbeats.lock().unwrap(), first.chain(second).collect::<Vec<_>>());
    // Each frame was answered and counted once.
    assert_eq!(answers(&mut bus), [2, 2]);
    assert_eq!((bus.thread.counters.heartbeat_requests.get(), bus.thread.counters.heartbeats.get()), (2, 2));
}

#[test]
fn data_that_the_host_has_no_room_for_is_taken_once_and_offered_as_it_is_until_there_is_room() {
    let mut bus = Bus::new(true);
    bus.host.room.set(AtomicBool::new(false)).unwrap();
    let slot = gateway(&mut bus, 2);
    let (before, data) = (bus.hub.memory().of(Part::Input), [frame(3, 0, "first"), frame(3, 0, "second")].concat());
    let turn = || Budget::share(1);
    assert_eq!(receive(&mut bus, slot, &data, turn()), (frame(3, 0, "first").len(), Next::Wait));
    assert_eq!(bus.hub.memory().of(Part::Input), before + 5);
    let rest = &data[frame(3, 0, "first").len()..];
    // What is behind it is not looked at either.
    assert_eq!(receive(&mut bus, slot, b"no frame at all", turn()), (0, Next::Wait));
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    assert_eq!(receive(&mut bus, slot, rest, turn()), (rest.len(), Next::Continue));
    assert_eq!(*bus.host.data.lock().unwrap(), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!((bus.thread.counters.data_in.get(), bus.hub.memory().of(Part::Input)), (2, before));

    // A node that was replaced meanwhile says no more.
    bus.host.room.get().unwrap().store(false, Ordering::Relaxed);
    assert_eq!(receive(&mut bus, slot, &frame(3, 0, "last"), turn()).1, Next::Wait);
    let other = bus.open();
    bus.register(other, "n0");
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    assert_eq!(receive(&mut bus, slot, b"", turn()), (0, Next::Continue));
    assert_eq!((bus.host.data.lock().unwrap().len(), bus.hub.memory().of(Part::Input)), (2, before));
}

#[test]
fn the_more_connections_are_ready_the_shorter_are_their_turns_down_to_a_least() {
    let mut bus = Bus::new(true);
    let slot = bus.open();
    let pings = frame(4, 0, "").repeat(1_000);
    let mut frames_of = |ready| receive(&mut bus, slot, &pings, Budget::share(ready)).0;
    let [alone, many, crowd, more] = [1, 300, 10_000, 1_000_000].map(&mut frames_of);
    assert!(alone > many && many > crowd && crowd == more && more > 0);
}

#[test]
fn a_long_frame_waits_for_the_turn_of_a_long_frame_and_what_is_before_it_does_not() {
    let mut bus = Bus::new(true);
    let slot = gateway(&mut bus, 1);
    for long in [frame(3, 0, &"x".repeat(budget::LONG_FRAME)), v2_frame(3, 0, &vec![0; budget::LONG_FRAME])] {
        let (ping, data_in) = (frame(4, 0, ""), bus.thread.counters.data_in.get());
        let bytes = [&ping[..], &long, &long, &ping].concat();
        assert_eq!(receive(&mut bus, slot, &bytes, Budget::share(1)), (ping.len(), Next::Later));
        assert_eq!((answers(&mut bus), bus.thread.counters.data_in.get()), (vec![5], data_in));
        // One of them, and nothing behind it.
        assert_eq!(receive(&mut bus, slot, &bytes[ping.len()..], Budget::long()), (long.len(), Next::Again));
        assert_eq!(bus.thread.counters.data_in.get(), data_in + 1);
        assert_eq!(receive(&mut bus, slot, &bytes[ping.len() + long.len()..], Budget::long()).1, Next::Again);
        assert_eq!(receive(&mut bus, slot, &ping, Budget::share(1)), (ping.len(), Next::Continue));
        assert_eq!(answers(&mut bus), [5]);
    }
}

fn v2_frame(frame_type: u8, channel_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    v2::encode(FrameType(frame_type), channel_id, payload, &mut bytes);
    bytes
}

#[test]
fn nodes_that_unregister_together_leave_over_several_turns_and_what_was_sent_behind_it_waits() {
    const NODES: usize = 1_000;
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, NODES);
    let bytes = [frame(7, 0, ""), frame(4, 0, "")].concat();
    let (mut consumed, mut turns) = (0, 0);
    while consumed == 0 {
        let before = bus.hub.node_count();
        let (taken, next) = receive(&mut bus, slot, &bytes, Budget::share(1));
        (consumed, turns) = (taken, turns + 1);
        let left = before - bus.hub.node_count();
        assert!((1..=budget::TURN as usize / budget::DEPARTURE as usize).contains(&left), "{left} left in one turn");
        assert!(next == Next::Again && answers(&mut bus).is_empty() || consumed > 0);
        assert_eq!(bus.thread.counters.unregisters.get(), u64::from(consumed > 0), "it is one frame");
    }
    assert!(turns > 10);
    receive(&mut bus, slot, &bytes[consumed..], Budget::share(1));
    assert_eq!((answers(&mut bus), bus.hub.node_count(), bus.thread.counters.nodes_unregistered.get()), (vec![5], 0, NODES as u64));
    assert!(bus.host.events.lock().unwrap().values().all(|told| *told == ["register", "unregister"]));
    assert_eq!(bus.thread.wheel.len(), 1, "the time to register in");
}

#[test]
fn a_connection_that_is_over_lets_its_nodes_leave_over_several_turns_each_once() {
    const NODES: usize = 1_000;
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, NODES);
    let mut turns = 1;
    loop {
        bus.thread.budget = Budget::share(1);
        let next = bus.with(slot, |session, cx| session.close(cx, CloseReason::PeerClosed)).unwrap();
        if next != Next::Again {
            assert_eq!(next, Next::Continue);
            break;
        }
        assert!(bus.hub.node_count() > 0);
        turns += 1;
        // Meanwhile another connection takes one of them over.
        if turns == 2 {
            bus.thread.budget = Budget::unlimited();
            let other = bus.open();
            bus.register(other, "n999");
        }
    }
    assert!(turns > 10);
    assert_eq!(bus.online().into_iter().collect::<Vec<_>>(), ["n999"]);
    for (id, told) in &*bus.host.events.lock().unwrap() {
        let expected: &[&str] = if id == "n999" { &["register", "replaced", "register"] } else { &["register", "disconnected"] };
        assert_eq!(told, expected, "{id}");
    }
    assert_eq!(bus.thread.wheel.len(), 1, "the timer of the node that is left");
}

/// Turns the clock until the timer of a connection with one node fires, or with none where `channel_id` is 0, and returns its key.
fn fired(bus: &mut Bus, channel_id: u32) -> heartbus_core::hub::wheel::TimerKey {
    loop {
        bus.now += TICK;
        if let Some((key, timer)) = bus.thread.wheel.pop(bus.now) {
            let node = TimerKind::Node(NodeRef::of_main_channel(channel_id));
            assert_eq!(timer.kind(), if channel_id == 0 { TimerKind::Register } else { node });
            return key;
        }
    }
}

#[test]
fn a_node_that_seems_silent_is_looked_for_and_only_an_empty_socket_proves_that_it_is() {
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, 1);
    let channel_id = bus.channel("n0") as u32;
    for (look, next_look) in [(Look::Unread, TIMEOUT / 16), (Look::Stopped, TIMEOUT)] {
        let key = fired(&mut bus, channel_id);
        assert_eq!(
            bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::NotYet)),
            Some(Next::Look)
        );
        let looked_at = bus.now;
        assert_eq!(
            bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), look)),
            Some(Next::Continue)
        );
        assert_eq!(bus.thread.wheel.pop(looked_at + next_look), None, "{look:?}");
    }
    // What the look finds counts from when it was found.
    let key = fired(&mut bus, channel_id);
    assert_eq!(
        bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::NotYet)),
        Some(Next::Look)
    );
    bus.now += 5 * TIMEOUT;
    bus.send(slot, 1, 0, "{}");
    let heard_at = bus.now;
    assert_eq!(
        bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::Empty)),
        Some(Next::Continue)
    );
    assert_eq!(bus.thread.wheel.pop(heard_at + TIMEOUT), None);
    let key = fired(&mut bus, channel_id);
    let ask = |bus: &mut Bus, look| bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), look));
    assert_eq!(ask(&mut bus, Look::NotYet), Some(Next::Look));
    assert_eq!(ask(&mut bus, Look::Empty), Some(Next::Close(CloseReason::HeartbeatTimeout)));
    assert_eq!(bus.host.events.lock().unwrap()["n0"], ["register", "timeout"]);
}

#[test]
fn a_node_that_the_look_finds_leaving_is_not_judged() {
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, 1);
    let channel_id = bus.channel("n0") as u32;
    let key = fired(&mut bus, channel_id);
    bus.send(slot, 7, 0, "");
    bus.register(slot, "other");
    let other = bus.channel("other") as u32;
    assert_eq!(
        bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::Empty)),
        Some(Next::Continue)
    );
    assert_eq!(bus.host.events.lock().unwrap()["n0"], ["register", "unregister"]);
    assert_eq!((bus.online().len(), bus.thread.wheel.len()), (1, 1));
    fired(&mut bus, other);
}

#[test]
fn who_registers_in_the_last_moment_is_found_by_the_look_also_when_it_has_left_again() {
    for leaves_again in [false, true] {
        let mut bus = Bus::new(false);
        let slot = bus.open();
        let key = fired(&mut bus, 0);
        let ask = |bus: &mut Bus, look| bus.with(slot, |session, cx| session.register_timer(cx, key, look));
        assert_eq!(ask(&mut bus, Look::NotYet), Some(Next::Look));
        bus.register(slot, "late");
        if leaves_again {
            bus.send(slot, 7, 0, "");
        }
        assert_eq!(ask(&mut bus, Look::Empty), Some(Next::Continue));
        assert_eq!((bus.thread.counters.register_timeouts.get(), bus.thread.wheel.len()), (0, 1));
    }
    let mut bus = Bus::new(false);
    let slot = bus.open();
    for (look, next_look) in [(Look::Unread, REGISTER_TIMEOUT / 16), (Look::Stopped, REGISTER_TIMEOUT)] {
        let key = fired(&mut bus, 0);
        assert_eq!(bus.with(slot, |session, cx| session.register_timer(cx, key, look)), Some(Next::Continue));
        assert_eq!(bus.thread.wheel.pop(bus.now + next_look), None, "{look:?}");
    }
    let key = fired(&mut bus, 0);
    assert_eq!(bus.with(slot, |session, cx| session.register_timer(cx, key, Look::Empty)), Some(Next::Close(CloseReason::RegisterTimeout)));
}

/// How one peer behaves, all by itself.
#[derive(Clone, Debug)]
enum Kind {
    /// One node that beats.
    Node,
    /// Three nodes that beat together, and talk.
    Gateway,
    /// One node that beats up to a time, and is silent then.
    Dies(u64),
    /// Says nothing.
    Mute,
    /// Registers shortly before it would be too late.
    Late,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Node),
        2 => Just(Kind::Gateway),
        2 => (0..ROUGH).prop_map(Kind::Dies),
        1 => Just(Kind::Mute),
        1 => Just(Kind::Late),
    ]
}

/// For so long in virtual time anything may hold the thread up, and then, for so long, nothing does.
const ROUGH: u64 = 60_000_000;
const QUIET: u64 = 4 * TIMEOUT;
/// Later than anything that is simulated.
const END: u64 = 2 * ROUGH;
const BEAT: u64 = TIMEOUT / 3;
/// What one read takes.
const READ: usize = 200;

struct Peer {
    kind: Kind,
    /// What it will send, and when.
    plan: VecDeque<(u64, Vec<u8>)>,
    last_beat: u64,
    unread: VecDeque<u8>,
    kept: Vec<u8>,
    is_unfinished: bool,
    is_stopped: bool,
    is_listed: bool,
    look: Look,
}

/// What an I/O thread does with its connections (`net::io`), one delay after the other between any two things that it does: a pass
/// that takes long, a process that is stopped. Meanwhile the peers do what they do.
struct Thread {
    bus: Bus,
    clock: u64,
    random: fastrand::Rng,
    peers: BTreeMap<u32, Peer>,
    ready: VecDeque<u32>,
    turn: u64,
    looks: usize,
}

impl Thread {
    fn new(kinds: &[Kind], turn: u64, seed: u64) -> Self {
        let bus = Bus::new(false);
        bus.host.room.set(AtomicBool::new(true)).unwrap();
        let random = fastrand::Rng::with_seed(seed);
        let mut thread = Self { clock: bus.now, bus, random, peers: BTreeMap::new(), ready: VecDeque::new(), turn, looks: 0 };
        for kind in kinds {
            thread.connect(kind.clone());
        }
        thread
    }

    fn connect(&mut self, kind: Kind) {
        let slot = self.bus.open();
        let mut plan = VecDeque::new();
        let register = |n: u32| frame(6, 0, &format!(r#"{{"node_id":"p{slot}-{n}"}}"#));
        let start = self.clock + self.random.u64(..BEAT);
        let mut beats = |from: u64, until: u64, bytes: Vec<u8>| {
            plan.extend((0..).map(|n| from + n * BEAT).take_while(|at| *at < until).map(|at| (at, bytes.clone())));
        };
        let beat = frame(1, 0, "{}");
        match kind {
            Kind::Node => beats(start, END, [register(0), beat].concat()),
            Kind::Gateway => {
                let registers = [register(0), register(1), register(2)].concat();
                beats(start, END, [registers, frame(3, 0, &"x".repeat(300)), beat, frame(3, 0, "more")].concat());
            }
            Kind::Dies(at) => beats(start, at.max(start + 1), [register(0), beat].concat()),
            Kind::Mute => {}
            Kind::Late => {
                let at = self.clock + REGISTER_TIMEOUT - 1;
                plan.push_back((at, register(0)));
                plan.extend((1..).map(|n| at + n * BEAT).take_while(|at| *at < END).map(|at| (at, beat.clone())));
            }
        }
        let peer = Peer {
            kind,
            plan,
            last_beat: 0,
            unread: VecDeque::new(),
            kept: Vec::new(),
            is_unfinished: false,
            is_stopped: false,
            is_listed: false,
            look: Look::NotYet,
        };
        self.peers.insert(slot, peer);
    }

    /// Time passes.
    fn pass_time(&mut self, micros: u64) {
        self.clock += micros;
        for peer in self.peers.values_mut() {
            while peer.plan.front().is_some_and(|(at, _)| *at <= self.clock) {
                let (at, bytes) = peer.plan.pop_front().unwrap();
                peer.unread.extend(bytes);
                peer.last_beat = at;
            }
        }
    }

    /// Mostly next to nothing happens in between, and sometimes the process is stopped for long.
    fn hiccup(&mut self) {
        let micros = match self.random.u32(..1000) {
            _ if self.clock > ROUGH => 1,
            0 => self.random.u64(..4 * TIMEOUT),
            1..10 => self.random.u64(..TICK * 3),
            _ => self.random.u64(..100),
        };
        self.pass_time(micros);
    }

    fn look_at_clock(&mut self) {
        self.hiccup();
        self.bus.now = self.clock;
        self.hiccup();
    }

    fn is_there(&self, slot: u32) -> bool {
        self.bus.sessions.contains_key(&slot)
    }

    fn list(&mut self, slot: u32) {
        let peer = self.peers.get_mut(&slot).unwrap();
        if !std::mem::replace(&mut peer.is_listed, true) {
            self.ready.push_back(slot);
        }
    }

    /// True when there is more.
    fn turn(&mut self, slot: u32) -> bool {
        self.bus.thread.budget = Budget::of(self.turn);
        loop {
            if !self.is_there(slot) || self.peers[&slot].is_stopped {
                return false;
            }
            self.hiccup();
            let peer = self.peers.get_mut(&slot).unwrap();
            let mut is_drained = false;
            if !peer.is_unfinished {
                let count = peer.unread.len().min(READ);
                peer.kept.extend(peer.unread.drain(..count));
                if count == 0 {
                    return false;
                }
                is_drained = count < READ;
            }
            self.look_at_clock();
            let kept = std::mem::take(&mut self.peers.get_mut(&slot).unwrap().kept);
            let (consumed, next) = self.bus.with(slot, |session, cx| session.receive(cx, &kept)).unwrap();
            let peer = self.peers.get_mut(&slot).unwrap();
            peer.kept = kept[consumed..].to_vec();
            peer.is_unfinished = next == Next::Again;
            peer.is_stopped = next == Next::Wait;
            self.bus.thread.replies.clear();
            match next {
                Next::Continue if is_drained => return false,
                Next::Continue if !self.bus.thread.budget.is_used_up() => {}
                Next::Continue | Next::Again => {
                    self.list(slot);
                    return true;
                }
                Next::Wait => return false,
                other => panic!("{other:?}"),
            }
        }
    }

    fn go_on(&mut self) {
        for _ in 0..self.ready.len() {
            let slot = self.ready.pop_front().unwrap();
            self.peers.get_mut(&slot).unwrap().is_listed = false;
            self.turn(slot);
        }
    }

    fn follow_commands(&mut self) {
        let commands = std::mem::take(&mut *self.bus.drained.0.lock().unwrap());
        for command in commands {
            match command.kind {
                CommandKind::Resume => {
                    let peer = self.peers.get_mut(&command.slot).unwrap();
                    peer.is_stopped = false;
                    peer.is_unfinished = true;
                    self.list(command.slot);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn look(&mut self, slot: u32) -> Look {
        let peer = &self.peers[&slot];
        if peer.look != Look::NotYet {
            return peer.look;
        }
        self.looks += 1;
        let look = if peer.is_stopped {
            Look::Stopped
        } else if self.turn(slot) {
            Look::Unread
        } else {
            Look::Empty
        };
        let peer = self.peers.get_mut(&slot).unwrap();
        peer.look = if peer.is_stopped { Look::Stopped } else { look };
        peer.look
    }

    fn tick(&mut self) {
        self.follow_commands();
        self.look_at_clock();
        // Before any of the looks.
        let now = self.bus.now;
        while let Some((key, timer)) = self.bus.thread.wheel.pop(now) {
            self.hiccup();
            let slot = timer.slot();
            self.bus.now = now;
            let mut next = self.judge(slot, key, timer.kind(), Look::NotYet);
            if next == Next::Look {
                let look = self.look(slot);
                self.hiccup();
                self.bus.now = now;
                next = self.judge(slot, key, timer.kind(), look);
            }
            if let Next::Close(reason) = next {
                self.may_close(slot, reason);
                self.bus.thread.budget = Budget::unlimited();
                self.bus.close(slot, reason);
            }
        }
        self.peers.values_mut().for_each(|peer| peer.look = Look::NotYet);
        self.bus.thread.replies.clear();
    }

    fn judge(&mut self, slot: u32, key: heartbus_core::hub::wheel::TimerKey, kind: TimerKind, look: Look) -> Next {
        self.bus
            .with(slot, |session, cx| match kind {
                TimerKind::Node(node) => session.node_timer(cx, key, node, look),
                kind => {
                    assert_eq!(kind, TimerKind::Register);
                    session.register_timer(cx, key, look)
                }
            })
            .unwrap_or(Next::Continue)
    }

    fn may_close(&self, slot: u32, reason: CloseReason) {
        let Peer { kind, last_beat, unread, .. } = &self.peers[&slot];
        assert!(unread.len() < READ || self.clock > *last_beat, "{kind:?} was judged although there was more to read");
        match (kind, reason) {
            (Kind::Dies(_), CloseReason::HeartbeatTimeout) => {
                assert!(self.clock > last_beat + TIMEOUT, "{kind:?} is silent for {} us only", self.clock - last_beat);
            }
            (Kind::Mute, CloseReason::RegisterTimeout) => {}
            other => panic!("{other:?}: it beats, the last time {} us ago", self.clock - last_beat),
        }
    }

    fn run(&mut self) {
        let mut next_tick = self.clock + TICK;
        let mut end = END;
        while self.clock < end {
            if self.clock > ROUGH {
                end = end.min(self.clock + QUIET);
            }
            self.look_at_clock();
            let slots: Vec<u32> = self.peers.iter().filter(|(_, peer)| !peer.unread.is_empty()).map(|(slot, _)| *slot).collect();
            for slot in slots {
                if !self.peers[&slot].is_listed {
                    self.turn(slot);
                }
            }
            self.go_on();
            self.follow_commands();
            if self.random.u32(..20) == 0 || self.clock > ROUGH {
                let has_room = self.random.u32(..3) > 0 || self.clock > ROUGH;
                self.bus.host.room.get().unwrap().store(has_room, Ordering::Relaxed);
                if has_room {
                    std::mem::take(&mut *self.bus.host.paused.lock().unwrap()).iter().for_each(|producer| producer.resume());
                }
            }
            if self.clock >= next_tick {
                self.tick();
                next_tick = (self.clock / TICK + 1) * TICK;
            }
            if self.ready.is_empty() {
                let next_plan = self.peers.values().filter_map(|peer| Some(peer.plan.front()?.0)).min();
                let next = next_plan.map_or(next_tick, |at| at.min(next_tick));
                self.pass_time(next.saturating_sub(self.clock));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whoever_beats_stays_and_whoever_is_silent_goes_however_slow_and_late_the_thread_is(
        kinds in prop::collection::vec(kinds(), 1..8),
        turn in prop_oneof![400..4_000u64, Just(budget::TURN)],
        seed: u64,
    ) {
        let mut thread = Thread::new(&kinds, turn, seed);
        thread.run();
        for (slot, peer) in &thread.peers {
            let is_there = thread.is_there(*slot);
            let stays = matches!(peer.kind, Kind::Node | Kind::Gateway | Kind::Late);
            prop_assert_eq!(is_there, stays, "{:?}", peer.kind);
            for n in 0..3 {
                let told = thread.bus.host.events.lock().unwrap().get(&format!("p{slot}-{n}")).cloned().unwrap_or_default();
                let expected: &[&str] = match peer.kind {
                    Kind::Node | Kind::Late if n == 0 => &["register"],
                    Kind::Gateway => &["register"],
                    Kind::Dies(_) if n == 0 => &["register", "timeout"],
                    _ => &[],
                };
                prop_assert_eq!(&told[..], expected, "{:?}", peer.kind);
            }
        }
        let stay = kinds.iter().map(|kind| match kind { Kind::Gateway => 3, Kind::Node | Kind::Late => 1, _ => 0 }).sum::<usize>();
        prop_assert_eq!((thread.bus.hub.node_count(), thread.bus.thread.wheel.len()), (stay, stay));
    }
}
