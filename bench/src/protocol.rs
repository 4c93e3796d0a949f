//! What each server is told and how its answers are told apart: Heartbus in both dialects, Redis, MQTT, NATS, the floor.
//!
//! Pure: bytes in, bytes out. Each protocol has one greeting with one answer, and one ping with one answer.

use heartbus_core::wire::topic_frames::{Publish, Subscribe, Unsubscribe};
use heartbus_core::wire::{self, FrameType, v1};

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    V1,
    V2,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Frames of a dialect, to a server that knows their lengths and nothing else.
    Floor(Dialect),
    Heartbus(Dialect),
    Redis,
    Mqtt,
    Nats,
}

impl Dialect {
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// Bytes in front of a body, and where among them its length begins.
    pub const fn header(self) -> (usize, usize) {
        match self {
            Self::V1 => (7, 3),
            Self::V2 => (12, 4),
        }
    }

    pub fn frame(self, frame_type: FrameType, channel: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(64 + payload.len());
        match self {
            Self::V1 => v1::encode(frame_type.0, channel.into(), payload, &mut frame).expect("what we send is UTF-8"),
            Self::V2 => {
                frame.extend_from_slice(&[0xAB, 0x13, frame_type.0, 0]);
                frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                frame.extend_from_slice(&channel.to_be_bytes());
                frame.extend_from_slice(payload);
            }
        }
        frame
    }

