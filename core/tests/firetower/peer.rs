//! A gateway of Firetower's, or somebody who publishes: frames of its back side over a socket, made by hand from their format.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What comes in: kind, message id, source, topic, content.
pub(crate) type FrameFields = (String, String, String, String, Vec<u8>);

pub(crate) fn frame(kind: &str, message_id: &str, source: &str, topic: &str, content: &[u8]) -> Vec<u8> {
    raw(&[format!("{kind} {message_id} {source} {topic}\n").as_bytes(), content].concat())
}

pub(crate) fn raw(body: &[u8]) -> Vec<u8> {
    [b"FireHeader", &(body.len() as i32).to_be_bytes()[..], body].concat()
}

pub(crate) struct GatewayPeer {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl GatewayPeer {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn publish(&mut self, topic: &str, content: &[u8]) {
        self.raw(&frame("publish", "1", "user", topic, content));
    }

    pub(crate) fn subscribe(&mut self, topic: &str) -> usize {
        self.announce("subscribe", "", topic)
    }

    pub(crate) fn unsubscribe(&mut self, topic: &str) -> usize {
        self.announce("unSubscribe", "", topic)
    }

    /// As a gateway of that name. The number of subscribers that is answered.
    pub(crate) fn announce(&mut self, kind: &str, gateway: &str, topic: &str) -> usize {
        self.raw(&frame(kind, "77", gateway, topic, b""));
        let answer = if kind == "subscribe" { "onSubscribe" } else { "onUnsubscribe" };
        let (kind, message_id, source, of, count) = self.frame().expect("an answer");
        assert_eq!((&*kind, &*message_id, &*source, &*of), (answer, "77", "system", topic));
        String::from_utf8(count).unwrap().parse().unwrap()
    }

    /// The next frame but for heartbeats; `None`: the connection has ended.
    pub(crate) fn frame(&mut self) -> Option<FrameFields> {
        loop {
            let found = self.any_frame()?;
            if found.0 != "heartbeat" {
                return Some(found);
            }
        }
    }

    pub(crate) fn any_frame(&mut self) -> Option<FrameFields> {
        loop {
            if let Some(header) = self.received.first_chunk::<14>() {
                assert_eq!(&header[..10], b"FireHeader");
                let len = 14 + i32::from_be_bytes(header[10..].try_into().unwrap()) as usize;
                if self.received.len() >= len {
                    let frame: Vec<u8> = self.received.drain(..len).collect();
                    return Some(fields(&frame[14..]));
                }
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.received.is_empty(), "half a frame is left: {:?}", self.received);
                    return None;
                }
                Ok(count) => self.received.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing in time: {error}"),
            }
        }
    }

    /// The next publication: its topic and content.
    pub(crate) fn message(&mut self) -> (String, Vec<u8>) {
        let (kind, _, _, topic, content) = self.frame().expect("a publication");
        assert_eq!(kind, "publish", "{topic} {}", String::from_utf8_lossy(&content));
        (topic, content)
    }

    /// Why something was refused: the topic and the words.
    pub(crate) fn error(&mut self) -> (String, String) {
        let (kind, _, source, topic, content) = self.frame().expect("an error");
        assert_eq!((&*kind, &*source), ("error", "system"));
        (topic, String::from_utf8(content).unwrap())
    }
}

fn fields(body: &[u8]) -> FrameFields {
    let end = body.iter().position(|byte| *byte == b'\n').unwrap();
    let line: Vec<&str> = std::str::from_utf8(&body[..end]).unwrap().split(' ').collect();
    let [kind, message_id, source, topic] = line[..] else { panic!("{line:?}") };
    (kind.into(), message_id.into(), source.into(), topic.into(), body[end + 1..].to_vec())
}
