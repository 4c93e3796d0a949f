//! What clients log: whose line it is, and how many lines a server or a host can cause.

use heartbus_core::event::{ClientEvent, ErrorCause};
use heartbus_core::hub::Now;
use heartbus_core::hub::client::{ClientLog, ClientMachine, SocketEnd};
use heartbus_core::log::{LogQueue, Record};
use heartbus_core::settings::ClientConfig;
use heartbus_core::wire::{FrameType, v2};
use std::sync::Arc;
use std::time::Duration;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

const SECOND: u64 = 1_000_000;

/// Keeps what is logged, in one thread.
struct Log(Arc<LogQueue>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        self.0.push(Record::of(event));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn logged(work: impl FnOnce()) -> Vec<Record> {
    let queue = Arc::new(LogQueue::new(1_000_000).unwrap());
    tracing::subscriber::with_default(Log(queue.clone()), work);
    std::iter::from_fn(|| queue.pop()).collect()
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| &*record.message).collect()
}

fn at(mono: u64) -> Now {
    Now { mono, unix: 1_700_000_000 * SECOND + mono }
}

fn client(id: u64, client_log: &Arc<ClientLog>) -> ClientMachine {
    let settings = ClientConfig {
        host: "127.0.0.1".into(),
        port: 9501,
        node_id: Some("n1".into()),
        metadata: "[]".into(),
        heartbeat_interval: Duration::from_secs(10),
        auto_reconnect: true,
        reconnect_interval: Duration::from_secs(1),
        max_reconnect_attempts: 1,
        outbox_bytes: 1 << 20,
        protocol: 2,
        max_nodes: 10,
        ..ClientConfig::default()
    };
    ClientMachine::new(id, settings, client_log.clone(), 1, at(SECOND))
}

fn frame(frame_type: FrameType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    v2::encode(frame_type, 0, payload, &mut bytes);
    bytes
}

fn take(machine: &mut ClientMachine, bytes: &[u8], now: Now) -> Vec<ClientEvent> {
    machine.handle_bytes(bytes);
    std::iter::from_fn(|| machine.poll_event(now)).collect()
}

#[test]
fn every_line_of_a_life_says_whose_it_is() {
    let client_log = Arc::new(ClientLog::default());
    let lines = logged(|| {
        let mut machine = client(42, &client_log);
        machine.handle_connected(at(SECOND));
        take(&mut machine, &frame(FrameType::REGISTER, br#"{"node_id":"n1","channel_id":7}"#), at(SECOND));
        take(&mut machine, &frame(FrameType::ERROR, br#"{"message":"Too bad","code":499}"#), at(SECOND));
        machine.handle_closed(SocketEnd::Closed, at(SECOND));
        machine.handle_timeout(at(3 * SECOND));
        machine.handle_connect_failed(ErrorCause::Refused, "Connection refused (os error 111)".into(), at(3 * SECOND));
        let _ = (machine.send(b"x", 0, at(SECOND)), machine.ping(at(SECOND)));
    });
    let expected = [
        "Connected to server",
        "Sending registration",
        "Registration successful",
        "Server error",
        "Connection closed",
        "Scheduling reconnect",
        "Connection error: connect 127.0.0.1:9501 fail after 0 seconds",
        "Connection closed",
        "Max reconnect attempts reached",
        "Cannot send: Not connected to server",
        "Cannot ping: Not connected to server",
    ];
    assert_eq!(texts(&lines), expected);
    for line in &lines {
        assert_eq!((line.client_id, line.context.starts_with(r#""client_id":42"#)), (42, true), "{line:?}");
    }
    assert_eq!(lines[4].context, r#""client_id":42,"reason":"peer closed""#);
    assert_eq!(lines[6].context, r#""client_id":42,"code":1,"cause":"connection refused""#);
    assert_eq!(lines[7].context, r#""client_id":42,"reason":"connect failed","detail":"Connection refused (os error 111)""#);
}

#[test]
fn what_a_server_can_cause_without_end_is_logged_ten_times_a_second_and_counted() {
    let client_log = Arc::new(ClientLog::default());
    let invalid = [&[0xab, 0x13, 3, 1][..], &[0; 8]].concat();
    let floods = [
        ("Server error", frame(FrameType::ERROR, br#"{"message":"x","code":1}"#)),
        ("Invalid message format", frame(FrameType::REGISTER, b"{}")),
        ("Failed to handle message", invalid),
    ];
    for (what, flood) in floods {
        let lines = logged(|| {
            let mut clients = [1, 2].map(|id| client(id, &client_log));
            for machine in &mut clients {
                machine.handle_connected(at(SECOND));
            }
            for second in 1..=3 {
                for n in 0..1000 {
                    let now = at(second * 10 * SECOND + n);
                    for machine in &mut clients {
                        take(machine, &flood, now);
                    }
                    client_log.tell_left_out(now);
                }
            }
            client_log.tell_counts();
        });
        let written = lines.iter().filter(|line| line.message.starts_with(what)).count();
        assert_eq!(written, 30, "{what}");
        let counted: u64 = lines
            .iter()
            .filter(|line| line.message == "Log messages left out")
            .map(|line| {
                assert!(line.context.starts_with(&format!(r#""of":"{what}","count":"#)), "{}", line.context);
                line.context.rsplit(':').next().unwrap().parse::<u64>().unwrap()
            })
            .sum();
        assert_eq!(written as u64 + counted, 6000, "{what}: what is left out is told");
        assert!(lines.len() < 45, "{what}: {} lines", lines.len());
    }
}

#[test]
fn a_host_that_sends_in_a_loop_while_nobody_is_there_does_not_fill_the_log() {
    let client_log = Arc::new(ClientLog::default());
    let lines = logged(|| {
        let mut machine = client(1, &client_log);
        for n in 0..10_000 {
            let _ = (machine.send(b"x", 0, at(SECOND + n)), machine.ping(at(SECOND + n)), machine.send_from("n1", b"x", at(SECOND + n)));
        }
        client_log.tell_counts();
    });
    assert_eq!(lines.len(), 22, "{:?}", texts(&lines));
    assert_eq!(lines.iter().filter(|line| line.message == "Cannot send: Not connected to server").count(), 10);
}

#[test]
fn a_text_of_a_server_is_short_in_the_log() {
    let client_log = Arc::new(ClientLog::default());
    let lines = logged(|| {
        let mut machine = client(1, &client_log);
        machine.handle_connected(at(SECOND));
        let long = format!(r#"{{"message":"{}","code":1}}"#, "x".repeat(1_000_000));
        take(&mut machine, &frame(FrameType::ERROR, long.as_bytes()), at(SECOND));
    });
    assert!(lines.iter().all(|line| line.message.len() + line.context.len() < 1200));
}
