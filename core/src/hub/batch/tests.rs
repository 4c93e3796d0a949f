use super::*;
use crate::hub::link::{Command, CommandSink, Link};
use crate::wire::bus::{LENGTH_LEN, VERSION, frame};

struct Silent;

impl CommandSink for Silent {
    fn post(&self, _command: Command) {}
}

/// Ten seconds of the monotonic clock, 1700000000.5 for everybody else.
const NOW: Now = Now { mono: 10_000_000, unix: 1_700_000_000_500_000 };

fn node(id: &str, peer: &str, channel_id: u32, metadata: &str) -> Arc<Node> {
    let link = Arc::new(Link::new(300, peer.parse().unwrap(), 0, Arc::new(Silent)));
    Arc::new(Node::new(id.into(), link, channel_id, Some(metadata.into()), NOW))
}

fn told(sequence: u64, event: Event) -> Delivery {
    Delivery { sequence, redelivered: false, watched: false, event }
}

fn data(node: &Arc<Node>, payload: &[u8]) -> Event {
    Event::Data { node: node.into(), channel_id: node.channel_id(), payload: Bytes::copy_from_slice(payload) }
}

fn write(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    BatchWriter::default().write(&mut out, batch, NOW);
    out
}

fn bodies(mut written: &[u8]) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    while let Some((body, len)) = frame(written, u32::MAX).unwrap() {
        bodies.push(Bytes::copy_from_slice(body));
        written = &written[len..];
    }
    assert!(written.is_empty());
    bodies
}

/// Everything that was read, as text, which is how events compare.
fn read(written: &[u8]) -> Vec<String> {
    let mut reader = BatchReader::default();
    let mut all = Vec::new();
    for body in bodies(written) {
        reader.open(body).unwrap();
        while let Some(told) = reader.next().unwrap() {
            all.push(format!("{told:?}"));
        }
    }
    assert!(reader.is_done());
    all
}

fn expected(batch: &Batch) -> Vec<String> {
    let info = |node: &Arc<Node>| Arc::new(node.info(NOW));
    let events = batch.events.iter().map(|told| {
        let event = match &told.event {
            Event::Connect { connection_id, peer, door } => Event::Connect { connection_id: *connection_id, peer: *peer, door: *door },
            Event::Register { node, count } => Event::Register { node: info(node), count: *count },
            Event::Heartbeat { node, count } => Event::Heartbeat { node: info(node), count: *count },
            Event::Data { node, channel_id, payload } => {
                Event::Data { node: info(node), channel_id: *channel_id, payload: payload.clone() }
            }
            Event::Left { node, how, count } => Event::Left { node: info(node), how: *how, count: *count },
            Event::Buffer { node, fill, count } => Event::Buffer { node: info(node), fill: *fill, count: *count },
            Event::Close { connection_id, reason, who } => {
                Event::Close { connection_id: *connection_id, reason: *reason, who: who.clone() }
            }
            Event::Message { message } => Event::Message { message: message.clone() },
            Event::Question { question, node } => {
                Event::Question { question: question.clone(), node: node.as_ref().map(|node| info(node)) }
            }
            Event::Topic { change, node, count } => {
                Event::Topic { change: change.clone(), node: node.as_ref().map(|node| info(node)), count: *count }
            }
        };
        format!("{:?}", Delivery { sequence: told.sequence, redelivered: told.redelivered, watched: told.watched, event })
    });
    events.collect()
}

