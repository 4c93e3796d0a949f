//! What a client makes of the frames of its server.
//!
//! Owns which event each becomes, and how much of a server's texts is kept.

use super::node_set::RegisterOutcome;
use super::{ClientMachine, ClientState, RegisteredNode};
use crate::hub::Now;
use crate::model::{ClientEvent, CloseReason};
use crate::wire::{self, Decoded, Dialect, Frame, FrameType, MAX_BODY_LEN, code, control};
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;

/// Longest text of a server that is kept of a message, in bytes.
const MAX_TEXT: usize = 1000;

/// Longest payload of an ERROR that is told as it came.
const MAX_ERROR: usize = 64 * 1024;

/// Memory of a frame that was large is given back when what is left is this much smaller, and worth it.
const SPARE_FACTOR: usize = 4;
const SPARE_FROM: usize = 256 * 1024;

impl ClientMachine {
    pub(super) fn next_frame_event(&mut self, now: Now) -> Option<ClientEvent> {
        let mut input = std::mem::take(&mut self.input);
        while self.is_connected() && !input.is_empty() {
            let (dialect, decoded) = wire::decode(&input, MAX_BODY_LEN);
            match decoded {
                Decoded::Incomplete => {
                    if input.capacity() > SPARE_FROM && input.capacity() > SPARE_FACTOR * input.len() {
                        input = BytesMut::from(&input[..]);
                    }
                    self.input = input;
                    return None;
                }
                Decoded::Frame { frame, len } => {
                    self.messages_received += 1;
                    let event = self.apply(&frame, dialect, now);
                    input.advance(len);
                    if event.is_some() {
                        // An empty rest would keep its memory. After a reason to hang up nothing more is listened to.
                        if self.is_connected() && !input.is_empty() {
                            self.input = input;
                        }
                        return event;
                    }
                }
                Decoded::Invalid { error, len } => {
                    self.frames_refused += 1;
                    self.client_log.unreadable(self.id, &error, now);
                    input.advance(len);
                }
                Decoded::Broken { error } => {
                    self.frames_refused += 1;
                    self.client_log.unreadable(self.id, &error, now);
                    self.hang_up(CloseReason::BrokenStream, error.to_string());
                }
            }
        }
        None
    }

    fn apply(&mut self, frame: &Frame<'_>, dialect: Dialect, now: Now) -> Option<ClientEvent> {
        if let ClientState::Open(connection) = &mut self.state {
            connection.last_words = None;
        }
        match frame.frame_type {
            FrameType::REGISTER => self.apply_register_reply(&frame.payload.bytes(), now),
            FrameType::HEARTBEAT_RES => Some(ClientEvent::Heartbeat { count: 1 }),
            FrameType::DATA => {
                let payload = frame.payload.to_bytes();
                Some(ClientEvent::Data { payload, channel_id: frame.channel_id, node_id: self.node_of(frame.channel_id) })
            }
            FrameType::PONG => Some(ClientEvent::Pong),
            FrameType::MESSAGE | FrameType::SUBSCRIBE | FrameType::UNSUBSCRIBE | FrameType::PUBLISH => {
                self.apply_topic_frame(frame, dialect)
            }
            FrameType::GOAWAY => Some(self.apply_goaway(frame.payload.to_bytes(), now)),
            FrameType::ERROR => self.apply_error(frame.channel_id, frame.payload.to_bytes(), now),
            _ => None,
        }
    }

    fn apply_register_reply(&mut self, payload: &[u8], now: Now) -> Option<ClientEvent> {
        let Some(reply) = control::parse_register_reply(payload) else {
            self.frames_refused += 1;
            self.client_log.invalid(self.id, now);
            return None;
        };
        let channel_id = reply.channel_id;
        self.client_log.registered(self.id, &reply.node_id, channel_id, now);
        if let ClientState::Open(connection) = &mut self.state {
            connection.registered = true;
            if reply.protocol >= 2 && self.settings.protocol >= 2 && connection.dialect == Dialect::V1 {
                connection.dialect = Dialect::V2;
                // The server speaks v2 once it has heard it.
                self.outbox.push_control(Dialect::V2, FrameType::ACK, 0, b"");
            }
        }
        self.attempts = 0;
        if let Some(others) = &mut self.others {
            let renamed = if others.channel_of(&reply.node_id).is_none() { others.registered_as(&self.node_id, channel_id) } else { None };
            let node_id = match renamed.unwrap_or_else(|| others.registered_on(&reply.node_id, channel_id)) {
                RegisterOutcome::Registered(node_id) => node_id,
                RegisterOutcome::Outdated => return None,
                RegisterOutcome::Unwanted { was_asked } => {
                    // A server that tells of nodes nobody asked for may do so without end, and read nothing.
                    if was_asked || self.outbox.len() <= self.settings.outbox_bytes / 2 {
                        self.sign_off(Some(channel_id).filter(|id| *id != 0));
                    } else {
                        self.frames_refused += 1;
                    }
                    return None;
                }
            };
            if !Arc::ptr_eq(&node_id, &self.node_id) {
                return Some(ClientEvent::Register { node_id, channel_id });
            }
        }
        let node_id = if *reply.node_id == *self.node_id { self.node_id.clone() } else { Arc::from(reply.node_id) };
        self.registration = Some(RegisteredNode { node_id: node_id.clone(), channel_id });
        if let Some(topics) = &mut self.topics {
            topics.start(channel_id);
        }
        Some(ClientEvent::Register { node_id, channel_id })
    }

