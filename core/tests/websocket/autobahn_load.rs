//! Autobahn's cases of many messages and of many writes (9.5 to 9.8), and of compressed messages (12, 13).

use super::autobahn::{echo, quoted};
use super::peer::*;
use super::support::{Fixture, v2_frame};
use super::{config, start_with};
use flate2::{Compress, Compression, FlushCompress};
use heartbus_core::settings::ServerConfig;

fn start(websocket_compression: bool) -> (Fixture, std::net::SocketAddr) {
    start_with(ServerConfig { websocket_compression, outbox_bytes: 64 << 20, ..config() })
}

#[test]
fn cases_9_5_1_to_9_6_6_a_mebibyte_written_in_short_chops() {
    let (server, address) = start(false);
    let mut text = WebSocketPeer::json_node(address, "text");
    let mut binary = WebSocketPeer::node(address, "binary");
    let payload = "BAsd7&jh23".repeat((1 << 20) / 10);
    for chop in [64, 128, 256, 512, 1024, 2048] {
        masked(TEXT, quoted(&payload).as_bytes()).chunks(chop).for_each(|bytes| text.raw(bytes));
        echo(&server);
        assert!(text.json()["data"] == payload, "text in {chop}");
        masked(BINARY, &v2_frame(3, 0, payload.as_bytes())).chunks(chop).for_each(|bytes| binary.raw(bytes));
        echo(&server);
        assert!(binary.v2_frame().2 == payload.as_bytes(), "binary in {chop}");
    }
}

#[test]
fn cases_9_7_1_to_9_8_6_a_thousand_short_messages_one_after_another() {
    let (server, address) = start(false);
    let mut text = WebSocketPeer::json_node(address, "text");
    let mut binary = WebSocketPeer::node(address, "binary");
    for len in [0, 16, 64, 256, 1024, 4096] {
        let stars = "*".repeat(len);
        let bytes = vec![0xfe; len];
        for _ in 0..1_000 {
            text.say(&quoted(&stars));
            echo(&server);
            assert_eq!(text.json()["data"], stars);
            binary.send_v2(3, 0, &bytes);
            echo(&server);
            assert_eq!(binary.v2_frame().2, bytes);
        }
    }
}

/// Lengths of messages, and of the fragments that they are cut into once they are compressed, by the last number of the cases.
const LENGTHS: [(usize, usize); 18] = [
    (16, usize::MAX),
    (64, usize::MAX),
    (256, usize::MAX),
    (1024, usize::MAX),
    (4096, usize::MAX),
    (8192, usize::MAX),
    (16_384, usize::MAX),
    (32_768, usize::MAX),
    (65_536, usize::MAX),
    (131_072, usize::MAX),
    (8192, 256),
    (16_384, 256),
    (32_768, 256),
    (65_536, 256),
    (131_072, 256),
    (131_072, 1024),
    (131_072, 4096),
    (131_072, 32_768),
];

/// Messages of each case.
const MESSAGES: usize = 10;

/// A payload of some kind, which the messages are parts of.
struct Kind {
    is_text: bool,
    data: Vec<u8>,
}

const DATA_LEN: usize = 300_000;

/// Numbers that look like chance and are the same each time.
fn numbers() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(0x2545_f491_u32), |state| {
        let state = state ^ state << 13;
        let state = state ^ state >> 17;
        Some(state ^ state << 5)
    })
}

fn text_of(line: impl FnMut((usize, u32)) -> String) -> Vec<u8> {
    let mut text: Vec<u8> = numbers().enumerate().map(line).take(20_000).collect::<String>().into_bytes();
    assert!(text.len() > DATA_LEN);
    text.truncate(DATA_LEN);
    text
}

