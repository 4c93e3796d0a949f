//! A machine whose clock and socket are in the hands of a test, and the frames that it writes and reads.

pub(crate) use heartbus_core::event::{ClientEvent, CloseReason, ErrorCause};
pub(crate) use heartbus_core::hub::Now;
pub(crate) use heartbus_core::hub::client::{ClientMachine, ClientPhase, ClientRefusal, SocketEnd, backoff};
pub(crate) use heartbus_core::settings::ClientConfig;
pub(crate) use heartbus_core::wire::{Decoded, FrameType, MAX_BODY_LEN, control, v1, v2};
pub(crate) use proptest::prelude::*;
pub(crate) use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub(crate) use std::sync::Arc;
pub(crate) use std::time::Duration;

pub(crate) const SECOND: u64 = 1_000_000;
pub(crate) const INTERVAL: u64 = 10 * SECOND;
pub(crate) const UNIX: u64 = 1_700_000_000_250_000;

pub(crate) fn settings() -> ClientConfig {
    ClientConfig {
        host: "127.0.0.1".into(),
        port: 9501,
        node_id: Some("n1".into()),
        metadata: "[]".into(),
        heartbeat_interval: Duration::from_micros(INTERVAL),
        auto_reconnect: true,
        reconnect_interval: Duration::from_secs(5),
        max_reconnect_attempts: 0,
        outbox_bytes: 1 << 20,
        protocol: 1,
        max_nodes: 10_000,
        ..ClientConfig::default()
    }
}

/// As above, wanting v2.
pub(crate) fn modern() -> ClientConfig {
    ClientConfig { protocol: 2, ..settings() }
}

/// A machine, its clock, and a socket that takes everything.
pub(crate) struct Rig {
    pub(crate) machine: ClientMachine,
    pub(crate) now: Now,
}

impl Rig {
    pub(crate) fn new(settings: ClientConfig) -> Self {
        Self::seeded(settings, 1)
    }

    pub(crate) fn seeded(settings: ClientConfig, seed: u64) -> Self {
        let now = Now { mono: SECOND, unix: UNIX };
        Self { machine: ClientMachine::new(5, settings, Arc::default(), seed, now), now }
    }

    pub(crate) fn connected(settings: ClientConfig) -> Self {
        let mut rig = Self::new(settings);
        rig.machine.handle_connected(rig.now);
        rig.events();
        rig.written();
        rig
    }

    pub(crate) fn registered(settings: ClientConfig) -> Self {
        let mut rig = Self::connected(settings);
        rig.receive(6, 0, &register_reply("n1", 7));
        assert!(matches!(rig.events()[..], [ClientEvent::Register { .. }]));
        rig
    }

    pub(crate) fn pass(&mut self, micros: u64) {
        self.now = Now { mono: self.now.mono + micros, unix: self.now.unix + micros };
    }

    /// Lets time pass up to the deadline, and the machine notice.
    pub(crate) fn pass_to_deadline(&mut self) {
        self.pass(self.machine.deadline().expect("a deadline") - self.now.mono);
        self.machine.handle_timeout(self.now);
    }

    pub(crate) fn receive(&mut self, frame_type: u8, channel_id: i64, payload: &str) {
        self.machine.handle_bytes(&frame(frame_type, channel_id, payload));
    }

    pub(crate) fn events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.machine.poll_event(self.now)).collect()
    }

    /// Writes everything, as type, channel and payload.
    pub(crate) fn written(&mut self) -> Vec<(u8, i64, String)> {
        self.machine.fill_outbox(self.now);
        let bytes = self.machine.outbox().to_vec();
        self.machine.handle_written(bytes.len(), self.now);
        frames(&bytes)
    }

    /// The socket is closed, and the time of the reconnect has come.
    pub(crate) fn close_and_wait(&mut self) -> Vec<ClientEvent> {
        self.machine.handle_closed(SocketEnd::Closed, self.now);
        let events = self.events();
        assert_eq!(self.machine.phase(), ClientPhase::Wait);
        self.pass_to_deadline();
        assert_eq!(self.machine.phase(), ClientPhase::Dial);
        events
    }
}