    /// The server closes the connection behind it.
    fn apply_goaway(&mut self, raw: Bytes, now: Now) -> ClientEvent {
        self.window = control::parse_window(&raw).map(|millis| u64::from(millis) * 1_000);
        self.apply_server_error(raw, now)
    }

    /// An ERROR may concern a topic, or of a client with many nodes one of them only: that is told with its name.
    fn apply_error(&mut self, channel_id: i64, raw: Bytes, now: Now) -> Option<ClientEvent> {
        if let Some(of_topic) = self.apply_topic_error(&raw, now) {
            return of_topic;
        }
        let (Some(others), Some(error)) = (&mut self.others, control::parse_error(&raw)) else {
            if let ClientState::Open(connection) = &mut self.state {
                connection.was_refused = true;
            }
            return Some(self.apply_server_error(raw, now));
        };
        let lost = match u16::try_from(error.code) {
            Ok(code::NODE_TIMED_OUT | code::NOT_ALLOWED | code::REPLACED) if channel_id != 0 => others.node_of(channel_id),
            Ok(code::INVALID_REQUEST | code::NOT_AUTHENTICATED | code::NOT_ALLOWED) if channel_id == 0 => match others.refused() {
                Some(node) => node,
                None => return Some(self.apply_server_error(raw, now)),
            },
            // Those that are registered, which is one at most by now.
            Ok(code::REPLACED) => {
                let message = shorten(error.message);
                for (channel_id, node_id) in others.all_registered() {
                    others.lose(&node_id, false);
                    let message = message.clone();
                    self.events.push_back(ClientEvent::NodeLost { node_id, channel_id, code: error.code, message });
                }
                let event = self.apply_server_error(raw, now);
                self.events.push_back(event);
                return self.events.pop_front();
            }
            Ok(code::RATE_LIMITED) => {
                others.rate_limited();
                return Some(self.apply_server_error(raw, now));
            }
            _ => return Some(self.apply_server_error(raw, now)),
        };
        // Otherwise a node that was removed meanwhile.
        let node_id = lost?;
        if let Some(topics) = self.topics.as_mut().filter(|_| Arc::ptr_eq(&node_id, &self.node_id)) {
            topics.stop();
        }
        let comes_back = Arc::ptr_eq(&node_id, &self.node_id) && error.code != i64::from(code::REPLACED);
        let left = others.lose(&node_id, comes_back);
        self.sign_off(left);
        let (message, code) = (shorten(error.message), error.code);
        self.client_log.node_lost(self.id, &node_id, &message, code, now);
        Some(ClientEvent::NodeLost { node_id, channel_id: u32::try_from(channel_id).unwrap_or(0), code, message })
    }

    fn apply_server_error(&mut self, raw: Bytes, now: Now) -> ClientEvent {
        let (message, code) = match control::parse_error(&raw) {
            Some(error) => (shorten(error.message), error.code),
            None => (String::new(), 0),
        };
        self.client_log.server_error(self.id, &message, code, now);
        let reason = CloseReason::of_last_words(code, &message);
        if code == i64::from(code::REPLACED) {
            // Another client has this id now. Coming back would take it away again, and so on for ever. Not so for others.
            self.leaving = self.others.as_ref().is_none_or(|others| others.len() == 0);
            self.hang_up(CloseReason::Replaced, message.clone());
        } else if let ClientState::Open(connection) = &mut self.state {
            connection.last_words = reason.map(|reason| (reason, message.clone()));
        }
        let raw = if raw.len() <= MAX_ERROR {
            raw
        } else {
            self.frames_refused += 1;
            control::error_payload(&message, code).into()
        };
        ClientEvent::ServerError { raw, code, message }
    }

    /// Which of its nodes a channel belongs to. All that comes to a client with one node is that node's.
    pub(super) fn node_of(&self, channel_id: i64) -> Option<Arc<str>> {
        match &self.others {
            Some(others) => others.node_of(channel_id),
            None => self.node_id().cloned(),
        }
    }
}

/// The beginning of a text that a server may have made as long as it likes.
pub(super) fn shorten(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}
