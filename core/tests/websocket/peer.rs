//! A client of WebSocket's that says what a test wants, byte by byte.

use heartbus_core::wire::{self, Decoded};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) fn request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

pub(crate) fn subprotocol(name: &str) -> String {
    format!("Sec-WebSocket-Protocol: {name}\r\n")
}

/// A frame as a client sends it, its first byte as it is said.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(crate) struct WebSocketPeer {
    pub stream: TcpStream,
    received: Vec<u8>,
    /// The head of the answer to the request.
    pub head: String,
}

impl WebSocketPeer {
    /// Sends a request and reads the head of the answer.
    pub(crate) fn ask(address: SocketAddr, request: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Self { stream, received: Vec::new(), head: String::new() };
        peer.raw(request.as_bytes());
        peer.read_head();
        peer
    }

    fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.read_more(), "the connection ended before there was an answer: {:?}", String::from_utf8_lossy(&self.received));
        };
        self.head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
    }

    pub(crate) fn open(address: SocketAddr, name: &str) -> Self {
        let peer = Self::ask(address, &request("/", &subprotocol(name)));
        assert_eq!(peer.status(), 101, "{}", peer.head);
        assert!(peer.head.contains(&format!("\r\nSec-WebSocket-Protocol: {name}\r\n")), "{}", peer.head);
        peer
    }

    /// A node that speaks v2 in messages.
    pub(crate) fn node(address: SocketAddr, id: &str) -> Self {
        let mut peer = Self::open(address, "heartbus.v2");
        peer.send_v2(6, 0, format!(r#"{{"node_id":"{id}"}}"#).as_bytes());
        assert_eq!(peer.v2_frame().0, 6);
        peer
    }

    /// A node that speaks JSON.
    pub(crate) fn json_node(address: SocketAddr, id: &str) -> Self {
        let mut peer = Self::open(address, "heartbus.json");
        peer.say(&format!(r#"{{"type":"register","node_id":"{id}"}}"#));
        assert_eq!(peer.json()["type"], "register");
        peer
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        self.raw(&masked(first, payload));
    }

    pub(crate) fn send_v2(&mut self, frame_type: u8, channel_id: u32, payload: &[u8]) {
        self.send(BINARY, &super::support::v2_frame(frame_type, channel_id, payload));
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        let count = self.stream.read(&mut buffer).expect("something in time");
        self.received.extend(&buffer[..count]);
        count > 0
    }

    /// The next frame: its first byte and what is in it. `None`: the connection has ended.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(len) = wire::websocket::frame_len(&self.received).filter(|len| *len <= self.received.len()) {
                let frame: Vec<u8> = self.received.drain(..len).collect();
                assert_eq!(frame[1] & 0x80, 0, "a server masks nothing");
                let header = match frame[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                return Some((frame[0], frame[header..].to_vec()));
            }
            if !self.read_more() {
                assert!(self.received.is_empty(), "half a frame is left: {:?}", self.received);
                return None;
            }
        }
    }

    /// The frame of the bus in the next message: its type, channel and payload.
    pub(crate) fn v2_frame(&mut self) -> (u8, i64, Vec<u8>) {
        let (first, message) = self.frame().expect("a message");
        assert_eq!(first, BINARY, "{message:?}");
        let (_, Decoded::Frame { frame, len }) = wire::decode(&message, u32::MAX) else { panic!("{message:?}") };
        assert_eq!(len, message.len(), "one frame for each message");
        (frame.frame_type.0, frame.channel_id, frame.payload.bytes().into_owned())
    }

    pub(crate) fn json(&mut self) -> serde_json::Value {
        let (first, message) = self.frame().expect("a message");
        assert_eq!(first, TEXT, "{message:?}");
        serde_json::from_slice(&message).unwrap()
    }

    /// The code of the close that comes next, and that nothing comes behind it.
    pub(crate) fn close_code(&mut self) -> u16 {
        let (first, payload) = self.frame().expect("a close before the end");
        assert_eq!(first, CLOSE, "{payload:?}");
        let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
        assert_eq!(self.frame(), None);
        code
    }

    /// What is left of an answer of HTTP's.
    pub(crate) fn body(&mut self) -> String {
        while self.read_more() {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }
}