/// By the second number of the cases of section 12.
fn kinds() -> [Kind; 5] {
    let json = |(n, random)| format!(r#"{{"id":{n},"value":{random},"tags":["a","b{}"]}},"#, n % 7);
    let words = ["Habe", "nun", "ach", "Philosophie", "Juristerei", "und", "Medizin", "durchaus", "studiert", "mit", "heissem", "Bemuehn"];
    let faust = |(_, random): (usize, u32)| (0..3).map(|n| words[(random >> (8 * n)) as usize % words.len()].to_owned() + " ").collect();
    let html = |(n, random)| format!("<li class=\"item\"><a href=\"/page/{n}\">{random:x}</a></li>\n");
    // Neighbours are alike, and none is as the one before.
    let bitmap = numbers().enumerate().map(|(n, random)| ((n % 512) / 2 + n / 2048) as u8 ^ (random & 7) as u8);
    let packed = numbers().map(|random| (random >> 8) as u8);
    [
        Kind { is_text: true, data: text_of(json) },
        Kind { is_text: false, data: bitmap.take(DATA_LEN).collect() },
        Kind { is_text: false, data: text_of(faust) },
        Kind { is_text: true, data: text_of(html) },
        Kind { is_text: false, data: packed.take(DATA_LEN).collect() },
    ]
}

impl Kind {
    fn part(&self, number: usize, len: usize) -> &[u8] {
        let begin = number * 7919 % (self.data.len() - len);
        &self.data[begin..begin + len]
    }
}

/// As another implementation compresses: also what becomes no shorter by it.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::default(), false);
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 100 + 1024);
    state.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    assert!(state.total_in() == payload.len() as u64 && out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

/// Sends a node's data compressed, in fragments, and expects it back.
fn echoes_compressed(server: &Fixture, peer: &mut WebSocketPeer, kind: &Kind, part: &[u8], fragment: usize) {
    let opcode = if kind.is_text { 1 } else { 2 };
    let message = if kind.is_text { quoted(std::str::from_utf8(part).unwrap()).into_bytes() } else { v2_frame(3, 0, part) };
    let compressed = deflated(&message);
    let fragments = compressed.chunks(fragment);
    let last = fragments.len() - 1;
    for (number, bytes) in fragments.enumerate() {
        peer.send(if number == 0 { 0x40 | opcode } else { 0 } | if number == last { 0x80 } else { 0 }, bytes);
    }
    echo(server);
    if kind.is_text {
        assert!(peer.json()["data"].as_str().unwrap().as_bytes() == part);
    } else {
        assert!(peer.v2_frame().2 == part);
    }
}

/// A node whose offer was taken, and what it was answered.
fn compressing(address: std::net::SocketAddr, offer: &str, is_text: bool) -> (WebSocketPeer, String) {
    let name = if is_text { "heartbus.json" } else { "heartbus.v2" };
    let mut peer = WebSocketPeer::ask(address, &request("/", &format!("{}Sec-WebSocket-Extensions: {offer}\r\n", subprotocol(name))));
    let answer = peer.head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    let answer = answer.unwrap_or_else(|| panic!("{offer} was not taken: {}", peer.head)).to_owned();
    if is_text {
        peer.say(r#"{"type":"register","node_id":"text"}"#);
        peer.json();
    } else {
        peer.send_v2(6, 0, br#"{"node_id":"binary"}"#);
        peer.v2_frame();
    }
    (peer, answer)
}

#[test]
fn cases_12_1_1_to_12_5_18_compressed_messages_of_all_kinds_and_lengths() {
    let (server, address) = start(true);
    for kind in &kinds() {
        let (mut peer, _) = compressing(address, "permessage-deflate", kind.is_text);
        for (len, fragment) in LENGTHS {
            (0..MESSAGES).for_each(|number| echoes_compressed(&server, &mut peer, kind, kind.part(number, len), fragment));
        }
    }
}

#[test]
fn cases_13_1_1_to_13_7_18_compressed_messages_after_all_offers() {
    let (server, address) = start(true);
    let [json, ..] = kinds();
    let ours = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offers, bits) in [
        (&["permessage-deflate"][..], ""),
        (&["permessage-deflate; server_no_context_takeover"], ""),
        (&["permessage-deflate; server_max_window_bits=9"], "; server_max_window_bits=9"),
        (&["permessage-deflate; server_max_window_bits=15"], "; server_max_window_bits=15"),
        (&["permessage-deflate; server_no_context_takeover; server_max_window_bits=9"], "; server_max_window_bits=9"),
        (&["permessage-deflate; server_no_context_takeover; server_max_window_bits=15"], "; server_max_window_bits=15"),
        (
            &[
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
                "permessage-deflate; server_no_context_takeover",
                "permessage-deflate",
            ],
            "; server_max_window_bits=9",
        ),
    ] {
        // As Autobahn offers it, all of these with what a client lets a server ask for.
        for more in ["", "; client_no_context_takeover; client_max_window_bits"] {
            let offer = offers.iter().map(|offer| format!("{offer}{more}")).collect::<Vec<_>>().join(", ");
            let (mut peer, answer) = compressing(address, &offer, true);
            assert_eq!(answer, format!("{ours}{bits}"), "{offer}");
            for (len, fragment) in LENGTHS {
                let messages = if more.is_empty() { 1 } else { MESSAGES };
                (0..messages).for_each(|number| echoes_compressed(&server, &mut peer, &json, json.part(number, len), fragment));
            }
        }
    }
}

#[test]
fn messages_as_they_are_may_stand_among_compressed_ones_and_what_cannot_be_inflated_ends_it() {
    let (server, address) = start(true);
    let (mut peer, _) = compressing(address, "permessage-deflate", true);
    peer.say(&quoted("plain"));
    echo(&server);
    assert_eq!(peer.json()["data"], "plain");
    peer.send(0xc1, b"\x07garbage");
    assert_eq!(peer.close_code(), 1007);
}
