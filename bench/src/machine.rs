//! The pure machine by itself: sessions, nodes and a wheel on one thread, with no socket and a clock of our own.

use heartbus_core::event::Resume;
use heartbus_core::hub::fan_out::{FanOut, FanOutSink, HubThread};
use heartbus_core::hub::link::{Command, CommandSink};
use heartbus_core::hub::session::Context;
use heartbus_core::hub::thread_state::ThreadState;
use heartbus_core::hub::topic_fan_out::TopicFanOut;
use heartbus_core::hub::topics::members::Subscriber;
use heartbus_core::hub::{Event, EventMask, Host, Hub, Link, Look, Next, Now, Session, TimerKind};
use heartbus_core::settings::ServerConfig;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SECOND: u64 = 1_000_000;
/// Of the machine's nodes, in microseconds.
pub const TIMEOUT: u64 = 30 * SECOND;

/// A host that subscribed to nothing, and connections that nobody writes to.
struct Nobody;

impl Host for Nobody {
    fn wants(&self, _kinds: EventMask) -> bool {
        false
    }

    fn push_data(&self, _event: Event, _bytes: usize, _producer: Arc<dyn Resume>) -> Result<(), Event> {
        Ok(())
    }

    fn push_state(&self, _event: Event) {}

    fn is_crowded(&self, _producer: Option<Arc<dyn Resume>>) -> bool {
        false
    }
}

impl CommandSink for Nobody {
    fn post(&self, _command: Command) {}
}

/// What was handed to the one thread that there is, last.
#[derive(Default)]
struct Posted(Mutex<Option<Arc<TopicFanOut>>>);

impl FanOutSink for Posted {
    fn post_fan_out(&self, _fan_out: Arc<FanOut>) {}

    fn post_publication(&self, fan_out: Arc<TopicFanOut>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fan_out);
    }
}

pub struct Machine {
    hub: Hub,
    state: ThreadState,
    sessions: Vec<Option<Session>>,
    posted: Arc<Posted>,
    receivers: Vec<Subscriber>,
    pub now: u64,
}

impl Default for Machine {
    fn default() -> Self {
        let limits = ServerConfig {
            heartbeat_timeout: Duration::from_micros(TIMEOUT),
            register_timeout: Duration::from_micros(TIMEOUT),
            max_nodes_per_connection: 1_000_000,
            max_nodes: 10_000_000,
            max_frame_bytes: 1 << 20,
            ..ServerConfig::default()
        };
        let (hub, posted) = (Hub::new(limits, Arc::new(Nobody)), Arc::new(Posted::default()));
        hub.set_threads(vec![HubThread { sink: posted.clone(), counters: Arc::default() }]);
        Self {
            hub,
            state: ThreadState::new(0, Arc::default(), fastrand::Rng::with_seed(1), now(SECOND)),
            sessions: Vec::new(),
            posted,
            receivers: Vec::new(),
            now: SECOND,
        }
    }
}

fn now(micros: u64) -> Now {
    Now { mono: micros, unix: 1_700_000_000_000_000 + micros }
}

impl Machine {
    /// Opens a connection and returns its number.
    pub fn open(&mut self) -> usize {
        self.open_with(Session::open)
    }

    /// As [`Machine::open`], of a WebSocket on which frames of v2 are spoken.
    pub fn open_websocket(&mut self) -> usize {
        let slot = self.open_with(Session::open_websocket);
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: heartbus.v2\r\n\r\n";
        self.receive(slot, request, |replies| assert!(replies.starts_with(b"HTTP/1.1 101 ")));
        slot
    }

