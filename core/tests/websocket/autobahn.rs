//! Autobahn's cases for servers, by their numbers, over a real socket. That suite has a server that echoes; here a node sends data,
//! the host sends it back to the node, and what comes back is compared.

use super::peer::*;
use super::support::Fixture;
use super::{start, start_with};
use heartbus_core::event::Event;
use heartbus_core::settings::ServerConfig;
use std::net::SocketAddr;

/// What was told of the next data, sent back.
fn echo(server: &Fixture) {
    let Event::Data { node, payload, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { unreachable!() };
    server.engine.send_to(node.id(), &payload, 0).unwrap();
}

fn quoted(text: &str) -> String {
    format!(r#"{{"type":"data","data":{}}}"#, serde_json::Value::from(text))
}

/// Sends a text in these pieces of its message, and expects it back.
fn echoes(server: &Fixture, peer: &mut WebSocketPeer, text: &str, piece: usize) {
    let message = quoted(text);
    let pieces: Vec<_> = message.as_bytes().chunks(piece).collect();
    for (number, bytes) in pieces.iter().enumerate() {
        let opcode = u8::from(number == 0);
        peer.send(opcode | if number + 1 == pieces.len() { 0x80 } else { 0 }, bytes);
    }
    echo(server);
    assert_eq!(peer.json()["data"], text);
}

/// What a peer gets that sends these frames as its first ones: all that comes before the close, and its code.
fn answers(address: SocketAddr, frames: &[Vec<u8>]) -> (Vec<(u8, Vec<u8>)>, Option<u16>) {
    let mut peer = WebSocketPeer::open(address, "heartbus.json");
    for frame in frames {
        peer.raw(frame);
    }
    peer.send(PING, b"are you there");
    let mut told = Vec::new();
    loop {
        match peer.frame() {
            Some((CLOSE, payload)) => return (told, Some(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code)))),
            Some((PONG, payload)) if payload == b"are you there" => return (told, None),
            Some(frame) => told.push(frame),
            None => panic!("it ended without a close"),
        }
    }
}

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
    // 1.1.8, 1.2.8: chopped on their way.
    let message = masked(TEXT, quoted(&"*".repeat(65_536)).as_bytes());
    message.chunks(997).for_each(|chunk| text.raw(chunk));
    echo(&server);
    assert_eq!(text.json()["data"], "*".repeat(65_536));
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
    let bytes: Vec<_> = pings.concat().iter().map(|byte| vec![*byte]).collect();
    assert_eq!(answers(address, &bytes), (pongs, None));
}

#[test]
fn cases_3_1_to_4_2_5_reserved_bits_and_opcodes() {
    let (_server, address) = start();
    let pong = vec![(PONG, b"before".to_vec())];
    for bits in 1..8_u8 {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            assert_eq!(answers(address, &[masked(PING, b"before"), masked(opcode | bits << 4, b"")]), (pong.clone(), Some(1002)));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(answers(address, &[masked(PING, b"before"), masked(0x80 | opcode, b"x")]), (pong.clone(), Some(1002)));
    }
}