    /// As `HeartbeatClient` sends it.
    pub fn heartbeat(self, channel: u32) -> Vec<u8> {
        self.frame(FrameType::HEARTBEAT_REQ, channel, br#"{"timestamp":1700000000.123456}"#)
    }

    pub fn data(self, payload: &[u8]) -> Vec<u8> {
        self.frame(FrameType::DATA, 0, payload)
    }

    pub fn subscribe(self, filter: &str) -> Vec<u8> {
        self.topic_frame(FrameType::SUBSCRIBE, |dialect, out| Subscribe { filter: filter.into(), since: None }.encode(dialect, out))
    }

    pub fn unsubscribe(self, filter: &str) -> Vec<u8> {
        self.topic_frame(FrameType::UNSUBSCRIBE, |dialect, out| Unsubscribe { filter: filter.into() }.encode(dialect, out))
    }

    /// A PUBLISH that no answer is wanted to.
    pub fn publish(self, topic: &str, data: &[u8]) -> Vec<u8> {
        self.topic_frame(FrameType::PUBLISH, |dialect, out| {
            Publish { topic: topic.into(), id: None, data: data.into() }.encode(dialect, out).expect("what we send is UTF-8");
        })
    }

    fn topic_frame(self, frame_type: FrameType, encode: impl FnOnce(wire::Dialect, &mut Vec<u8>)) -> Vec<u8> {
        let mut payload = Vec::new();
        encode(if self == Self::V1 { wire::Dialect::V1 } else { wire::Dialect::V2 }, &mut payload);
        self.frame(frame_type, 0, &payload)
    }

    /// A REGISTER on a connection that agreed on the dialect already.
    pub fn register(self, id: &str) -> Vec<u8> {
        self.frame(FrameType::REGISTER, 0, register_payload(id, self).as_bytes())
    }
}

fn register_payload(id: &str, dialect: Dialect) -> String {
    let protocol = if dialect == Dialect::V2 { r#","protocol":2"# } else { "" };
    format!(r#"{{"node_id":"{id}","metadata":[],"timestamp":1700000000.123456{protocol}}}"#)
}

impl Protocol {
    pub fn name(self) -> String {
        match self {
            Self::Floor(dialect) => format!("floor {}", dialect.name()),
            Self::Heartbus(dialect) => format!("Heartbus {}", dialect.name()),
            Self::Redis => "Redis".into(),
            Self::Mqtt => "Mosquitto".into(),
            Self::Nats => "NATS".into(),
        }
    }

    /// What is sent first on a connection. The server gives one answer to it.
    pub fn greeting(self, id: &str) -> Vec<u8> {
        match self {
            Self::Floor(dialect) => dialect.register(id),
            Self::Heartbus(Dialect::V1) => Dialect::V1.register(id),
            // Asked for in v1, and from the next frame on it is v2.
            Self::Heartbus(Dialect::V2) => {
                let mut bytes = Dialect::V1.frame(FrameType::REGISTER, 0, register_payload(id, Dialect::V2).as_bytes());
                bytes.extend(Dialect::V2.frame(FrameType(0x11), 0, b""));
                bytes
            }
            Self::Redis => self.ping(),
            Self::Mqtt => {
                // CONNECT, protocol level 4, clean session, no keep-alive.
                let mut bytes = vec![0x10, (12 + id.len()) as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8];
                bytes.extend_from_slice(id.as_bytes());
                bytes
            }
            Self::Nats => b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n".to_vec(),
        }
    }

    pub fn ping(self) -> Vec<u8> {
        match self {
            Self::Floor(dialect) | Self::Heartbus(dialect) => dialect.heartbeat(0),
            Self::Redis => b"*1\r\n$4\r\nPING\r\n".to_vec(),
            Self::Mqtt => vec![0xC0, 0],
            Self::Nats => b"PING\r\n".to_vec(),
        }
    }

    /// Hands out the whole answers at the start of `bytes`, and returns how many bytes they and what is between them took.
    pub fn answers<'a>(self, bytes: &'a [u8], mut each: impl FnMut(Answer<'a>)) -> usize {
        let mut at = 0;
        while let Some(len) = self.len_of_first(&bytes[at..]) {
            let frame = &bytes[at..at + len];
            at += len;
            match self {
                Self::Nats if frame == b"PING\r\n" => each(Answer::Question),
                Self::Nats if frame.starts_with(b"INFO ") => {}
                _ => each(Answer::Frame(frame)),
            }
        }
        at
    }

    fn len_of_first(self, bytes: &[u8]) -> Option<usize> {
        let len = match self {
            Self::Floor(_) | Self::Heartbus(_) => {
                // Both dialects may come on one connection: the last byte of the magic number tells them apart.
                let (size, at) = if *bytes.get(1)? == 0x13 { Dialect::V2.header() } else { Dialect::V1.header() };
                let length: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                size + u32::from_be_bytes(length) as usize
            }
            Self::Mqtt => 2 + usize::from(*bytes.get(1)?),
            Self::Redis | Self::Nats => bytes.iter().position(|byte| *byte == b'\n')? + 1,
        };
        (len <= bytes.len()).then_some(len)
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    Frame(&'a [u8]),
    /// The server wants to know whether we are there.
    Question,
}

/// The channel id that a register reply, in either dialect, gives.
pub fn channel_of(reply: &[u8]) -> Option<u32> {
    let key: &[u8] = if reply.get(1)? == &0x13 { br#""channel_id":"# } else { br#"\"channel_id\":"# };
    let at = reply.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = reply[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(protocol: Protocol, bytes: &[u8]) -> (usize, Vec<Answer<'_>>) {
        let mut all = Vec::new();
        (protocol.answers(bytes, |answer| all.push(answer)), all)
    }

    #[test]
    fn answers_are_counted_wherever_reads_split_them() {
        let beat = Dialect::V1.heartbeat(0);
        let bytes = [&beat[..], &Dialect::V2.heartbeat(7), &beat[..5]].concat();
        let (consumed, all) = answers(Protocol::Heartbus(Dialect::V2), &bytes);
        assert_eq!((consumed, all.len()), (bytes.len() - 5, 2));
        assert_eq!(
            answers(Protocol::Mqtt, &[0x20, 2, 0, 0, 0xD0, 0, 0xD0]),
            (6, vec![Answer::Frame(&[0x20, 2, 0, 0]), Answer::Frame(&[0xD0, 0])])
        );
        assert_eq!(answers(Protocol::Redis, b"+PONG\r\n+PO"), (7, vec![Answer::Frame(b"+PONG\r\n")]));
        assert_eq!(answers(Protocol::Nats, b"INFO {}\r\nPING\r\nPONG\r\n"), (21, vec![Answer::Question, Answer::Frame(b"PONG\r\n")]));
    }

    #[test]
    fn nothing_is_counted_in_a_fragment() {
        for len in 0..12 {
            assert_eq!(answers(Protocol::Heartbus(Dialect::V2), &Dialect::V2.heartbeat(7)[..len]).0, 0);
        }
        assert_eq!(answers(Protocol::Mqtt, &[0xD0]).0, 0);
    }

    #[test]
    fn a_register_reply_tells_its_channel_in_both_dialects() {
        let payload = br#"{"node_id":"n","metadata":{"channel_id":417,"status":"ok"},"timestamp":1.5,"channel_id":417}"#;
        for dialect in [Dialect::V1, Dialect::V2] {
            assert_eq!(channel_of(&dialect.frame(FrameType::REGISTER, 0, payload)), Some(417));
        }
        assert_eq!(channel_of(&Dialect::V1.frame(FrameType::ERROR, 0, b"{}")), None);
    }
}
