//! What tests of turns have in common.

pub(crate) use crate::bus::*;
pub(crate) use heartbus_core::event::CloseReason;
pub(crate) use heartbus_core::hub::link::{CommandKind, Eviction};
pub(crate) use heartbus_core::hub::memory::Part;
pub(crate) use heartbus_core::hub::wheel::TICK;
pub(crate) use heartbus_core::hub::{Budget, Look, Next, NodeRef, Session, TimerKind, budget};
pub(crate) use heartbus_core::wire::{FrameType, v2};
pub(crate) use proptest::prelude::*;
pub(crate) use std::collections::{BTreeMap, VecDeque};
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn receive(bus: &mut Bus, slot: u32, bytes: &[u8], turn: Budget) -> (usize, Next) {
    bus.thread.budget = turn;
    bus.with(slot, |session, cx| session.receive(cx, bytes)).expect("the connection is there")
}

/// The types of the frames that were answered with.
pub(crate) fn answers(bus: &mut Bus) -> Vec<u8> {
    bus.answers().into_iter().map(|(frame_type, ..)| frame_type).collect()
}

pub(crate) fn gateway(bus: &mut Bus, nodes: usize) -> u32 {
    let slot = bus.open();
    for n in 0..nodes {
        bus.register(slot, &format!("n{n}"));
    }
    bus.thread.budget = Budget::unlimited();
    slot
}

pub(crate) fn v2_frame(frame_type: u8, channel_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    v2::encode(FrameType(frame_type), channel_id, payload, &mut bytes);
    bytes
}

/// Turns the clock until the timer of a connection with one node fires, or with none where `channel_id` is 0, and returns its key.
pub(crate) fn fired(bus: &mut Bus, channel_id: u32) -> heartbus_core::hub::wheel::TimerKey {
    loop {
        bus.now += TICK;
        if let Some((key, timer)) = bus.thread.wheel.pop(bus.now) {
            let node = TimerKind::Node(NodeRef::of_main_channel(channel_id));
            assert_eq!(timer.kind(), if channel_id == 0 { TimerKind::Register } else { node });
            return key;
        }
    }
}
