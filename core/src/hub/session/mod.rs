//! The server's side of one connection: what each frame means, in the protocol that is spoken there.
//!
//! Owns the choice between protocols, each of which is a file of its own, and what all of them give to the shell. Pure: bytes and
//! `now` come in, replies are written into the thread's buffer, and a verdict ([`Next`]) says how the shell goes on. It knows no socket.

mod bus;
mod context;
mod firetower;
pub mod subscriptions;
mod websocket;

pub use bus::BusSession;
pub use context::{Context, Look, Next, Seldom};
pub use firetower::GatewaySession;
pub use websocket::WebSocketSession;

use super::frame::QueuedFrame;
use super::link::{Answered, Eviction, Link};
use super::replies::Replies;
use super::topic_fan_out::TopicFanOut;
use super::topics::FireOrder;
use super::topics::members::ThreadMembers;
use super::wheel::TimerKey;
use super::{Counters, Node, NodeRef};
use crate::model::{CloseReason, ConnectedBy, Fill};
use crate::settings::ProtocolDoor;
use crate::wire::Framing;
use std::sync::Arc;

/// There is one per connection: a protocol that needs more than the others keeps it in a box.
pub enum Session {
    Bus(BusSession),
    WebSocket(Box<WebSocketSession>),
    Gateway(Box<GatewaySession>),
}

/// Calls the same method of whichever protocol it is.
macro_rules! each {
    ($session:expr, $its:ident => $call:expr) => {
        match $session {
            Session::Bus($its) => $call,
            Session::WebSocket($its) => $call,
            Session::Gateway($its) => $call,
        }
    };
}

impl Session {
    pub fn open(link: Arc<Link>, cx: &mut Context<'_>) -> Self {
        // Where others come in by the same door, what it is shows by what it says first.
        let limits = cx.hub.limits();
        let is_shared = [&limits.websocket, &limits.firetower].contains(&&ProtocolDoor::MainPort);
        Self::Bus(BusSession::open(link, cx, (!is_shared).then_some(ConnectedBy::Tcp)))
    }

    /// Of a connection that begins with the handshake of a WebSocket, or not at all.
    pub fn open_websocket(link: Arc<Link>, cx: &mut Context<'_>) -> Self {
        Self::WebSocket(Box::new(WebSocketSession::new(BusSession::open(link, cx, None))))
    }

    /// Of a connection that speaks as Firetower's gateways do with their manager.
    pub fn open_gateway(link: Arc<Link>, cx: &mut Context<'_>) -> Self {
        Self::Gateway(Box::new(GatewaySession::new(BusSession::open(link, cx, Some(ConnectedBy::Firetower)), cx)))
    }

    #[inline]
    fn bus(&self) -> &BusSession {
        match self {
            Self::Bus(session) => session,
            Self::WebSocket(session) => session.bus(),
            Self::Gateway(session) => session.bus(),
        }
    }

    fn bus_mut(&mut self) -> &mut BusSession {
        match self {
            Self::Bus(session) => session,
            Self::WebSocket(session) => session.bus_mut(),
            Self::Gateway(session) => session.bus_mut(),
        }
    }

    #[inline]
    pub fn link(&self) -> &Arc<Link> {
        self.bus().link()
    }

    pub fn node_count(&self) -> usize {
        self.bus().node_count()
    }

    /// What ids and metadata of its nodes take in memory.
    pub fn node_bytes(&self) -> usize {
        self.bus().node_bytes()
    }

    /// What the host had no room for, of what was read.
    #[inline]
    pub fn refused_len(&self) -> Option<usize> {
        match self {
            Self::Bus(session) => session.refused_len(),
            Self::WebSocket(session) => session.refused_len(),
            Self::Gateway(_) => None,
        }
    }

    /// What it keeps of what was read, in memory.
    pub fn kept_bytes(&self) -> usize {
        match self {
            Self::Bus(session) => session.kept_bytes(),
            Self::WebSocket(session) => session.kept_bytes(),
            Self::Gateway(session) => session.kept_bytes(),
        }
    }