    fn open_with(&mut self, open: impl FnOnce(Arc<Link>, &mut Context<'_>) -> Session) -> usize {
        let slot = self.sessions.len();
        let link = Arc::new(Link::new(slot as u64 + 1, ([127, 0, 0, 1], 1).into(), slot as u32, Arc::new(Nobody)));
        let session = open(link, &mut self.context());
        self.sessions.push(Some(session));
        slot
    }

    /// The last publication that was handed to the thread.
    pub fn take_posted(&self) -> Option<Arc<TopicFanOut>> {
        self.posted.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes the frames of all who have subscribed to the topic of the last publication, and returns how many these were.
    pub fn deliver(&mut self) -> usize {
        let Some(fan_out) = self.take_posted() else { return 0 };
        let publication = fan_out.publication();
        self.receivers.clear();
        self.state.seldom.members.receivers(&publication.topic, publication.sequence, &mut self.receivers);
        let mut delivered = 0;
        for member in &self.receivers {
            let Some(session) = &self.sessions[member.slot as usize] else { continue };
            let Some(frame) = session.message(&fan_out, member.node) else { continue };
            if session.link().reserve(frame.len(), 1 << 20).is_ok() {
                session.link().remove_queued(frame.len());
                delivered += 1;
            }
        }
        delivered
    }

    /// Hands frames to a connection, as one read would; `heard` gets what it answers.
    pub fn receive(&mut self, slot: usize, frames: &[u8], heard: impl FnOnce(&[u8])) {
        self.hand(slot, |session, context| session.receive(context, frames), heard);
    }

    /// As [`Machine::receive`]; a WebSocket's frames are unmasked where they are.
    pub fn receive_in_place(&mut self, slot: usize, frames: &mut [u8], heard: impl FnOnce(&[u8])) {
        self.hand(slot, |session, context| session.receive_in_place(context, frames), heard);
    }

    fn hand(&mut self, slot: usize, hand: impl FnOnce(&mut Session, &mut Context<'_>) -> (usize, Next), heard: impl FnOnce(&[u8])) {
        let Some(mut session) = self.sessions[slot].take() else { return };
        hand(&mut session, &mut self.context());
        self.sessions[slot] = Some(session);
        heard(self.state.replies.bytes());
        self.state.replies.clear();
    }

    /// Fires what is due, and returns how many nodes left by that.
    pub fn tick(&mut self) -> usize {
        let before = self.hub.node_count();
        while let Some((key, timer)) = self.state.wheel.pop(self.now) {
            let slot = timer.slot() as usize;
            let TimerKind::Node(node) = timer.kind() else { continue };
            let Some(mut session) = self.sessions[slot].take() else { continue };
            let mut next = session.node_timer(&mut self.context(), key, node, Look::NotYet);
            if next == Next::Look {
                // There is no socket: nobody has sent anything that was not read.
                next = session.node_timer(&mut self.context(), key, node, Look::Empty);
            }
            self.state.replies.clear();
            if let Next::Close(reason) = next {
                session.close(&mut self.context(), reason);
            } else {
                self.sessions[slot] = Some(session);
            }
        }
        before - self.hub.node_count()
    }

    fn context(&mut self) -> Context<'_> {
        self.state.now = now(self.now);
        self.state.context(&self.hub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Dialect;
    use heartbus_core::hub::Node;

    #[test]
    fn silent_nodes_leave_when_their_time_is_over_and_the_others_stay() {
        let mut machine = Machine::default();
        for slot in 0..2 {
            assert_eq!(machine.open(), slot);
            machine.receive(slot, &Dialect::V1.register(&format!("n{slot}")), |replies| assert!(!replies.is_empty()));
        }
        machine.now += TIMEOUT;
        machine.receive(1, &Dialect::V1.heartbeat(0), |replies| assert!(!replies.is_empty()));
        machine.now += SECOND;
        assert_eq!(machine.tick(), 1);
        machine.now += TIMEOUT;
        assert_eq!(machine.tick(), 1);
        assert_eq!(machine.tick(), 0);
    }

    #[test]
    fn sizes_of_what_a_connection_and_a_node_are_made_of_are_bounded() {
        let sizes = [
            ("Session", size_of::<Session>(), 128),
            ("Link", size_of::<Link>(), 256),
            ("Node", size_of::<Node>(), 256),
            ("Timer, in the wheel 12 bytes more", size_of::<heartbus_core::hub::Timer>(), 16),
            ("Event", size_of::<Event>(), 128),
        ];
        for (name, size, bound) in sizes {
            println!("{name}: {size} bytes");
            assert!(size <= bound, "{name} has {size} bytes");
        }
    }
}
