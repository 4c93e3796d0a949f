//! What a thread's wheel holds: who is to be looked at when a time is up.
//!
//! Owns how that is told apart in as few bytes as may be, for there is one for each node. Whoever inserts one removes it before its
//! connection's slot is used again.

use super::node_ref::NodeRef;

/// A timer of the connection in a slot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    slot: u32,
    /// A node's number, or the code of something else.
    what: u32,
}

/// What it is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TimerKind {
    /// Somebody has to register.
    Register,
    /// The node may be silent.
    Node(NodeRef),
    /// What waits for the peer may not be taken.
    Outbox,
    /// The connection has said goodbye.
    Ending,
    /// The peer of a WebSocket may be gone.
    Ping,
    /// The host may not decide.
    Decision,
}

const REGISTER: u32 = 0;
const OUTBOX: u32 = u32::MAX;
const ENDING: u32 = u32::MAX - 1;
const PING: u32 = u32::MAX - 2;
const DECISION: u32 = u32::MAX - 3;

impl Timer {
    pub fn new(slot: u32, kind: TimerKind) -> Self {
        let what = match kind {
            TimerKind::Register => REGISTER,
            TimerKind::Node(node) => node.number(),
            TimerKind::Outbox => OUTBOX,
            TimerKind::Ending => ENDING,
            TimerKind::Ping => PING,
            TimerKind::Decision => DECISION,
        };
        Self { slot, what }
    }

    pub fn slot(self) -> u32 {
        self.slot
    }

    pub fn kind(self) -> TimerKind {
        match self.what {
            REGISTER => TimerKind::Register,
            OUTBOX => TimerKind::Outbox,
            ENDING => TimerKind::Ending,
            PING => TimerKind::Ping,
            DECISION => TimerKind::Decision,
            number => TimerKind::Node(NodeRef::of_main_channel(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_says_what_it_is_for_whichever_number_a_node_has() {
        let nodes = [1, 2, NodeRef::MAX].map(|number| TimerKind::Node(NodeRef::of_main_channel(number)));
        let others = [TimerKind::Register, TimerKind::Outbox, TimerKind::Ending, TimerKind::Ping, TimerKind::Decision];
        for kind in others.into_iter().chain(nodes) {
            let timer = Timer::new(7, kind);
            assert_eq!((timer.slot(), timer.kind()), (7, kind));
        }
        assert!(size_of::<Timer>() == 8);
    }
}