    /// The node that registered first among those that are still here.
    pub fn first_node(&self) -> Option<&Arc<Node>> {
        self.bus().first_node()
    }

    /// Handles the whole frames at the start of `input` and returns how many bytes they took: as many frames as the turn
    /// allows. A WebSocket's are unmasked where they are.
    #[inline(always)]
    pub fn receive_in_place(&mut self, cx: &mut Context<'_>, input: &mut [u8]) -> (usize, Next) {
        match self {
            Self::Bus(session) => session.receive(cx, input),
            Self::WebSocket(session) => session.receive(cx, input),
            Self::Gateway(session) => session.receive(cx, input),
        }
    }

    /// As [`Session::receive_in_place`], of bytes that stay as they are: those of a WebSocket are copied for that.
    #[inline(always)]
    pub fn receive(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Next) {
        match self {
            Self::Bus(session) => session.receive(cx, input),
            Self::WebSocket(session) => session.receive(cx, &mut input.to_vec()),
            Self::Gateway(session) => session.receive(cx, input),
        }
    }

    /// After [`Next::Http`] or [`Next::Firetower`]: what was not consumed is the beginning of that.
    #[cold]
    pub fn become_other(&mut self, cx: &mut Context<'_>, next: Next) {
        let Self::Bus(session) = self else { return };
        *self = match next {
            Next::Http => Self::WebSocket(Box::new(WebSocketSession::new(session.take_over()))),
            Next::Firetower => Self::Gateway(Box::new(GatewaySession::begun(session.take_over(), cx))),
            _ => return,
        };
    }

