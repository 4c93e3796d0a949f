//! How nodes come and go by the frames of their connection: REGISTER and UNREGISTER, and what is refused of them.

use super::kept::{Asking, Pending, Registration};
use super::{BusSession, leave, own};
use crate::hub::budget;
use crate::hub::link::Link;
use crate::hub::node::metadata_bytes;
use crate::hub::nodes::Registered;
use crate::hub::refusal::TooMuch;
use crate::hub::session::context::{Context, Next};
use crate::hub::{Timer, TimerKind};
use crate::model::{Asked, CloseReason, Decision, Departure, EventMask};
use crate::wire::control::RegisterError;
use crate::wire::{Framing, code, control};
use std::sync::Arc;

impl BusSession {
    #[inline(never)]
    pub(super) fn register(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Next {
        let request = match control::parse_register(payload) {
            Ok(request) => request,
            Err(error) => {
                cx.counters.registers.up();
                return self.refuse(cx, error.code(), &error.to_string());
            }
        };
        let tells = EventMask::REGISTER | EventMask::HEARTBEAT | EventMask::LEFT;
        if cx.hub.is_crowded(tells, Some(self.link.clone())) {
            cx.counters.reads_paused_by_host.up();
            return Next::Wait;
        }
        // Who speaks JSON has agreed on that already.
        let newest = if self.link.framing() == Framing::Json { 1 } else { control::NEWEST_PROTOCOL };
        let registration = Registration {
            id: request.node_id.unwrap_or_else(|| node_id(cx)).into(),
            metadata: request.metadata.filter(|text| **text != *"[]").map(Arc::from),
            protocol: request.protocol.clamp(1, newest),
        };
        // Also where the node is here already: what it says of itself may be what it is let in for.
        if cx.hub.asks(EventMask::AUTHENTICATE) {
            let asked = Asked::Registration { node_id: registration.id.clone(), metadata: registration.metadata() };
            return match self.ask(cx, Pending::Registration(registration), asked, None) {
                Asking::NoRoom => Next::Wait,
                Asking::Asked => {
                    cx.counters.registers.up();
                    Next::Wait
                }
                Asking::TooMany => {
                    cx.counters.registers.up();
                    self.refuse(cx, code::NOT_ALLOWED, code::TOO_MANY_DECISIONS)
                }
            };
        }
        cx.counters.registers.up();
        self.admit(cx, registration, None)
    }

    pub(super) fn settle_registration(&mut self, cx: &mut Context<'_>, registration: Registration, decision: Option<Decision>) -> Next {
        match decision {
            Some(Decision::Allow) => self.admit(cx, registration, None),
            Some(Decision::AllowWithMetadata(members)) => self.admit(cx, registration, Some(&members)),
            None => self.refuse_stranger(cx, code::NOT_DECIDED_TEXT),
            Some(_) => self.refuse_stranger(cx, code::NOT_AUTHENTICATED_TEXT),
        }
    }

    /// Registers a node that may, with what its host says of it.
    fn admit(&mut self, cx: &mut Context<'_>, registration: Registration, members: Option<&str>) -> Next {
        let Registration { id, metadata, protocol } = registration;
        cx.budget.spend(budget::REGISTRATION);
        if protocol > 1 {
            self.change_link(cx.counters, Link::agree_on_v2);
        }
        let bytes = metadata_bytes(metadata.as_deref());
        let (_, all) = self.nodes.sent_bytes();
        if let Some(node) = cx.hub.node(&id).filter(|node| Arc::ptr_eq(node.link(), &self.link)) {
            let mut gate = node.gate();
            if gate.is_open() {
                let before = gate.sent_bytes();
                let refusal = if has_too_much(cx, all, bytes, before) {
                    Some(code::TOO_MUCH_METADATA_ON_CONNECTION)
                } else {
                    (!cx.hub.has_room_for(bytes, before)).then_some(code::TOO_MUCH_METADATA_ON_SERVER)
                };
                if let Some(text) = refusal {
                    drop(gate);
                    return self.refuse_metadata(cx, text);
                }
                if gate.renew_metadata(metadata, members, cx.hub.memory()).is_err() {
                    drop(gate);
                    return self.refuse_long_metadata(cx);
                }
                drop(gate);
                self.nodes.change_metadata(before, bytes);
                node.seen(cx.now);
                cx.replies.registered(&id, node.channel_id(), protocol, cx.now);
                return Next::Continue;
            }
        }
        if self.nodes.len() >= cx.hub.limits().max_nodes_per_connection {
            return self.refuse(cx, code::NOT_ALLOWED, code::TOO_MANY_NODES_ON_CONNECTION);
        }
        if has_too_much(cx, all, bytes, 0) {
            return self.refuse_metadata(cx, code::TOO_MUCH_METADATA_ON_CONNECTION);
        }
        let node = match cx.hub.register(id, &self.link, metadata, members, cx.counters, cx.now) {
            Ok(node) => node,
            Err(TooMuch::Nodes) => return self.refuse(cx, code::NOT_ALLOWED, code::TOO_MANY_NODES_ON_SERVER),
            Err(TooMuch::Metadata) => return self.refuse_long_metadata(cx),
            Err(TooMuch::Bytes) => return self.refuse_metadata(cx, code::TOO_MUCH_METADATA_ON_SERVER),
        };
        cx.replies.registered(node.id(), node.channel_id(), protocol, cx.now);
        cx.connection_log.node_registered(&node, cx.now);
        if let Some(timer) = self.nodes.idle_timer().and_then(Option::take) {
            cx.wheel.remove(timer);
        }
        let timer = Timer::new(self.link.slot(), TimerKind::Node(node.reference()));
        let timer = cx.wheel.insert(cx.now.mono + cx.hub.heartbeat_timeout(), timer);
        self.nodes.insert(Registered::new(node, timer));
        cx.counters.reach.enter(self.link.class(), 1);
        Next::Continue
    }

    #[inline(never)]
    pub(super) fn unregister(&mut self, cx: &mut Context<'_>, channel_id: i64) -> Next {
        if channel_id == 0 && !self.let_leave(cx, Departure::Unregistered) {
            // The same frame goes on with the others.
            return Next::Again;
        }
        cx.counters.unregisters.up();
        if let Some(Registered { node, timer, .. }) = own(channel_id).and_then(|node| self.forget(cx, node)) {
            leave(cx, &node, timer, Departure::Unregistered);
            cx.budget.spend(budget::DEPARTURE);
        }
        if self.nodes.is_empty() {
            self.await_register(cx);
        }
        Next::Continue
    }

    fn refuse_long_metadata(&self, cx: &mut Context<'_>) -> Next {
        self.refuse(cx, RegisterError::MetadataTooLong.code(), &RegisterError::MetadataTooLong.to_string())
    }

    /// The host has refused it, or has not decided in time. The connection ends, unless others are here already.
    fn refuse_stranger(&self, cx: &mut Context<'_>, text: &str) -> Next {
        let next = self.refuse(cx, code::NOT_AUTHENTICATED, text);
        if self.nodes.is_empty() { Next::Close(CloseReason::NotAuthenticated) } else { next }
    }

    fn refuse_metadata(&self, cx: &mut Context<'_>, text: &str) -> Next {
        cx.counters.metadata_refused.up();
        self.refuse(cx, code::NOT_ALLOWED, text)
    }

    fn refuse(&self, cx: &mut Context<'_>, code: u16, text: &str) -> Next {
        cx.counters.registers_refused.up();
        cx.connection_log.failed(&text, &self.link, cx.now);
        cx.replies.error(code, text, 0);
        Next::Continue
    }
}

/// Whether a connection whose nodes have sent `all` bytes of metadata may not have so many more, less what was there `before`.
fn has_too_much(cx: &Context<'_>, all: usize, bytes: usize, before: usize) -> bool {
    bytes > before && all + bytes - before > cx.hub.limits().max_metadata_bytes_per_connection
}

/// An id for a node that brought none, in the form the PHP library makes them: `node_<13 hex>_<8 hex>`.
fn node_id(cx: &mut Context<'_>) -> String {
    let (seconds, micros) = (cx.now.unix / 1_000_000, cx.now.unix % 1_000_000);
    format!("node_{seconds:08x}{micros:05x}_{:08x}", cx.seldom.random.u32(..))
}
