//! How a connection begins: what is spoken there, and that the host is told once it may speak.
//!
//! Owns that each connection is told of once.

use super::{BusSession, Rare};
use crate::hub::event::Event;
use crate::hub::link::Link;
use crate::hub::nodes::Nodes;
use crate::hub::rate::Bucket;
use crate::hub::session::context::{Context, Next};
use crate::model::{ConnectedBy, EventMask};
use crate::settings::{ProtocolDoor, RateLimitBy};
use crate::wire::websocket::handshake;
use crate::wire::{self, FrameError, Framing, Front, firetower};
use std::sync::Arc;

impl BusSession {
    /// `door`: what is spoken there, where that is known; else [`BusSession::begin`] says so.
    pub(in crate::hub::session) fn open(link: Arc<Link>, cx: &mut Context<'_>, door: Option<ConnectedBy>) -> Self {
        let bucket = match &cx.hub.limits().rate_limit {
            Some(limit) if limit.by == RateLimitBy::Connection => Some(Bucket::full(limit, cx.now.mono)),
            _ => None,
        };
        let mut session = Self { link, nodes: Nodes::default(), rare: None };
        if bucket.is_some() {
            session.rare = Some(Box::new(Rare { bucket, ..Rare::default() }));
        }
        match door {
            Some(door) => session.tell_connect(cx, door),
            None => session.rare.get_or_insert_default().is_untold = true,
        }
        session.await_register(cx);
        session
    }

    /// The connection may speak from now on.
    #[cold]
    pub(in crate::hub::session) fn begin(&mut self, cx: &Context<'_>, door: ConnectedBy) {
        if self.rare.as_mut().is_some_and(|rare| std::mem::take(&mut rare.is_untold)) {
            self.tell_connect(cx, door);
            self.drop_unused();
        }
    }

    fn tell_connect(&self, cx: &Context<'_>, door: ConnectedBy) {
        let link = &self.link;
        cx.hub.tell(EventMask::CONNECT, || Event::Connect { connection_id: link.connection_id(), peer: link.peer(), door });
    }

    /// Whether the first frame of a connection has come whole, or as much of it as can be: it is told of then, and else not yet.
    #[cold]
    #[inline(never)]
    pub(super) fn shows_what_it_is(&mut self, cx: &Context<'_>, input: &[u8]) -> bool {
        let shows = self.link.framing() == Framing::Stream
            && match wire::front(input, cx.hub.limits().max_frame_bytes).1 {
                Front::Incomplete => false,
                Front::Broken { .. } => self.other_protocol(cx, input).is_none(),
                Front::Whole(_) => true,
            };
        if shows {
            self.begin(cx, ConnectedBy::Tcp);
        }
        shows
    }

    /// How much of what is no frame is done with, and how it goes on.
    #[cold]
    #[inline(never)]
    pub(super) fn no_frame(&self, cx: &mut Context<'_>, input: &[u8], error: FrameError) -> (usize, Next) {
        match self.other_protocol(cx, input) {
            Some(next) => (0, next),
            None => (input.len(), self.lose(cx, error)),
        }
    }

    /// Where another protocol comes in at the main port: which one begins with what no frame begins with, if it is the first thing that is
    /// said.
    #[cold]
    fn other_protocol(&self, cx: &Context<'_>, input: &[u8]) -> Option<Next> {
        if self.link.framing() != Framing::Stream || !self.nodes.is_empty() {
            return None;
        }
        // A request of HTTP's may begin with as many of the same letters, but none is a front of the other.
        if cx.hub.limits().firetower == ProtocolDoor::MainPort && firetower::is_firetower(input) {
            return Some(Next::Firetower);
        }
        (cx.hub.limits().websocket == ProtocolDoor::MainPort && handshake::is_http(input)).then_some(Next::Http)
    }
}
