//! Who is silent: what becomes of a node, or of a connection on which nobody registers, when a time is up.
//!
//! Owns the judgement. A look at the socket comes before it, which is the shell's.

use super::BusSession;
use crate::hub::NodeRef;
use crate::hub::nodes::Registered;
use crate::hub::session::context::{Context, Look, Next};
use crate::hub::wheel::TimerKey;
use crate::model::{CloseReason, Departure};
use crate::settings::micros;
use crate::wire::code;

/// Who could not be judged because not everything was read is looked at again after this part of its timeout.
const UNREAD_PART: u64 = 16;

impl BusSession {
    pub(in crate::hub::session) fn node_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, node: NodeRef, look: Look) -> Next {
        // A heartbeat for all nodes of the connection answers for each without a look at it: there may be a million.
        let deadline = self.link.last_seen() + cx.hub.heartbeat_timeout();
        if look == Look::NotYet && cx.now.mono <= deadline {
            cx.wheel.rearm(timer, deadline);
            return Next::Continue;
        }
        self.judge(cx, timer, node, look)
    }

    #[inline(never)]
    fn judge(&mut self, cx: &mut Context<'_>, timer: TimerKey, node: NodeRef, look: Look) -> Next {
        let timeout = cx.hub.heartbeat_timeout();
        let alive_until = |seen: u64| (cx.now.mono <= seen + timeout).then_some(seen + timeout);
        let Some(registered) = self.nodes.get(node).filter(|registered| registered.timer == timer) else {
            // What the look read was that it leaves.
            return Next::Continue;
        };
        let seen = alive_until(registered.node.last_seen());
        let deadline = match look {
            _ if seen.is_some() => seen,
            Look::NotYet => return Next::Look,
            Look::Stopped => Some(cx.now.mono + timeout),
            Look::Unread => Some(cx.now.mono + timeout / UNREAD_PART),
            Look::Empty => None,
        };
        if let Some(deadline) = deadline {
            cx.wheel.rearm(timer, deadline);
            return Next::Continue;
        }
        if !cx.hub.leave(&registered.node, Departure::TimedOut, cx.counters) {
            // It left elsewhere at this moment. The eviction that is under way says why.
            cx.wheel.rearm(timer, cx.now.mono + timeout);
            return Next::Continue;
        }
        cx.wheel.remove(timer);
        let Some(Registered { node, .. }) = self.forget(cx, node) else {
            return Next::Continue;
        };
        cx.connection_log.node_left(&node, cx.now);
        cx.replies.speak(self.link.dialect());
        if self.nodes.is_empty() {
            cx.replies.farewell(CloseReason::HeartbeatTimeout);
            return Next::Close(CloseReason::HeartbeatTimeout);
        }
        cx.replies.error(code::NODE_TIMED_OUT, &format!("{}: {}", code::TIMED_OUT_TEXT, node.id()), node.channel_id());
        Next::Continue
    }

    pub(in crate::hub::session) fn postpone(&self, cx: &mut Context<'_>, timer: TimerKey, node: NodeRef) {
        if self.nodes.get(node).is_some_and(|registered| registered.timer == timer) {
            cx.wheel.rearm(timer, cx.now.mono + cx.hub.heartbeat_timeout());
        }
    }

    pub(in crate::hub::session) fn register_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, look: Look) -> Next {
        let timeout = micros(cx.hub.limits().register_timeout);
        let is_deciding = self.is_deciding();
        let idle = self.nodes.idle_timer().filter(|idle| **idle == Some(timer) && cx.wheel.has_fired(timer));
        let Some(idle) = idle else {
            // Somebody registered since it fired.
            return Next::Continue;
        };
        match look {
            Look::NotYet => return Next::Look,
            Look::Stopped => cx.wheel.rearm(timer, cx.now.mono + timeout),
            Look::Unread => cx.wheel.rearm(timer, cx.now.mono + timeout / UNREAD_PART),
            // Somebody does, and it is the host that takes its time.
            Look::Empty if is_deciding => cx.wheel.rearm(timer, cx.now.mono + timeout),
            Look::Empty => {
                *idle = None;
                cx.wheel.remove(timer);
                cx.counters.register_timeouts.up();
                return Next::Close(CloseReason::RegisterTimeout);
            }
        }
        Next::Continue
    }
}
