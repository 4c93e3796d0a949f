//! Both dialects on one port, over real sockets: who speaks what, and when.

mod support;

use heartbus_core::error::ErrorKind;
use heartbus_core::event::{ClientEvent, ClientEventMask, Event, FleetEvent};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client::{Client, Clients};
use heartbus_core::settings::{ClientConfig, InboxLimits, RateLimit, RateLimitBy, ServerConfig};
use heartbus_core::wire::Dialect;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;

const ANY_BYTES: &[u8] = b"\xff\0\xab\x13 any bytes \x80";

/// A raw peer that registered and agreed on v2, but has not spoken it yet.
fn agreed(server: &Fixture, id: &str) -> (Peer, u32) {
    let mut peer = server.connect();
    peer.send(6, 0, &format!(r#"{{"node_id":"{id}","protocol":2}}"#));
    let reply = peer.frame();
    assert_eq!((reply.dialect, reply.frame_type), (Dialect::V1, 6), "the question was in v1");
    let channel = server.engine.node(id).unwrap().channel_id();
    assert!(reply.text().ends_with(&format!(r#","channel_id":{channel},"protocol":2}}"#)), "{}", reply.text());
    (peer, channel)
}

#[test]
fn a_server_agrees_to_v2_only_when_asked_and_never_to_more() {
    let server = Fixture::start(ServerConfig::default());
    for (asked, agreed) in [("", false), (r#","protocol":1"#, false), (r#","protocol":2"#, true), (r#","protocol":3"#, true)] {
        let mut peer = server.connect();
        peer.send(6, 0, &format!(r#"{{"node_id":"n","metadata":{{"protocol":2}}{asked}}}"#));
        let text = peer.frame().text();
        assert_eq!(text.ends_with(r#","protocol":2}"#), agreed, "{asked}: {text}");
        assert_eq!(text.contains("protocol"), agreed, "{asked}: {text}");
    }
}

#[test]
fn the_server_pushes_v2_once_it_has_heard_v2_and_not_before() {
    let server = Fixture::start(ServerConfig::default());
    let (mut peer, channel) = agreed(&server, "n");
    server.engine.send_to("n", b"early", 0).unwrap();
    let early = peer.frame();
    assert_eq!((early.dialect, early.frame_type, early.text()), (Dialect::V1, 3, "early".to_owned()));
    peer.send_v2(17, 0, b"");
    server.until("the ACK to arrive", |stats| stats.counts.messages_in == 2);
    server.engine.send_to("n", ANY_BYTES, 0).unwrap();
    let pushed = peer.frame();
    assert_eq!((pushed.dialect, pushed.frame_type, pushed.channel_id), (Dialect::V2, 3, channel.into()));
    assert_eq!(pushed.payload, ANY_BYTES);
    assert_eq!(server.engine.stats().counts.unknown_types, 0);
}

#[test]
fn what_only_v2_can_carry_waits_until_a_peer_that_agreed_speaks_it_and_what_follows_keeps_its_place() {
    let server = Fixture::start(ServerConfig::default());
    let (mut peer, _) = agreed(&server, "n");
    server.engine.send_to("n", b"first", 0).unwrap();
    server.engine.send_to("n", ANY_BYTES, 0).unwrap();
    assert_eq!(server.engine.broadcast(ANY_BYTES).unwrap(), 1);
    server.engine.send_to("n", b"last", 0).unwrap();
    let first = peer.frame();
    assert_eq!((first.dialect, first.text()), (Dialect::V1, "first".to_owned()));
    peer.send(4, 0, "");
    assert_eq!(peer.frame().frame_type, 5, "nothing more came in v1");
    assert!(server.engine.stats().buffered_bytes > 2 * ANY_BYTES.len());
    peer.send_v2(17, 0, b"");
    let got: Vec<_> = (0..3).map(|_| peer.frame()).map(|frame| (frame.dialect, frame.payload)).collect();
    let binary = (Dialect::V2, ANY_BYTES.to_vec());
    assert_eq!(got, [binary.clone(), binary, (Dialect::V1, b"last".to_vec())]);
    server.until("the buffers to be empty", |stats| stats.buffered_bytes == 0);
    // A peer that never speaks it takes what was held with it.
    let (second, _) = agreed(&server, "m");
    server.engine.send_to("m", ANY_BYTES, 0).unwrap();
    drop(second);
    server.until("the buffers to be empty", |stats| stats.buffered_bytes == 0 && stats.nodes_online == 1);
}

#[test]
fn who_speaks_v2_is_told_why_its_connection_ends_and_who_speaks_v1_is_not() {
    let server = Fixture::start(ServerConfig::default());
    let speaking_v2 = |id| {
        let (mut peer, _) = agreed(&server, id);
        peer.send_v2(4, 0, b"");
        assert_eq!(peer.frame().frame_type, 5);
        peer
    };
    let expect_farewell = |mut peer: Peer, words: &str| {
        let last = peer.frame();
        assert_eq!((last.dialect, last.frame_type, last.channel_id, &*last.text()), (Dialect::V2, 18, 0, words));
        peer.expect_end();
    };
    let (newer, mut older) = (speaking_v2("newer"), server.register("older"));
    for id in ["newer", "older"] {
        server.engine.disconnect(id).unwrap();
    }
    expect_farewell(newer, r#"{"message":"Disconnected by the server","code":403}"#);
    older.expect_end();
    // Long enough to say something in it, however busy the machine is.
    server.engine.set_heartbeat_timeout(Duration::from_secs(3)).unwrap();
    let (newer, mut older) = (speaking_v2("newer"), server.register("older"));
    expect_farewell(newer, r#"{"message":"Node timed out","code":408}"#);
    older.expect_end();
}

#[test]
fn each_request_is_answered_in_its_own_dialect() {
    let server = Fixture::start(ServerConfig::default());
    let (mut peer, channel) = agreed(&server, "n");
    peer.send_v2(4, 0, b"");
    peer.send(4, 0, "");
    peer.send_v2(1, 0, b"");
    peer.send(1, 0, "");
    peer.send_v2(1, channel, b"");
    peer.send(1, channel.into(), "");
    peer.send_v2(6, 0, br#"{"node_id":"m","protocol":2}"#);
    peer.send(6, 0, r#"{"node_id":"m"}"#);
    let answers: Vec<_> = (0..8).map(|_| peer.frame()).map(|frame| (frame.dialect, frame.frame_type, frame.channel_id)).collect();
    let own = i64::from(channel);
    let expected: Vec<_> = [(5, 0), (2, 0), (2, own), (6, 0)]
        .into_iter()
        .flat_map(|(frame_type, channel_id)| [(Dialect::V2, frame_type, channel_id), (Dialect::V1, frame_type, channel_id)])
        .collect();
    assert_eq!(answers, expected);
}

#[test]
fn heartbeats_in_v2_name_the_whole_connection_or_one_node_and_strangers_are_silent() {
    let server = Fixture::start(ServerConfig::default());
    let (mut peer, first) = agreed(&server, "a");
    peer.send_v2(6, 0, br#"{"node_id":"b"}"#);
    peer.frame();
    let second = server.engine.node("b").unwrap().channel_id();
    let beats = |id| server.engine.node(id).unwrap().info(server.engine.now()).heartbeat_count;
    for (channel, expected) in [(0, (1, 1)), (first, (2, 1)), (second, (2, 2))] {
        peer.send_v2(1, channel, b"");
        let answer = peer.frame();
        assert_eq!((answer.dialect, answer.frame_type, answer.channel_id), (Dialect::V2, 2, i64::from(channel)));
        assert!(answer.text().starts_with(r#"{"timestamp":1"#), "{}", answer.text());
        assert_eq!((beats("a"), beats("b")), expected, "channel {channel}");
    }
    let _other = server.register("c");
    let stranger = server.engine.node("c").unwrap().channel_id();
    peer.send_v2(1, stranger, b"");
    peer.send_v2(3, stranger, b"x");
    peer.send_v2(4, 0, b"");
    assert_eq!(peer.frame().frame_type, 5, "nothing came before the PONG");
    let counts = server.engine.stats().counts;
    assert_eq!((counts.heartbeats_ignored, counts.data_ignored), (1, 1));
}

#[test]
fn any_bytes_reach_the_host_in_v2() {
    let server = Fixture::start(ServerConfig::default());
    let (mut peer, channel) = agreed(&server, "n");
    peer.send_v2(3, 0, ANY_BYTES);
    peer.send_v2(3, channel, b"");
    for expected in [ANY_BYTES, b""] {
        let event = server.event_where(|event| matches!(event, Event::Data { .. }));
        let Event::Data { channel_id, payload, .. } = event else { unreachable!() };
        assert_eq!((channel_id, &payload[..]), (channel, expected));
    }
}

#[test]
fn a_broadcast_reaches_each_node_in_its_dialect_and_leaves_out_who_cannot_read_it() {
    let server = Fixture::start(ServerConfig::default());
    let mut old = server.register("old");
    assert_eq!(server.engine.broadcast(ANY_BYTES).unwrap_err().kind, ErrorKind::InvalidArgument);
    let (mut new, channel) = agreed(&server, "new");
    new.send_v2(17, 0, b"");
    server.until("the ACK to arrive", |stats| stats.counts.messages_in == 3);
    assert_eq!(server.engine.broadcast("téxt".as_bytes()).unwrap(), 2);
    assert_eq!(server.engine.broadcast(ANY_BYTES).unwrap(), 1);
    assert_eq!(server.engine.broadcast(b"end").unwrap(), 2);
    let got: Vec<_> = (0..2).map(|_| old.frame()).map(|frame| (frame.dialect, frame.text())).collect();
    assert_eq!(got, [(Dialect::V1, "téxt".to_owned()), (Dialect::V1, "end".to_owned())]);
    for expected in ["téxt".as_bytes(), ANY_BYTES, b"end"] {
        let frame = new.frame();
        assert_eq!((frame.dialect, frame.channel_id, &frame.payload[..]), (Dialect::V2, channel.into(), expected));
    }
}

#[test]
fn the_longest_payload_is_the_same_in_v2_whatever_its_bytes() {
    let server = Fixture::start(ServerConfig { max_frame_bytes: 1000, ..ServerConfig::default() });
    let (mut peer, _) = agreed(&server, "n");
    peer.send_v2(17, 0, b"");
    server.until("the ACK to arrive", |stats| stats.counts.messages_in == 2);
    server.engine.send_to("n", &[0; 1000], 0).unwrap();
    assert_eq!(server.engine.broadcast(&[1; 1000]).unwrap(), 1);
    assert_eq!(server.engine.send_to("n", &[0; 1001], 0).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(server.engine.broadcast(&[0; 1001]).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!((peer.frame().payload, peer.frame().payload), (vec![0; 1000], vec![1; 1000]));
    peer.send_v2(3, 0, &[2; 1000]);
    server.event_where(|event| matches!(event, Event::Data { payload, .. } if payload[..] == [2; 1000]));
    peer.raw(&v2_frame(3, 0, &[2; 1001])[..12]);
    let refusal = peer.frame();
    assert_eq!((refusal.dialect, refusal.text()), (Dialect::V2, r#"{"message":"Frame too long: 1001 bytes","code":413}"#.to_owned()));
    peer.expect_end();
}

#[test]
fn bad_v2_frames_are_answered_in_v2_and_a_flag_does_not_lose_the_stream() {
    let server = Fixture::start(ServerConfig::default());
    let (mut peer, _) = agreed(&server, "n");
    let mut flagged = v2_frame(3, 0, b"xyz");
    flagged[3] = 0x40;
    peer.raw(&flagged);
    let refusal = peer.frame();
    let text = r#"{"message":"Failed to process message: Invalid message flags: 0x40","code":500}"#;
    assert_eq!((refusal.dialect, refusal.frame_type, refusal.text()), (Dialect::V2, 8, text.to_owned()));
    for unknown in [0, 2, 5, 8, 16, 18, 19, 255] {
        peer.send_v2(unknown, 0, b"x");
    }
    peer.send(17, 0, "");
    peer.send_v2(4, 0, b"");
    assert_eq!(peer.frame().frame_type, 5);
    assert_eq!(server.engine.stats().counts.unknown_types, 9, "an ACK in v1 says nothing, so it is none");
    peer.raw(b"GET / HTTP/1.1\r\n\r\n");
    let refusal = peer.frame();
    let text = r#"{"message":"Failed to process message: Invalid message magic: 0x4745","code":500}"#;
    assert_eq!((refusal.dialect, refusal.text()), (Dialect::V2, text.to_owned()));
    peer.expect_end();
}

#[test]
fn v2_frames_split_at_every_byte_between_v1_frames_are_understood() {
    let server = Fixture::start(ServerConfig::default());
    let stream = [frame(4, 0, ""), v2_frame(4, 0, b""), v2_frame(3, 0, ANY_BYTES), frame(4, 0, ""), v2_frame(4, 9, b"")].concat();
    for cut in 1..stream.len() {
        let mut peer = server.connect();
        peer.raw(&stream[..cut]);
        peer.raw(&stream[cut..]);
        let dialects: Vec<_> = (0..4).map(|_| peer.frame().dialect).collect();
        assert_eq!(dialects, [Dialect::V1, Dialect::V2, Dialect::V1, Dialect::V2], "cut at {cut}");
    }
}

#[test]
fn rate_limits_count_v2_frames_as_well() {
    let limit = RateLimit { capacity: 3, refill_per_second: 0.0, by: RateLimitBy::Connection };
    let server = Fixture::start(ServerConfig { rate_limit: Some(limit), ..ServerConfig::default() });
    let mut peer = server.connect();
    let pings = v2_frame(4, 0, b"").repeat(5);
    peer.raw(&pings);
    let answers: Vec<_> = (0..5).map(|_| peer.frame()).map(|frame| (frame.dialect, frame.frame_type)).collect();
    assert_eq!(answers, [5, 5, 5, 8, 8].map(|frame_type| (Dialect::V2, frame_type)));
}

#[test]
fn a_stopping_server_says_goaway_to_who_speaks_v2_and_503_to_others() {
    let server = Fixture::start(ServerConfig::default());
    let mut old = server.register("old");
    let (mut silent, _) = agreed(&server, "silent");
    let (mut new, _) = agreed(&server, "new");
    new.send_v2(4, 0, b"");
    assert_eq!(new.frame().frame_type, 5);
    let readers: Vec<_> = [old.take(), silent.take(), new.take()]
        .into_iter()
        .map(|mut peer| {
            std::thread::spawn(move || {
                let frame = peer.frame();
                peer.expect_end();
                (frame.dialect, frame.frame_type, frame.text())
            })
        })
        .collect();
    server.engine.stop();
    let told: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let v1 = (Dialect::V1, 8, r#"{"message":"Server is shutting down","code":503}"#.to_owned());
    let v2 = (Dialect::V2, 18, r#"{"message":"Server is shutting down","code":503,"window_ms":1000}"#.to_owned());
    assert_eq!(told, [v1.clone(), v1, v2]);
}

/// A client of ours, and its events.
struct Fleet {
    clients: Clients,
    inbox: Arc<Inbox<FleetEvent>>,
    events: VecDeque<FleetEvent>,
}

impl Fleet {
    fn start() -> Self {
        let inbox = Inbox::new(InboxLimits::default()).unwrap();
        inbox.subscribe(ClientEventMask::ALL);
        Self { clients: Clients::start(inbox.clone()).unwrap(), inbox, events: VecDeque::new() }
    }

    fn connect(&mut self, server: &Fixture, id: &str, protocol: u32) -> Client {
        let port = server.engine.local_addr().port();
        let config = ClientConfig { port, node_id: Some(id.into()), protocol, ..ClientConfig::default() };
        let client = self.clients.connect(config).unwrap();
        self.until(|event| matches!(event, ClientEvent::Register { .. }));
        client
    }

    fn until(&mut self, wanted: impl Fn(&ClientEvent) -> bool) -> ClientEvent {
        let deadline = deadline();
        loop {
            while let Some(FleetEvent { event, .. }) = self.events.pop_front() {
                if wanted(&event) {
                    return event;
                }
            }
            self.inbox.drain(&mut self.events, 64);
            assert!(Instant::now() < deadline, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn our_client_and_our_server_carry_any_bytes_both_ways() {
    let server = Fixture::start(ServerConfig::default());
    let mut fleet = Fleet::start();
    let client = fleet.connect(&server, "n", 2);
    let long = vec![0xfe; 3_000_000];
    for payload in [ANY_BYTES, b"", "téxt".as_bytes(), &long] {
        client.send(payload, 0).unwrap();
        let Event::Data { payload: got, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { unreachable!() };
        assert!(got == payload);
        server.engine.send_to("n", payload, 0).unwrap();
        let ClientEvent::Data { payload: got, .. } = fleet.until(|event| matches!(event, ClientEvent::Data { .. })) else { unreachable!() };
        assert!(got == payload);
    }
    server.engine.stop();
    let error = fleet.until(|event| matches!(event, ClientEvent::ServerError { .. }));
    assert!(matches!(error, ClientEvent::ServerError { code: 503, message, .. } if message == "Server is shutting down"));
}

#[test]
fn a_client_told_to_stay_with_v1_does() {
    let server = Fixture::start(ServerConfig::default());
    let mut fleet = Fleet::start();
    let client = fleet.connect(&server, "n", 1);
    assert_eq!(client.send(ANY_BYTES, 0).unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(server.engine.send_to("n", ANY_BYTES, 0).unwrap_err().kind, ErrorKind::InvalidArgument);
    client.send(b"text", 0).unwrap();
    server.event_where(|event| matches!(event, Event::Data { payload, .. } if &payload[..] == b"text"));
    for protocol in [0, 3] {
        let refused = fleet.clients.connect(ClientConfig { protocol, ..ClientConfig::default() });
        assert_eq!(refused.err().expect("no such dialect").message, "protocol must be 1 or 2");
    }
}