    /// A node's timer fired. It is silent only when `look` says that its connection's socket was looked at since.
    #[inline]
    pub fn node_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, node: NodeRef, look: Look) -> Next {
        match self {
            Self::Bus(session) => session.node_timer(cx, timer, node, look),
            Self::WebSocket(session) => session.node_timer(cx, timer, node, look),
            Self::Gateway(_) => Next::Continue,
        }
    }

    /// A node's timer fired while its connection's nodes leave one by one: it is not judged any more.
    pub fn postpone(&self, cx: &mut Context<'_>, timer: TimerKey, node: NodeRef) {
        self.bus().postpone(cx, timer, node);
    }

    /// The connection's own timer fired: nobody registered in time, unless `look` says that not everything was read.
    pub fn register_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, look: Look) -> Next {
        match self {
            Self::Bus(session) => session.register_timer(cx, timer, look),
            Self::WebSocket(session) => session.register_timer(cx, timer, look),
            Self::Gateway(session) => session.register_timer(cx, timer, look),
        }
    }

    /// The peer of a WebSocket was silent for a while; a gateway is to hear that the server is there.
    pub fn ping_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, look: Look) -> Next {
        match self {
            Self::Bus(_) => Next::Continue,
            Self::WebSocket(session) => session.ping_timer(cx, timer, look),
            Self::Gateway(session) => session.heartbeat_timer(cx, timer),
        }
    }

    /// The server stops, and asks to come back within so many milliseconds.
    pub fn say_that_we_stop(&self, replies: &mut Replies, window_ms: u32) {
        match self {
            Self::Bus(session) => {
                replies.speak(session.link().dialect());
                replies.shutting_down(window_ms);
            }
            Self::WebSocket(session) => session.say_that_we_stop(replies, window_ms),
            // Firetower has no word for it.
            Self::Gateway(_) => {}
        }
    }

    /// What the protocol has for the end of a connection, behind everything else.
    pub fn write_close(&self, replies: &mut Replies, reason: CloseReason) {
        if let Self::WebSocket(session) = self {
            session.write_close(replies, reason);
        }
    }

    /// One of its nodes left because of something that happened elsewhere.
    pub fn evict(&mut self, cx: &mut Context<'_>, eviction: Eviction) -> Next {
        match self {
            Self::Bus(session) => session.evict(cx, eviction),
            Self::WebSocket(session) => session.evict(cx, eviction),
            Self::Gateway(_) => Next::Continue,
        }
    }

    /// As much waits for the connection as may, or nothing any more: each of its nodes is told so, once.
    pub fn tell_fill(&self, cx: &mut Context<'_>, fill: Fill) {
        self.bus().tell_fill(cx, fill);
    }

    /// The host has decided something that the connection waits for. `None`: it does not.
    pub fn decide(&mut self, cx: &mut Context<'_>, answered: Answered) -> Option<Next> {
        match self {
            Self::Bus(session) => session.decide(cx, answered),
            Self::WebSocket(session) => session.decide(cx, answered),
            Self::Gateway(_) => None,
        }
    }

    /// The time for a decision is up. `None`: nothing has changed by that.
    pub fn decision_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey) -> Option<Next> {
        match self {
            Self::Bus(session) => session.decision_timer(cx, timer),
            Self::WebSocket(session) => session.decision_timer(cx, timer),
            Self::Gateway(_) => None,
        }
    }

    /// What was kept of topics is still to be written, or what came before a decision is to be looked at: it is to be asked again although
    /// nothing was read.
    pub fn is_replaying(&self) -> bool {
        match self {
            Self::Bus(session) => session.has_work(),
            Self::WebSocket(session) => session.is_replaying(),
            Self::Gateway(session) => session.has_work(),
        }
    }

    /// A publication for one of its nodes, or for the connection itself, as its protocol has it; `None`: not for this one.
    pub fn message(&self, fan_out: &TopicFanOut, node: NodeRef) -> Option<QueuedFrame> {
        match self.link().framing() {
            Framing::FireHeader => fan_out.fire_frame(),
            // What is none is for gateways alone.
            _ if !fan_out.publication().origin.is_publication() => None,
            Framing::Firetower => fan_out.text_frame(),
            _ => self.bus().message(fan_out, node),
        }
    }

    /// Follows an order of Firetower's, if its peer is a client of Firetower's; `None`: it is none.
    pub fn obey(&mut self, cx: &mut Context<'_>, order: FireOrder, topic: &str, user: &[u8]) -> Option<Next> {
        if let Self::WebSocket(session) = self { session.obey(cx, order, topic, user) } else { None }
    }

    /// Another thread has subscribed one of its nodes to a topic; false when the node is not here any more.
    pub fn join(&mut self, cx: &mut Context<'_>, node: NodeRef, filter: &str, since: u64) -> bool {
        self.bus_mut().join(cx, node, filter, since)
    }

    /// Another thread ends a subscription of one of its nodes.
    pub fn part(&mut self, cx: &mut Context<'_>, node: NodeRef, filter: &str) {
        self.bus_mut().part(cx, node, filter);
    }

    /// Whether a node is still in a topic that an older connection of its left.
    pub fn is_in(&self, members: &ThreadMembers, node: NodeRef, topic: &str) -> bool {
        self.bus().is_in(members, node, topic)
    }

    /// What one of its nodes has subscribed to.
    pub fn topics_of(&self, members: &ThreadMembers, node: NodeRef) -> Vec<String> {
        self.bus().topics_of(members, node)
    }

    pub fn node(&self, node: NodeRef) -> Option<&Arc<Node>> {
        self.bus().node(node)
    }

    /// The nodes in order of registration, those behind one of them, or behind where that was.
    pub fn nodes_behind(&self, node: Option<NodeRef>) -> impl Iterator<Item = &Arc<Node>> {
        self.bus().nodes_behind(node)
    }

    /// The socket has refused as much as may wait for it, or has taken some of it.
    pub fn set_full(&self, counters: &Counters, is_full: bool) {
        self.bus().set_full(counters, is_full);
    }

    /// The connection is over: its nodes leave, its timers go. [`Next::Again`] while there are more nodes than the turn allows.
    pub fn close(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Next {
        each!(self, session => session.close(cx, reason))
    }
}
