//! A host that is asked, and what waits for it.

use super::bus::*;
use heartbus_core::event::{Asked, Decision, EventMask, Question};
use heartbus_core::hub::Next;
use heartbus_core::hub::memory::Part;
use heartbus_core::settings::ServerConfig;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) const DECISION_TIMEOUT: u64 = 1_000_000;

pub(crate) fn asking() -> Bus {
    asking_with(|_| {})
}

pub(crate) fn asking_with(change: impl FnOnce(&mut ServerConfig)) -> Bus {
    let bus = Bus::with_limits(false, |limits| {
        limits.decision_timeout = Duration::from_micros(DECISION_TIMEOUT);
        change(limits);
    });
    bus.host.decides.store(EventMask::AUTHENTICATE.0, Ordering::Relaxed);
    bus
}

pub(crate) fn questions(bus: &Bus) -> Vec<Arc<Question>> {
    std::mem::take(&mut *bus.host.questions.lock().unwrap())
}

/// The one question that was asked since.
pub(crate) fn question(bus: &Bus) -> Arc<Question> {
    let mut all = questions(bus);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

pub(crate) fn who(question: &Question) -> (&str, &str) {
    match &question.asked {
        Asked::Registration { node_id, metadata } => (node_id, metadata),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn decide(bus: &mut Bus, question: &Question, decision: Decision) -> Vec<(u8, i64, String)> {
    bus.hub.decide(question.number, decision).unwrap();
    bus.follow_decisions()
}

pub(crate) fn register_frame(id: &str) -> Vec<u8> {
    frame(6, 0, &format!(r#"{{"node_id":"{id}"}}"#))
}

/// Hands bytes to a session as its shell does, and returns how many of them it took, what it says, and the frames it answers with.
pub(crate) fn feed(bus: &mut Bus, slot: u32, bytes: &[u8]) -> (usize, Next, Vec<(u8, i64, String)>) {
    let (consumed, next) = bus.with(slot, |session, cx| session.receive(cx, bytes)).unwrap();
    bus.follow(slot, next);
    (consumed, next, bus.answers())
}

/// What waits and nobody has taken back.
pub(crate) fn is_clean(bus: &Bus) -> bool {
    bus.hub.memory().of(Part::Input) == 0 && bus.hub.decisions().count() == 0
}

/// As a client of WebSocket's sends it: masked with zeros.
pub(crate) fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        len @ ..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: heartbus.json\r\n\r\n";

/// What was written, as text: frames of WebSocket's have their payloads in it.
pub(crate) fn heard(bus: &mut Bus) -> String {
    let text = String::from_utf8_lossy(bus.thread.replies.bytes()).into_owned();
    bus.thread.replies.clear();
    text
}