impl Rig {
    /// A client that agreed on v2 with its server.
    pub(crate) fn agreed() -> Self {
        let mut rig = Self::connected(modern());
        rig.receive(6, 0, &agreement("n1", 7, 2));
        assert!(matches!(rig.events()[..], [ClientEvent::Register { .. }]));
        assert_eq!(rig.written_raw(), v2_frame(17, 0, b""), "the server learns at once that v2 is spoken");
        rig
    }

    pub(crate) fn written_raw(&mut self) -> Vec<u8> {
        let bytes = self.machine.outbox().to_vec();
        self.machine.handle_written(bytes.len(), self.now);
        bytes
    }
}

pub(crate) fn closed(reason: CloseReason) -> ClientEvent {
    ClientEvent::Close { reason, detail: String::new() }
}

pub(crate) fn closed_saying(reason: CloseReason, detail: &str) -> ClientEvent {
    ClientEvent::Close { reason, detail: detail.to_owned() }
}

pub(crate) fn frame(frame_type: u8, channel_id: i64, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    v1::encode(frame_type, channel_id, payload.as_bytes(), &mut bytes).unwrap();
    bytes
}

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, i64, String)> {
    let mut frames = Vec::new();
    while let Decoded::Frame { frame, len } = v1::decode(bytes, MAX_BODY_LEN) {
        let payload = String::from_utf8(frame.payload.bytes().into_owned()).unwrap();
        frames.push((frame.frame_type.0, frame.channel_id, payload));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "half a frame is left");
    frames
}

pub(crate) fn register_reply(node_id: &str, channel_id: u32) -> String {
    agreement(node_id, channel_id, 1)
}

pub(crate) fn agreement(node_id: &str, channel_id: u32, protocol: u32) -> String {
    let mut out = Vec::new();
    control::write_register_reply(&mut out, node_id, channel_id, UNIX, protocol);
    String::from_utf8(out).unwrap()
}

pub(crate) fn v2_frame(frame_type: u8, channel_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    v2::encode(FrameType(frame_type), channel_id, payload, &mut bytes);
    bytes
}

/// For the first node.
pub(crate) fn data(payload: &str, channel_id: i64) -> ClientEvent {
    data_for(Some("n1"), payload, channel_id)
}

pub(crate) fn data_for(node_id: Option<&str>, payload: &str, channel_id: i64) -> ClientEvent {
    ClientEvent::Data { payload: payload.to_owned().into(), channel_id, node_id: node_id.map(Into::into) }
}

pub(crate) fn server_error(message: &str, code: i64) -> String {
    String::from_utf8(control::error_payload(message, code)).unwrap()
}

pub(crate) fn reply(rig: &mut Rig, node_id: &str, channel_id: u32) {
    rig.receive(6, 0, &register_reply(node_id, channel_id));
}

pub(crate) fn register(node_id: &str, channel_id: u32) -> ClientEvent {
    ClientEvent::Register { node_id: node_id.into(), channel_id }
}

pub(crate) fn lost(node_id: &str, channel_id: u32, code: i64) -> ClientEvent {
    ClientEvent::NodeLost { node_id: node_id.into(), channel_id, code, message: "why".into() }
}

/// Whom the REGISTERs among what is written name.
pub(crate) fn registers(rig: &mut Rig) -> Vec<String> {
    let registers = rig.written().into_iter().filter(|(frame_type, ..)| *frame_type == 6);
    registers.map(|(_, _, payload)| named(&payload)).collect()
}

pub(crate) fn named(payload: &str) -> String {
    control::parse_register(payload.as_bytes()).unwrap().node_id.unwrap()
}

/// n1 on channel 7 and others on 8, 9 and so on.
pub(crate) fn gateway(settings: ClientConfig, others: &[&str]) -> Rig {
    let mut rig = Rig::registered(settings);
    for (id, channel_id) in others.iter().zip(8..) {
        rig.machine.add_node(id, "[]").unwrap();
        assert_eq!(registers(&mut rig), [*id]);
        reply(&mut rig, id, channel_id);
        assert_eq!(rig.events(), [register(id, channel_id)]);
    }
    rig
}
