//! Whatever many peers send, in any order, against what must hold of each.

use crate::rig::*;

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