/// One event of each kind, in the order of the vectors.
fn one_of_each() -> Batch {
    let (first, second) = (node("n1", "10.0.0.1:5000", 7, "[]"), node("n2", "[::1]:5001", 8, r#"{"a":1}"#));
    let events = vec![
        told(1, Event::Connect { connection_id: 300, peer: "10.0.0.1:5000".parse().unwrap(), door: ConnectedBy::Tcp }),
        told(2, Event::Register { node: (&first).into(), count: 1 }),
        told(3, Event::Heartbeat { node: (&first).into(), count: 2 }),
        Delivery { redelivered: true, ..told(4, data(&first, b"\xff\0")) },
        Delivery { watched: true, ..told(5, data(&second, b"hi")) },
        told(6, Event::Left { node: first.into(), how: Departure::TimedOut, count: 1 }),
        told(7, Event::Close { connection_id: 300, reason: CloseReason::HeartbeatTimeout, who: Arc::new(NOBODY) }),
        told(8, Event::Buffer { node: (&second).into(), fill: Fill::Full, count: 1 }),
        told(9, Event::Buffer { node: second.into(), fill: Fill::Drained, count: 2 }),
    ];
    Batch { number: 9, events }
}

#[test]
fn what_is_written_is_read_again() {
    let batch = one_of_each();
    assert_eq!(read(&write(&batch)), expected(&batch));
}

#[test]
fn a_batch_is_laid_out_as_the_vectors_say() {
    let vectors = include_str!("../../../../tests/vectors/bus.txt");
    let row = vectors.lines().find(|line| line.ends_with("| batch")).expect("a row for a batch");
    let hex: String = write(&one_of_each()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(row.split(' ').next(), Some(&*hex));
}

/// What is published, in the order of the vectors.
fn messages() -> Batch {
    let message = |topic: &str, payload: &'static [u8], position, from: Option<&str>| {
        let message = HostMessage { topic: topic.into(), payload: payload.into(), position, from: from.map(Arc::from) };
        Event::Message { message: Arc::new(message) }
    };
    let position = Some(Position { offset: 7, epoch: 1_764_000_000_000_000 });
    let copy = |sequence, event| Delivery { watched: true, ..told(sequence, event) };
    let events = vec![copy(10, message("a/b", b"\xff\0", position, Some("n1"))), copy(11, message("c", b"", None, None))];
    Batch { number: 10, events }
}

#[test]
fn messages_of_topics_are_laid_out_as_the_vectors_say_and_read_again() {
    let batch = messages();
    let written = write(&batch);
    assert_eq!(read(&written), expected(&batch));
    let row = include_str!("../../../../tests/vectors/bus.txt").lines().find(|line| line.ends_with("| messages")).expect("a row");
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(row.split(' ').next(), Some(&*hex));
    // Cut anywhere, or with a text that is none, it is refused.
    let body = Bytes::from(written).slice(4..);
    for end in 13..body.len() {
        let mut reader = BatchReader::default();
        reader.open(body.slice(..end)).unwrap();
        assert!((0..2).any(|_| reader.next().is_err()), "{end}");
    }
    let mut broken = body.to_vec();
    let topic = broken.windows(3).position(|bytes| bytes == b"a/b").unwrap();
    broken[topic] = 0xff;
    let mut reader = BatchReader::default();
    reader.open(broken.into()).unwrap();
    assert!(reader.next().is_err());
}

#[test]
fn who_comes_goes_and_subscribes_is_laid_out_as_the_vectors_say_and_read_again() {
    let peer = |user: Option<&str>| ConnectedPeer { address: "10.0.0.1:5000".parse().unwrap(), user: user.map(Arc::from) };
    let change = |topic: &str, user, has_subscribed| {
        Arc::new(TopicChange { connection_id: 300, who: peer(user), topic: topic.into(), has_subscribed })
    };
    let of_node = node("n1", "10.0.0.1:5000", 7, "[]");
    let events = vec![
        told(16, Event::Connect { connection_id: 300, peer: peer(None).address, door: ConnectedBy::WebSocket }),
        told(17, Event::Topic { change: change("a/+", None, true), node: Some((&of_node).into()), count: 1 }),
        told(18, Event::Topic { change: change("b", Some("u"), false), node: None, count: 2 }),
        told(19, Event::Close { connection_id: 300, reason: CloseReason::PeerClosed, who: Arc::new(peer(Some("u"))) }),
    ];
    let batch = Batch { number: 14, events };
    let mut written = Vec::new();
    BatchWriter::new(VERSION).write(&mut written, &batch, NOW);
    assert_eq!(read(&written), expected(&batch));
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    let row = include_str!("../../../../tests/vectors/bus.txt").lines().find(|line| line.ends_with("| coming and going")).expect("a row");
    assert_eq!(row.split(' ').next(), Some(&*hex));
    let body = Bytes::from(written).slice(4..);
    for end in 13..body.len() {
        let mut reader = BatchReader::default();
        reader.open(body.slice(..end)).unwrap();
        assert!((0..4).any(|_| reader.next().is_err()), "{end}");
    }
}

#[test]
fn a_reader_from_before_there_were_doors_is_told_of_connections_as_it_knows_them() {
    let who = Arc::new(ConnectedPeer { address: "10.0.0.1:5000".parse().unwrap(), user: Some("u".into()) });
    let events = vec![
        told(1, Event::Connect { connection_id: 300, peer: who.address, door: ConnectedBy::WebSocket }),
        told(2, Event::Close { connection_id: 300, reason: CloseReason::PeerClosed, who }),
    ];
    let batch = Batch { number: 1, events };
    let mut older = Vec::new();
    BatchWriter::new(Version { minor: 2, ..VERSION }).write(&mut older, &batch, NOW);
    let described = read(&older);
    assert!(described[0].contains("door: Tcp") && described[1].contains("address: 0.0.0.0:0, user: None"), "{described:?}");
    // Each without its address: a kind, a number of the event, the connection; and the reason alone.
    assert_eq!(older.len(), LENGTH_LEN + 13 + (1 + 8 + 8 + 7) + (1 + 8 + 8 + 1));
}

#[test]
fn every_reason_and_departure_has_a_number_of_its_own() {
    let closes = CloseReason::ALL.map(|reason| Event::Close { connection_id: 1, reason, who: Arc::new(NOBODY) });
    let gone = node("n", "10.0.0.1:1", 1, "[]");
    let leaves = Departure::ALL.map(|how| Event::Left { node: (&gone).into(), how, count: 1 });
    let batch = Batch { number: 1, events: closes.into_iter().chain(leaves).map(|event| told(1, event)).collect() };
    assert_eq!(read(&write(&batch)), expected(&batch));
    assert_eq!(batch.events.iter().filter(|told| told.event.kind() == EventKind::Close).count(), CloseReason::ALL.len());
}

#[test]
fn a_node_is_described_once_per_frame_and_shared_by_its_events() {
    let busy = node("a-node-with-a-rather-long-name", "10.0.0.1:1", 1, "[]");
    let one = Batch { number: 1, events: vec![told(1, data(&busy, b""))] };
    let many = Batch { number: 1, events: (0..100).map(|number| told(number, data(&busy, b""))).collect() };
    assert_eq!(write(&many).len() - write(&one).len(), 99 * (1 + 8 + 4 + 4 + 4));
    let mut reader = BatchReader::default();
    reader.open(bodies(&write(&many)).remove(0)).unwrap();
    let mut described = Vec::new();
    while let Some(Delivery { event: Event::Data { node, .. }, .. }) = reader.next().unwrap() {
        described.push(node);
    }
    assert!(described.len() == 100 && described.iter().all(|node| Arc::ptr_eq(node, &described[0])));
}

#[test]
fn a_long_batch_goes_in_several_frames_and_is_done_with_the_last() {
    let busy = node("n", "10.0.0.1:1", 1, "[]");
    let long = vec![b'x'; 200_000];
    let batch = Batch { number: 1, events: (0..10).map(|number| told(number, data(&busy, &long))).collect() };
    let written = write(&batch);
    let frames = bodies(&written);
    assert!(frames.len() > 2 && frames.iter().all(|frame| frame.len() < FRAME_BYTES + long.len() + 1000), "{}", frames.len());
    let mut reader = BatchReader::default();
    for (index, frame) in frames.iter().enumerate() {
        reader.open(frame.clone()).unwrap();
        while reader.next().unwrap().is_some() {}
        assert_eq!(reader.is_done(), index == frames.len() - 1);
    }
    assert_eq!(read(&written), expected(&batch));
}

#[test]
fn a_frame_that_is_cut_or_goes_on_is_broken_and_nothing_worse() {
    let written = write(&one_of_each());
    let body = &written[LENGTH_LEN..];
    let try_to_read = |bytes: &[u8]| {
        let mut reader = BatchReader::default();
        reader.open(Bytes::copy_from_slice(bytes))?;
        while reader.next()?.is_some() {}
        Ok::<(), DecodeError>(())
    };
    assert_eq!(try_to_read(body), Ok(()));
    for len in 0..body.len() {
        assert!(try_to_read(&body[..len]).is_err(), "cut at {len}");
    }
    assert_eq!(try_to_read(&[body, &[0]].concat()), Err(DecodeError("bytes are left in a batch")));
    // Whatever one byte is changed to, it is read or refused.
    for at in 0..body.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = body.to_vec();
            changed[at] ^= change;
            let _ = try_to_read(&changed);
        }
    }
}

