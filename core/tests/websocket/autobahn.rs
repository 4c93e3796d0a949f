//! Autobahn's cases for servers, by their numbers, over a real socket. That suite has a server that echoes; here a node sends data,
//! the host sends it back to the node, and what comes back is compared. `docs/AUTOBAHN.md` lists them. Texts that are to be UTF-8 are
//! `autobahn_utf8`'s, many messages and compressed ones `autobahn_load`'s.

use super::peer::*;
use super::support::{Fixture, v2_frame};
use super::{start, start_with};
use heartbus_core::event::Event;
use heartbus_core::settings::ServerConfig;
use std::net::SocketAddr;

/// What was told of the next data, sent back.
pub(super) fn echo(server: &Fixture) {
    let Event::Data { node, payload, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { unreachable!() };
    server.engine.send_to(node.id(), &payload, 0).unwrap();
}

pub(super) fn quoted(text: &str) -> String {
    format!(r#"{{"type":"data","data":{}}}"#, serde_json::Value::from(text))
}

/// Sends a text in these pieces of its message, and expects it back.
pub(super) fn echoes(server: &Fixture, peer: &mut WebSocketPeer, text: &str, piece: usize) {
    let message = quoted(text);
    let pieces: Vec<_> = message.as_bytes().chunks(piece).collect();
    for (number, bytes) in pieces.iter().enumerate() {
        let opcode = u8::from(number == 0);
        peer.send(opcode | if number + 1 == pieces.len() { 0x80 } else { 0 }, bytes);
    }
    echo(server);
    assert_eq!(peer.json()["data"], text);
}

/// All that comes before a close, and its code; `None`: it is still open.
pub(super) type Answers = (Vec<(u8, Vec<u8>)>, Option<u16>);

/// What a peer gets that writes these as its first ones. Behind a close nothing comes.
pub(super) fn answers(address: SocketAddr, writes: &[Vec<u8>]) -> Answers {
    let mut peer = WebSocketPeer::open(address, "heartbus.json");
    for bytes in writes {
        peer.raw(bytes);
    }
    peer.send(PING, b"are you there");
    let mut told = Vec::new();
    loop {
        match peer.frame() {
            Some((CLOSE, payload)) => {
                assert_eq!(peer.frame(), None, "behind a close");
                return (told, Some(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))));
            }
            Some((PONG, payload)) if payload == b"are you there" => return (told, None),
            Some(frame) => told.push(frame),
            None => panic!("it ended without a close"),
        }
    }
}

/// The same bytes, each in a write of its own.
pub(super) fn octets(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.concat().iter().map(|byte| vec![*byte]).collect()
}

/// What these frames are answered, which is the same in one write, in one for each frame and in one for each octet.
fn answers_in_any_chops(address: SocketAddr, frames: &[Vec<u8>]) -> Answers {
    let at_once = answers(address, &[frames.concat()]);
    assert_eq!(answers(address, frames), at_once, "by frames");
    assert_eq!(answers(address, &octets(frames)), at_once, "by octets");
    at_once
}

/// A text that is answered, and its answer: in the place of an echo where the host is not needed.
const ASKED: &[u8] = br#"{"type":"ping"}"#;
const ANSWERED: &[u8] = br#"{"type":"pong"}"#;

#[test]
fn cases_1_1_1_to_1_2_8_text_and_binary_messages_of_all_lengths() {
    let (server, address) = start();
    let mut text = WebSocketPeer::json_node(address, "text");
    let mut binary = WebSocketPeer::node(address, "binary");
    for len in [0, 125, 126, 127, 128, 65_535, 65_536] {
        echoes(&server, &mut text, &"*".repeat(len), usize::MAX);
        binary.send_v2(3, 0, &vec![0xfe; len]);
        echo(&server);
        assert_eq!(binary.v2_frame().2, vec![0xfe; len]);
    }
    // 1.1.8, 1.2.8: chopped on their way, also octet by octet.
    for (len, chop) in [(65_536, 997), (300, 1)] {
        masked(TEXT, quoted(&"*".repeat(len)).as_bytes()).chunks(chop).for_each(|bytes| text.raw(bytes));
        echo(&server);
        assert_eq!(text.json()["data"], "*".repeat(len));
        masked(BINARY, &v2_frame(3, 0, &vec![0xfe; len])).chunks(chop).for_each(|bytes| binary.raw(bytes));
        echo(&server);
        assert_eq!(binary.v2_frame().2, vec![0xfe; len]);
    }
}

