//! What each server is told and how its answers are told apart: Heartbus in both dialects and over a WebSocket, Redis, MQTT, NATS, `ws`
//! of Node.js, the floor.
//!
//! Pure: bytes in, bytes out. Each protocol has one greeting with one answer, and one ping with one answer.

use heartbus_core::wire::topic_frames::{Publish, Subscribe, Unsubscribe};
use heartbus_core::wire::{self, FrameType, v1};

/// What is sent, and how many answers it has.
pub type Sent = (Vec<u8>, usize);

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
    /// Frames of v2 in those of a WebSocket, as a browser speaks to us.
    WebSocket,
    Redis,
    Mqtt,
    Nats,
    /// The library `ws` in Node.js: what comes in goes to all other connections.
    Ws,
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
            Self::WebSocket => "Heartbus WebSocket".into(),
            Self::Ws => "ws (Node.js)".into(),
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
            Self::WebSocket | Self::Ws => {
                let subprotocol = if self == Self::WebSocket { "Sec-WebSocket-Protocol: heartbus.v2\r\n" } else { "" };
                format!(
                    "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{subprotocol}\r\n"
                )
                .into_bytes()
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
            Self::WebSocket => masked(&Dialect::V2.heartbeat(0)),
            // A ping of WebSocket's own.
            Self::Ws => vec![0x89, 0x80, 0, 0, 0, 0],
        }
    }

    /// What subscribes to a topic, and how many answers that has. A WebSocket registers first.
    pub fn subscribe(self, id: &str, topic: &str) -> Sent {
        match self {
            // Everybody gets everything there.
            Self::Floor(_) | Self::Ws => (Vec::new(), 0),
            Self::Heartbus(dialect) => (dialect.subscribe(topic), 1),
            Self::WebSocket => ([masked(&Dialect::V2.register(id)), masked(&Dialect::V2.subscribe(topic))].concat(), 2),
            Self::Redis => (format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{topic}\r\n", topic.len()).into_bytes(), 1),
            Self::Mqtt => {
                let mut bytes = vec![0x82, (5 + topic.len()) as u8, 0, 1, 0, topic.len() as u8];
                bytes.extend_from_slice(topic.as_bytes());
                bytes.push(0);
                (bytes, 1)
            }
            // The answer is to the ping behind it.
            Self::Nats => (format!("SUB {topic} 1\r\nPING\r\n").into_bytes(), 1),
        }
    }

    /// What publishes, and how many answers that has.
    pub fn publish(self, topic: &str, data: &[u8]) -> Sent {
        let behind = |head: String| [head.as_bytes(), data, b"\r\n"].concat();
        match self {
            Self::Floor(dialect) => (dialect.data(data), 0),
            Self::Heartbus(dialect) => (dialect.publish(topic, data), 0),
            Self::WebSocket => (masked(&Dialect::V2.publish(topic, data)), 0),
            Self::Ws => (masked(data), 0),
            Self::Redis => (behind(format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{topic}\r\n${}\r\n", topic.len(), data.len())), 1),
            Self::Mqtt => {
                let mut bytes = vec![0x30, (2 + topic.len() + data.len()) as u8, 0, topic.len() as u8];
                bytes.extend_from_slice(topic.as_bytes());
                bytes.extend_from_slice(data);
                (bytes, 0)
            }
            Self::Nats => (behind(format!("PUB {topic} {}\r\n", data.len())), 0),
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
            Self::WebSocket | Self::Ws if *bytes.first()? == b'H' => bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4,
            // A server's frames have no mask.
            Self::WebSocket | Self::Ws => match *bytes.get(1)? {
                126 => 4 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
                127 => 10 + u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
                len => 2 + usize::from(len),
            },
            Self::Redis => resp_len(bytes)?,
            Self::Nats => {
                let line = line(bytes)?;
                // The payload stands behind the line that ends with its length.
                let payload = line.strip_prefix(b"MSG ").and_then(|rest| decimal(rest.rsplit(|byte| *byte == b' ').next()?));
                line.len() + 2 + payload.map_or(0, |len| len + 2)
            }
        };
        (len <= bytes.len()).then_some(len)
    }
}

/// Up to the line's end, without it.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.windows(2).position(|end| end == b"\r\n").map(|end| &bytes[..end])
}

fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The length of Redis' next reply, which may be an array of others.
fn resp_len(bytes: &[u8]) -> Option<usize> {
    let line = line(bytes)?;
    let (kind, number) = line.split_first()?;
    let mut len = line.len() + 2;
    match kind {
        b'$' => len += decimal(number).map_or(0, |text| text + 2),
        b'*' => {
            for _ in 0..decimal(number)? {
                len += resp_len(bytes.get(len..)?)?;
            }
        }
        _ => {}
    }
    Some(len)
}

/// A message in a frame as browsers send it, with a mask of zeros.
pub fn masked(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match u8::try_from(message.len()) {
        Ok(len @ ..126) => frame.push(0x80 | len),
        _ => frame.extend([0xfe, (message.len() >> 8) as u8, message.len() as u8]),
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(message);
    frame
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
    fn messages_of_topics_are_answers_whatever_is_in_them() {
        let count = |protocol, bytes: &[u8]| {
            let whole = answers(protocol, bytes).1.len();
            for end in 0..bytes.len() {
                assert!(answers(protocol, &bytes[..end]).1.len() < whole, "{} in {end} bytes", protocol.name());
            }
            whole
        };
        let message = b"*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$4\r\nx\r\ny\r\n";
        assert_eq!(count(Protocol::Redis, &[&b":3\r\n"[..], message].concat()), 2);
        assert_eq!(count(Protocol::Nats, b"PONG\r\nMSG room 1 4\r\nx\r\ny\r\n"), 2);
        let long = [&[0x82, 126, 0, 200][..], &[0; 200]].concat();
        assert_eq!(count(Protocol::Ws, &[&b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x82\x01x"[..], &long].concat()), 3);
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