#[test]
fn a_batch_of_nothing_is_refused() {
    let mut empty = vec![ServerMessage::Batch.code()];
    empty.extend([0; 12]);
    assert_eq!(BatchReader::default().open(empty.into()), Err(DecodeError("a batch without events")));
}

#[test]
fn a_question_is_laid_out_as_the_vectors_say_and_read_again() {
    let asked = Asked::Registration { node_id: "n1".into(), metadata: r#"{"token":"x"}"#.into() };
    let question = Question { number: 5, connection_id: 300, peer: "10.0.0.1:5000".parse().unwrap(), asked };
    let batch = Batch { number: 11, events: vec![told(12, Event::Question { question: Arc::new(question), node: None })] };
    let written = write(&batch);
    assert_eq!(read(&written), expected(&batch));
    let row = include_str!("../../../../tests/vectors/bus.txt").lines().find(|line| line.ends_with("| question")).expect("a row");
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(row.split(' ').next(), Some(&*hex));
    let body = Bytes::from(written).slice(4..);
    for end in 13..body.len() {
        let mut reader = BatchReader::default();
        reader.open(body.slice(..end)).unwrap();
        assert!(reader.next().is_err(), "{end}");
    }
    let mut broken = body.to_vec();
    let text = broken.windows(5).position(|bytes| bytes == b"token").unwrap();
    broken[text] = 0xff;
    let mut reader = BatchReader::default();
    reader.open(broken.into()).unwrap();
    assert!(reader.next().is_err());
}

/// Two questions of a kind, laid out as the row of that name says, and read again; cut anywhere they are refused.
fn assert_laid_out(number: u64, first: (u32, Asked), second: (u32, Asked), row: &str) -> Bytes {
    let question = |(number, asked)| Arc::new(Question { number, connection_id: 300, peer: "10.0.0.1:5000".parse().unwrap(), asked });
    let node = node("n1", "10.0.0.1:5000", 7, "[]");
    let sequence = 2 * number - 11;
    let events = vec![
        told(sequence, Event::Question { question: question(first), node: Some((&node).into()) }),
        told(sequence + 1, Event::Question { question: question(second), node: None }),
    ];
    let batch = Batch { number, events };
    let written = write(&batch);
    assert_eq!(read(&written), expected(&batch));
    let row = include_str!("../../../../tests/vectors/bus.txt").lines().find(|line| line.ends_with(row)).expect("a row");
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(row.split(' ').next(), Some(&*hex));
    let body = Bytes::from(written).slice(4..);
    for end in 13..body.len() {
        let mut reader = BatchReader::default();
        reader.open(body.slice(..end)).unwrap();
        assert!((0..2).any(|_| reader.next().is_err()), "{end}");
    }
    body
}

#[test]
fn questions_before_a_subscription_or_a_publication_are_laid_out_as_the_vectors_say_and_read_again() {
    let subscribes = |filters: &[&str], user: Option<&str>| Asked::Subscription {
        filters: filters.iter().map(|filter| (*filter).into()).collect(),
        user: user.map(Arc::from),
    };
    let publishes = |topic: &str, payload: &'static [u8], user: Option<&str>| Asked::Publication {
        topic: topic.into(),
        payload: payload.into(),
        user: user.map(Arc::from),
    };
    assert_laid_out(13, (8, publishes("a/b", b"\xff\0", None)), (9, publishes("c", b"\"hi\"", Some("u"))), "| publishing");
    let body = assert_laid_out(12, (6, subscribes(&["a/+"], None)), (7, subscribes(&["b", "c"], Some("u"))), "| subscribing");
    // More filters than there are bytes.
    let mut endless = body.to_vec();
    let count = endless.windows(4).position(|bytes| bytes == [0x13, 0x88, 0, 0]).unwrap() + 2;
    endless[count..count + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut reader = BatchReader::default();
    reader.open(endless.into()).unwrap();
    assert!(reader.next().is_err());
}