#[test]
fn cases_2_1_to_2_11_pings_and_pongs() {
    let (_server, address) = start();
    for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
        assert_eq!(answers(address, &[masked(PING, payload)]), (vec![(PONG, payload.to_vec())], None));
    }
    // 2.5
    assert_eq!(answers(address, &[masked(PING, &[0xfe; 126])]), (Vec::new(), Some(1002)));
    // 2.6: in bytes.
    let mut peer = WebSocketPeer::open(address, "heartbus.v2");
    masked(PING, &[0xfe; 125]).iter().for_each(|byte| peer.raw(&[*byte]));
    assert_eq!(peer.frame(), Some((PONG, vec![0xfe; 125])));
    // 2.7 to 2.9: pongs that nobody asked for.
    assert_eq!(answers(address, &[masked(PONG, b""), masked(PONG, b"unsolicited")]), (Vec::new(), None));
    assert_eq!(answers(address, &[masked(PONG, b"unsolicited"), masked(PING, b"p")]), (vec![(PONG, b"p".to_vec())], None));
    // 2.10, 2.11: ten in a row, also in bytes.
    let pings: Vec<_> = (0..10_u8).map(|n| masked(PING, &[n])).collect();
    let pongs: Vec<_> = (0..10_u8).map(|n| (PONG, vec![n])).collect();
    assert_eq!(answers(address, &pings), (pongs.clone(), None));
    assert_eq!(answers(address, &octets(&pings)), (pongs, None));
}

#[test]
fn cases_3_1_to_4_2_5_reserved_bits_and_opcodes_however_they_are_chopped() {
    let (_server, address) = start();
    let ends = (vec![(TEXT, ANSWERED.to_vec())], Some(1002));
    let behind_a_text = |frame: Vec<u8>| answers_in_any_chops(address, &[masked(TEXT, ASKED), frame, masked(PING, b"")]);
    for bits in 1..8_u8 {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            assert_eq!(behind_a_text(masked(opcode | bits << 4, b"Hello")), ends, "3.{bits} {opcode:#x}");
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"Hello, world!"] {
            assert_eq!(behind_a_text(masked(0x80 | opcode, payload)), ends, "4: {opcode}");
        }
    }
}

#[test]
fn cases_5_1_to_5_20_fragments_and_what_may_stand_between_them_however_they_are_chopped() {
    let (server, address) = start();
    let told = |frames: &[Vec<u8>]| answers_in_any_chops(address, frames);
    let (front, end) = ASKED.split_at(6);
    let (first, rest) = (masked(0x01, front), masked(0x80, end));
    let pong = (TEXT, ANSWERED.to_vec());
    let broken = (Vec::new(), Some(1002));
    // 5.1, 5.2: control frames in fragments.
    for opcode in [0x09, 0x0a] {
        assert_eq!(told(&[masked(opcode, b"f"), masked(0x80, b"g")]), broken);
    }
    // 5.3 to 5.5, and with a ping in between 5.6 to 5.8.
    assert_eq!(told(&[first.clone(), rest.clone()]), (vec![pong.clone()], None));
    let with_ping = [first.clone(), masked(PING, b"p"), rest.clone()];
    assert_eq!(told(&with_ping), (vec![(PONG, b"p".to_vec()), pong.clone()], None));
    // 5.9 to 5.14: a continuation of nothing, whether or not it says that it is the last one.
    for opcode in [0x80, 0x00] {
        assert_eq!(told(&[masked(opcode, b"nothing"), masked(TEXT, ASKED)]), broken);
    }
    // 5.15: behind a whole message.
    let behind = [first.clone(), rest.clone(), masked(0x00, b"x"), masked(TEXT, ASKED)];
    assert_eq!(told(&behind), (vec![pong.clone()], Some(1002)));
    // 5.16, 5.17
    for opcode in [0x00, 0x80] {
        let three = [masked(opcode, b"nothing"), first.clone(), rest.clone()];
        assert_eq!(told(&[three.clone(), three].concat()), broken);
    }
    // 5.18: a message within another.
    for opcode in [0x01, 0x81] {
        assert_eq!(told(&[first.clone(), masked(opcode, b"another")]), broken);
    }
    // 5.19, 5.20: five fragments and two pings, the first of which is answered before the message is over.
    let begin = [first, masked(0, b""), masked(PING, b"1")];
    let end = [masked(0, b""), masked(0, b""), masked(PING, b"2"), rest];
    let all = (vec![(PONG, b"1".to_vec()), (PONG, b"2".to_vec()), pong.clone()], None);
    assert_eq!(told(&[&begin[..], &end].concat()), all);
    let mut peer = WebSocketPeer::open(address, "heartbus.json");
    peer.raw(&begin.concat());
    assert_eq!(peer.frame().as_ref(), Some(&all.0[0]));
    peer.raw(&end.concat());
    assert_eq!([peer.frame(), peer.frame()], [Some(all.0[1].clone()), Some(pong)]);
    let mut node = WebSocketPeer::json_node(address, "n");
    echoes(&server, &mut node, "fragment1fragment2", 5);
}