#[test]
fn cases_5_1_to_5_20_fragments_and_what_may_stand_between_them() {
    let (server, address) = start();
    let (first, rest) = (masked(0x01, br#"{"type":"#), masked(0x80, br#""ping"}"#));
    let pong = (TEXT, br#"{"type":"pong"}"#.to_vec());
    // 5.1, 5.2: control frames in fragments.
    assert_eq!(answers(address, &[masked(0x09, b"f"), masked(0x80, b"g")]), (Vec::new(), Some(1002)));
    assert_eq!(answers(address, &[masked(0x0a, b"f"), masked(0x80, b"g")]), (Vec::new(), Some(1002)));
    // 5.3 to 5.8
    assert_eq!(answers(address, &[first.clone(), rest.clone()]), (vec![pong.clone()], None));
    assert_eq!(answers(address, &[first.clone(), masked(PING, b"p"), rest.clone()]), (vec![(PONG, b"p".to_vec()), pong.clone()], None));
    // 5.9 to 5.14: a continuation of nothing, whether or not it says that it is the last one.
    for opcode in [0x80, 0x00] {
        assert_eq!(answers(address, &[masked(opcode, b"nothing"), masked(TEXT, b"{}")]), (Vec::new(), Some(1002)));
    }
    // 5.15: behind a whole message.
    assert_eq!(answers(address, &[first.clone(), rest.clone(), masked(0x00, b"x")]), (vec![pong.clone()], Some(1002)));
    // 5.16 to 5.18
    for opcode in [0x01, 0x81] {
        assert_eq!(answers(address, &[first.clone(), masked(opcode, b"another")]), (Vec::new(), Some(1002)));
    }
    // 5.19, 5.20: pings in between, in five fragments.
    let five = [first, masked(0, b""), masked(PING, b"1"), masked(0, b""), masked(PING, b"2"), masked(0, b""), rest];
    assert_eq!(answers(address, &five), (vec![(PONG, b"1".to_vec()), (PONG, b"2".to_vec()), pong], None));
    let mut peer = WebSocketPeer::json_node(address, "n");
    echoes(&server, &mut peer, "fragment1fragment2", 5);
}

#[test]
fn cases_6_1_to_6_23_text_is_utf_8_over_all_fragments_and_ends_as_soon_as_it_is_not() {
    let (server, address) = start();
    let mut peer = WebSocketPeer::json_node(address, "n");
    // 6.1, 6.2, 6.5 to 6.7 and so on: valid texts, cut after each byte.
    for text in [
        "",
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{fffd}\u{d7ff}\u{e000}",
    ] {
        for piece in [usize::MAX, 1, 2] {
            echoes(&server, &mut peer, text, piece);
        }
    }
    let invalid: &[&[u8]] = &[
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
    ];
    for bytes in invalid {
        assert_eq!(answers(address, &[masked(TEXT, bytes)]), (Vec::new(), Some(1007)), "{bytes:?}");
        let pieces: Vec<_> = (0..bytes.len()).map(|n| masked(u8::from(n == 0), &bytes[n..=n])).chain([masked(0x80, b"")]).collect();
        assert_eq!(answers(address, &pieces), (Vec::new(), Some(1007)), "{bytes:?}");
    }
    // 6.4: it ends before the message does.
    let early = [masked(0x01, "κόσμε".as_bytes()), masked(0x00, b"\xf4\x90\x80\x80")];
    assert_eq!(answers(address, &early), (Vec::new(), Some(1007)));
    // A text that ends within a character.
    assert_eq!(answers(address, &[masked(TEXT, b"\xce")]), (Vec::new(), Some(1007)));
}

#[test]
fn cases_7_1_1_to_7_13_2_closing() {
    let (_server, address) = start();
    let close = |code: u16, reason: &[u8]| masked(CLOSE, &[&code.to_be_bytes(), reason].concat());
    // 7.1.1 to 7.1.6: nothing is said behind a close.
    let before = (TEXT, br#"{"type":"pong"}"#.to_vec());
    let ping = masked(TEXT, br#"{"type":"ping"}"#);
    assert_eq!(answers(address, &[ping.clone(), close(1000, b"")]), (vec![before.clone()], Some(1000)));
    assert_eq!(answers(address, &[close(1000, b""), close(1000, b"")]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[close(1000, b""), ping.clone()]), (Vec::new(), Some(1000)));
    assert_eq!(answers(address, &[masked(0x01, b"{"), close(1000, b""), masked(0x80, b"}")]), (Vec::new(), Some(1000)));
    // 7.3.1 to 7.3.6
    assert_eq!(answers(address, &[masked(CLOSE, b"")]), (Vec::new(), Some(0)));
    assert_eq!(answers(address, &[masked(CLOSE, b"x")]), (Vec::new(), Some(1002)));
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
fn cases_9_1_1_to_10_1_1_large_messages_in_frames_and_writes_of_all_lengths() {
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
    // 9.5, 9.6: written in chops of 64 bytes and more.
    for chop in [64, 128, 512, 2048] {
        let message = masked(TEXT, quoted(&"x".repeat(128 << 10)).as_bytes());
        message.chunks(chop).for_each(|bytes| text.raw(bytes));
        echo(&server);
        assert_eq!(text.json()["data"].as_str().unwrap().len(), 128 << 10);
    }
    // 9.7, 9.8: a thousand short ones.
    for len in [0, 16, 64, 256, 1024] {
        for _ in 0..200 {
            binary.send_v2(3, 0, &vec![1; len]);
        }
        for _ in 0..200 {
            echo(&server);
        }
        assert!((0..200).all(|_| binary.v2_frame().2.len() == len));
    }
}

#[test]
fn cases_12_and_13_compressed_messages() {
    use heartbus_core::wire::websocket::deflate::Deflater;
    let (server, address) = start_with(ServerConfig { websocket_compression: true, outbox_bytes: 16 << 20, ..super::config() });
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=9, permessage-deflate",
    ] {
        let headers = format!("{}Sec-WebSocket-Extensions: {offer}\r\n", subprotocol("heartbus.json"));
        let mut peer = WebSocketPeer::ask(address, &request("/", &headers));
        assert!(peer.head.contains("Sec-WebSocket-Extensions: permessage-deflate"), "{offer}: {}", peer.head);
        peer.say(r#"{"type":"register","node_id":"n"}"#);
        peer.json();
        let mut deflater = Deflater::default();
        for len in [16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072] {
            let message = quoted(&"compressible ".repeat(len / 13 + 5));
            let Some(compressed) = deflater.deflate(message.as_bytes()) else { panic!("{len}") };
            let (front, rest) = compressed.split_at(compressed.len() / 2);
            if len % 128 == 0 {
                peer.send(0x41, front);
                peer.send(0x80, rest);
            } else {
                peer.send(0xc1, compressed);
            }
            echo(&server);
            assert_eq!(peer.json()["data"], "compressible ".repeat(len / 13 + 5), "{offer} {len}");
        }
        // As it is, among compressed ones.
        echoes(&server, &mut peer, "plain", usize::MAX);
        // What cannot be inflated.
        peer.send(0xc1, b"\x07garbage");
        assert_eq!(peer.close_code(), 1007);
    }
}