#[test]
fn cases_7_1_1_to_7_13_2_closing() {
    let (server, address) = start();
    let close = |code: u16, reason: &[u8]| masked(CLOSE, &[&code.to_be_bytes(), reason].concat());
    // 7.1.1 to 7.1.6: nothing is said behind a close.
    let before = (TEXT, ANSWERED.to_vec());
    let ping = masked(TEXT, ASKED);
    assert_eq!(answers(address, &[ping.clone(), close(1000, b"")]), (vec![before.clone()], Some(1000)));
    assert_eq!(answers(address, &[close(1000, b""), close(1000, b"")]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[close(1000, b""), ping.clone()]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[close(1000, b""), masked(PING, b"")]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[masked(0x01, b"{"), close(1000, b""), masked(0x80, b"}")]), (Vec::new(), Some(1000)));
    // 7.1.6: what came before the close is taken whole, and the ping behind it is not answered.
    let mut peer = WebSocketPeer::json_node(address, "n");
    let long = "BAsd7&jh23".repeat((256 << 10) / 10);
    peer.raw(&[masked(TEXT, quoted(&long).as_bytes()), masked(TEXT, ASKED), close(1000, b""), masked(PING, b"")].concat());
    let Event::Data { payload, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { unreachable!() };
    assert!(payload == long.as_bytes());
    assert_eq!((peer.frame(), peer.close_code()), (Some((TEXT, ANSWERED.to_vec())), 1000));
    // 7.3.1 to 7.3.6
    assert_eq!(answers(address, &[masked(CLOSE, b"")]), (Vec::new(), Some(0)));
    assert_eq!(answers(address, &[masked(CLOSE, b"x")]), (Vec::new(), Some(1002)));
    assert_eq!(answers(address, &[close(1000, b"")]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[close(1000, b"Hello World!")]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[close(1000, &[b'x'; 123])]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[close(1000, &[b'x'; 124])]), (Vec::new(), Some(1002)));
    // 7.5.1
    assert_eq!(answers(address, &[close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80")]), (Vec::new(), Some(1007)));
    // 7.7.1 to 7.13.2
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        assert_eq!(answers(address, &[close(code, b"")]), (Vec::new(), Some(code)), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(answers(address, &[close(code, b"")]), (Vec::new(), Some(1002)), "{code}");
    }
}

#[test]
fn cases_9_1_and_9_2_up_to_8_mebibytes_and_10_1_1_in_fragments_of_1300() {
    let (server, address) = start_with(ServerConfig { outbox_bytes: 64 << 20, ..super::config() });
    let mut text = WebSocketPeer::json_node(address, "text");
    let mut binary = WebSocketPeer::node(address, "binary");
    for len in [64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20] {
        let payload = "BAsd7&jh23".repeat(len / 10);
        // 9.1, 9.3 with the fragments that so many may be; 10.1.1: in fragments that the sender chose.
        for piece in [usize::MAX, len / 256 + 1, 1300.max(len / 1000)] {
            echoes(&server, &mut text, &payload, piece);
        }
        // 9.2, 9.4
        binary.send_v2(3, 0, payload.as_bytes());
        echo(&server);
        assert!(binary.v2_frame().2 == payload.as_bytes());
    }
}
