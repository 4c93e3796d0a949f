//! Workers that come, go, hang and die.

use crate::house::*;
use crate::support::{Peer, deadline};
use heartbus_core::bus::{Attachment, AttachmentPhase, Delivered, LineLevel, LogLine, NodeInfo};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{ConnectedBy, Departure, Event, EventMask};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::wire::bus::{self as wire, Role, WorkerMessage};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_worker_gets_everything_in_order_and_what_it_is_told_is_whole() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let mut peer = house.connect();
    peer.send(6, 0, r#"{"node_id":"n","metadata":{"a":1}}"#);
    peer.frame();
    for number in 0..2000 {
        peer.send(3, 0, &number.to_string());
    }
    peer.send(1, 0, "{}");
    peer.send(7, 0, "");
    drop(peer);
    let connect = worker.tell();
    let Event::Connect { connection_id, peer: address, door: ConnectedBy::Tcp } = connect.told.event else { panic!("{connect:?}") };
    let register = worker.tell();
    let Event::Register { node, count: 1 } = &register.told.event else { panic!("{register:?}") };
    assert_eq!((&*node.id, node.peer, node.connection_id, &*node.metadata), ("n", address, connection_id, r#"{"a":1}"#));
    let mut last = register.told.sequence;
    for number in 0..2000 {
        let delivered = worker.tell();
        assert_eq!(data_of(&delivered), Some(("n".into(), number.to_string())));
        let told = &delivered.told;
        assert!(told.sequence > last && !told.redelivered && !told.watched);
        last = told.sequence;
        let Event::Data { channel_id, node, .. } = &told.event else { unreachable!() };
        assert_eq!(*channel_id, node.channel_id);
    }
    assert!(matches!(worker.tell().told.event, Event::Heartbeat { count: 1, .. }));
    let left = worker.tell();
    let Event::Left { node, how: Departure::Unregistered, count: 1 } = &left.told.event else { panic!("{left:?}") };
    assert!(!node.online);
    assert!(matches!(worker.tell().told.event, Event::Close { connection_id: closed, .. } if closed == connection_id));
    house.until("everything to be acknowledged", |stats| (stats.dispatch.queued_events, stats.dispatch.in_flight_events) == (0, 0));
}

#[test]
fn a_nodes_time_and_counters_are_those_of_the_engine() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let mut peer = house.register("n");
    peer.send(3, 0, "x");
    let delivered = worker.tell_until(|event| matches!(event, Event::Data { .. }));
    let Event::Data { node, .. } = &delivered.told.event else { unreachable!() };
    let mut bus = house.bus();
    let deadline = deadline();
    // The message is counted when it has been told.
    let mut own = loop {
        let own = bus.node("n").unwrap().unwrap();
        if own.total_messages == 1 {
            break own;
        }
        assert!(own.total_messages == 0 && Instant::now() < deadline, "{own:?}");
    };
    // Off by as long as the system keeps a thread waiting between its two clocks, which it does not do each time.
    let mut created = node.created_at;
    while (created - own.created_at).abs() > 0.001 {
        assert!(Instant::now() < deadline, "{created} {}", own.created_at);
        peer.send(3, 0, "x");
        let Event::Data { node, .. } = worker.tell_until(|event| matches!(event, Event::Data { .. })).told.event else { unreachable!() };
        (created, own) = (node.created_at, bus.node("n").unwrap().unwrap());
    }
    assert!(created > 1e9, "{created}");
    assert_eq!((node.channel_id, own.online), (own.channel_id, true));
}

#[test]
fn a_worker_gets_what_it_subscribed_to_and_may_change_its_mind() {
    let house = House::with_limits(DispatchLimits::default(), EventMask::NONE);
    let mut worker = house.attach();
    worker.attachment.ready(EventMask::LEFT).unwrap();
    house.until("the worker", |stats| stats.dispatch.workers == 1);
    let peer = house.register("a");
    drop(peer);
    assert!(matches!(worker.tell().told.event, Event::Left { .. }));
    worker.attachment.subscribe(EventMask::REGISTER).unwrap();
    // Nothing answers a subscription: the first registration that is told shows that it holds.
    let deadline = deadline();
    loop {
        drop(house.register("b"));
        worker.attachment.drain(&mut worker.queue, 64).unwrap();
        if !worker.queue.is_empty() && matches!(worker.tell().told.event, Event::Register { .. }) {
            break;
        }
        assert!(Instant::now() < deadline, "waited in vain for the subscription");
    }
    // Everybody who left left before "last" came, and is not told any more.
    house.until("b to have left", |stats| stats.nodes_online == 0);
    let _last = house.register("last");
    loop {
        let Event::Register { node, .. } = worker.tell().told.event else { panic!("not a registration") };
        if &*node.id == "last" {
            break;
        }
        assert_eq!(&*node.id, "b");
    }
}

#[test]
fn events_from_before_the_first_worker_wait_for_it() {
    let house = House::with_limits(DispatchLimits::default(), EventMask::REGISTER);
    let _peer = house.register("early");
    let mut worker = house.worker();
    let Event::Register { node, .. } = worker.tell().told.event else { panic!("not a registration") };
    assert_eq!(&*node.id, "early");
}

#[test]
fn an_attached_process_gets_nothing_before_it_is_ready() {
    let house = House::for_workers();
    let mut worker = house.attach();
    let _peer = house.register("n");
    // An answer to another caller is proof that the bus thread has had its turn.
    house.bus().heartbeat_timeout().unwrap();
    assert_eq!(worker.attachment.drain(&mut worker.queue, 64).unwrap(), 0);
    worker.attachment.ready(EventMask::REGISTER).unwrap();
    assert!(matches!(worker.tell().told.event, Event::Register { .. }));
    assert_eq!(worker.attachment.phase(), AttachmentPhase::Running);
}

#[test]
fn an_engine_that_runs_its_callbacks_itself_refuses_workers() {
    let house = House::in_process();
    let error = Attachment::attach(&house.path, PATIENCE).map(drop).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Closed, "This server runs its callbacks itself"));
}

#[test]
fn two_workers_share_the_nodes_and_each_node_keeps_its_worker() {
    let house = House::for_workers();
    let mut workers = [house.worker(), house.worker()];
    assert_ne!(workers[0].attachment.worker(), workers[1].attachment.worker());
    let mut peers: Vec<Peer> = (0..40).map(|number| house.register(&format!("node{number}"))).collect();
    for round in 0..5 {
        for peer in &mut peers {
            peer.send(3, 0, &round.to_string());
        }
    }
    let mut owner: HashMap<String, (usize, Vec<String>)> = HashMap::new();
    let deadline = deadline();
    while owner.values().map(|(_, data)| data.len()).sum::<usize>() < 200 {
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            while let Some(delivered) = worker.queue.pop_front() {
                if let Some((node, data)) = data_of(&delivered) {
                    let (known, all) = owner.entry(node).or_insert((index, Vec::new()));
                    assert_eq!(*known, index);
                    all.push(data);
                }
                if delivered.is_last {
                    worker.attachment.acknowledge(delivered.batch).unwrap();
                }
            }
        }
        assert!(Instant::now() < deadline, "waited in vain: {owner:?}");
    }
    assert!(owner.values().all(|(_, data)| data == &["0", "1", "2", "3", "4"]));
    let first = owner.values().filter(|(index, _)| *index == 0).count();
    assert!((1..40).contains(&first), "one worker got {first} of 40 nodes");
}

#[test]
fn what_a_dead_worker_had_not_acknowledged_goes_to_the_next_with_a_mark_on_the_first_batch() {
    let limits = DispatchLimits { batch_events: 10, ..DispatchLimits::default() };
    let house = House::with_limits(limits, EventMask::ALL);
    let mut first = house.attach();
    first.attachment.ready(EventMask::DATA).unwrap();
    house.until("the worker", |stats| stats.dispatch.workers == 1);
    let mut peer = house.register("n");
    for number in 0..100 {
        peer.send(3, 0, &number.to_string());
    }
    house.until("the data", |stats| stats.counts.data_in == 100);
    // It acknowledges one batch, begins the next, and dies.
    let mut seen = Vec::new();
    loop {
        let delivered = first.tell();
        seen.push(data_of(&delivered).unwrap().1);
        if delivered.is_last {
            break;
        }
    }
    let acknowledged = seen.len();
    // Until it is heard, so that the test knows what is left.
    house.until("the acknowledgement", |stats| stats.dispatch.queued_events + stats.dispatch.in_flight_events == 100 - acknowledged);
    first.event();
    drop(first);
    house.until("its end", |stats| stats.dispatch.workers == 0);
    let mut second = house.attach();
    second.attachment.ready(EventMask::DATA).unwrap();
    let mut marked = 0;
    let rest: Vec<String> = (acknowledged..100)
        .map(|_| {
            let delivered = second.tell();
            marked += usize::from(delivered.told.redelivered);
            data_of(&delivered).unwrap().1
        })
        .collect();
    seen.extend(rest);
    assert_eq!(seen, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!((1..=10).contains(&marked), "{marked} events are marked");
    assert_eq!(house.engine.stats().dispatch.redelivered, marked as u64);
}

/// A worker with a child that keeps a copy of its connection, run by the test below in a process of its own.
#[test]
fn as_a_worker_with_a_child() {
    let Some(path) = std::env::var_os("HEARTBUS_TEST_WORKER") else { return };
    let mut attachment = Attachment::attach(Path::new(&path), PATIENCE).unwrap();
    attachment.ready(EventMask::ALL).unwrap();
    let copy = attachment.as_fd().try_clone_to_owned().unwrap();
    let mut child = Command::new("sleep").arg("60").stdin(copy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    println!("child> {}", child.id());
    child.wait().unwrap();
}

#[test]
fn a_worker_is_dead_when_its_process_is_although_a_child_of_it_keeps_the_connection() {
    let house = House::for_workers();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "workers::as_a_worker_with_a_child", "--nocapture"])
        .env("HEARTBUS_TEST_WORKER", &house.path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let child: i32 = lines.map(Result::unwrap).find_map(|line| line.split_once("> ")?.1.parse().ok()).unwrap();
    house.until("the worker to join", |stats| stats.dispatch.workers == 1);
    let _peer = house.register("n");
    house.until("events in its hands", |stats| stats.dispatch.in_flight_events > 0);
    worker.kill().unwrap();
    worker.wait().unwrap();
    house.until("its end", |stats| stats.dispatch.workers == 0);
    kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    assert!(house.worker().tell().told.redelivered);
}

#[test]
fn what_a_worker_acknowledged_before_it_died_counts_even_if_the_engine_was_writing_to_it() {
    let house = House::with_limits(DispatchLimits { batch_events: 1, ..DispatchLimits::default() }, EventMask::ALL);
    let mut peer = house.register("n");
    peer.send(3, 0, "short");
    peer.send(3, 0, &"x".repeat(4 << 20));
    house.until("the events", |stats| stats.dispatch.queued_events == 4);
    let mut worker = house.raw();
    worker.hello(wire::VERSION, Role::Worker);
    worker.greeting().unwrap();
    worker.say(WorkerMessage::Ready { mask: EventMask::ALL.0 });
    // It reads three batches. The fourth is too long for the socket, so that the engine is in the middle of it.
    for _ in 0..3 {
        let mut length = [0; 4];
        worker.stream.read_exact(&mut length).unwrap();
        worker.stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
    }
    // So much that the engine must read several times, and finds in between that nobody reads what it writes.
    let mut words = Vec::new();
    for _ in 0..5000 {
        wire::write_message(&mut words, &WorkerMessage::Subscribe { mask: EventMask::ALL.0 });
    }
    for batch in 1..=3 {
        wire::write_message(&mut words, &WorkerMessage::Acknowledge { batch });
    }
    worker.write(&words);
    drop(worker);
    house.until("its end", |stats| stats.dispatch.workers == 0);
    let mut next = house.worker();
    let told = next.tell().told;
    assert_eq!((told.sequence, told.redelivered), (4, true));
    assert_eq!(house.engine.stats().dispatch.redelivered, 1);
}

#[test]
fn a_worker_that_leaves_tells_what_it_has_and_is_let_go() {
    let house = House::for_workers();
    let mut first = house.worker();
    let mut peer = house.register("n");
    first.tell_until(|event| matches!(event, Event::Register { .. }));
    peer.send(3, 0, "before");
    let delivered = first.event();
    assert_eq!(data_of(&delivered).unwrap().1, "before");
    first.attachment.leave().unwrap();
    let mut second = house.worker();
    peer.send(3, 0, "after");
    house.until("the data", |stats| stats.counts.data_in == 2);
    // The node has moved, but its former worker has not said that it is done.
    house.bus().heartbeat_timeout().unwrap();
    second.attachment.drain(&mut second.queue, 64).unwrap();
    assert!(second.queue.is_empty());
    assert_eq!(first.attachment.phase(), AttachmentPhase::Running);
    first.attachment.acknowledge(delivered.batch).unwrap();
    first.tell_until_phase(AttachmentPhase::Finished);
    assert_eq!(data_of(&second.tell()).unwrap().1, "after");
    assert_eq!(house.engine.stats().dispatch.redelivered, 0);
    // Gone for good, and that is no loss.
    let drained = first.attachment.drain(&mut first.queue, 64);
    assert!(matches!(drained, Ok(0) | Err(Error { kind: ErrorKind::Closed, .. })), "{drained:?}");
    assert_eq!(first.attachment.phase(), AttachmentPhase::Finished);
}

#[test]
fn a_process_may_leave_without_ever_having_been_ready() {
    let house = House::for_workers();
    let mut worker = house.attach();
    worker.attachment.leave().unwrap();
    worker.tell_until_phase(AttachmentPhase::Finished);
    // Twice says no more than once.
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Worker);
    raw.greeting().unwrap();
    let mut words = Vec::new();
    wire::write_message(&mut words, &WorkerMessage::Leave);
    wire::write_message(&mut words, &WorkerMessage::Leave);
    raw.write(&words);
    raw.expect_end();
}

#[test]
fn a_stop_is_announced_and_everything_is_told_before_it_ends() {
    let house = House::for_workers();
    let mut workers = [house.worker(), house.worker()];
    let _peers: Vec<Peer> = (0..50).map(|number| house.register(&format!("node{number}"))).collect();
    let told: Vec<Delivered> = std::thread::scope(|scope| {
        let telling: Vec<_> =
            workers.iter_mut().map(|worker| scope.spawn(move || worker.tell_until_phase(AttachmentPhase::Finished))).collect();
        house.engine.stop();
        telling.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(workers.iter().all(|worker| worker.heard_of_the_stop));
    let count = |wanted: fn(&Event<std::sync::Arc<NodeInfo>>) -> bool| told.iter().filter(|told| wanted(&told.told.event)).count();
    assert_eq!(count(|event| matches!(event, Event::Register { .. })), 50);
    assert_eq!(count(|event| matches!(event, Event::Left { .. })), 50);
    assert_eq!(count(|event| matches!(event, Event::Close { .. })), 50);
    assert_eq!(house.engine.stats().dispatch.in_flight_events, 0);
    assert_eq!(kind(Attachment::attach(&house.path, PATIENCE).map(drop)), ErrorKind::Io);
}

#[test]
fn a_worker_that_does_not_answer_holds_up_a_stop_for_two_seconds_only() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let _peer = house.register("n");
    worker.event();
    let began = Instant::now();
    house.engine.stop();
    // Generous, for a slow machine; without the bound it would never return.
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(!house.path.exists());
}

#[test]
fn a_stop_without_workers_waits_for_none() {
    let house = House::for_workers();
    let _peer = house.register("n");
    assert_ne!(house.engine.stats().dispatch.queued_events, 0);
    house.engine.stop();
    assert!(!house.path.exists());
}

#[test]
fn a_worker_notices_that_the_engine_is_gone() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let welcome = welcome();
    let engine = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The hello, in one piece as it was sent.
        assert_ne!(stream.read(&mut [0; 64]).unwrap(), 0);
        stream.write_all(&welcome).unwrap();
    });
    let mut attachment = Attachment::attach(&folder.socket(), PATIENCE).unwrap();
    engine.join().unwrap();
    let deadline = deadline();
    let error = loop {
        match attachment.drain(&mut VecDeque::new(), 64) {
            Ok(_) => assert!(Instant::now() < deadline),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind, attachment.phase()), (ErrorKind::Closed, AttachmentPhase::Lost));
    assert_eq!(kind(attachment.ready(EventMask::ALL)), ErrorKind::Closed);
}

#[test]
fn a_worker_that_breaks_the_rules_ends_itself_and_its_events_go_on() {
    let wrong: [&[WorkerMessage]; 7] = [
        &[WorkerMessage::Acknowledge { batch: 1 }],
        &[WorkerMessage::Subscribe { mask: 1 }],
        &[WorkerMessage::Watch { channel: 1 }],
        &[WorkerMessage::Ready { mask: 0 }, WorkerMessage::Ready { mask: 0 }],
        &[WorkerMessage::Ready { mask: 0 }, WorkerMessage::Acknowledge { batch: 1 }],
        &[WorkerMessage::Ready { mask: 0 }, WorkerMessage::Leave, WorkerMessage::Ready { mask: 0 }],
        &[WorkerMessage::Leave, WorkerMessage::Subscribe { mask: 0 }],
    ];
    let house = House::for_workers();
    let _peer = house.register("n");
    for words in wrong {
        let mut raw = house.raw();
        raw.hello(wire::VERSION, Role::Worker);
        raw.greeting().unwrap();
        let mut frames = Vec::new();
        words.iter().for_each(|word| wire::write_message(&mut frames, word));
        raw.write(&frames);
        raw.expect_end();
    }
    // One that has something in hand and acknowledges something else.
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Worker);
    raw.greeting().unwrap();
    raw.say(WorkerMessage::Ready { mask: EventMask::ALL.0 });
    house.until("a batch", |stats| stats.dispatch.in_flight_events > 0);
    raw.say(WorkerMessage::Acknowledge { batch: 2 });
    raw.expect_end();
    let mut worker = house.worker();
    let delivered = worker.tell_until(|event| matches!(event, Event::Register { .. }));
    assert!(delivered.told.redelivered);
}

#[test]
fn a_worker_that_reads_nothing_costs_its_data_and_stops_nobody() {
    let limits = DispatchLimits { events: 1000, bytes: 1 << 20, ..DispatchLimits::default() };
    let house = House::with_limits(limits, EventMask::ALL);
    let mut worker = house.worker();
    let mut peer = house.register("n");
    let mut reader = peer.take();
    let data = "x".repeat(1000);
    for _ in 0..6000 {
        peer.send(3, 0, &data);
    }
    peer.send(1, 0, "{}");
    // Its heartbeat is answered: it was read to the end.
    assert_eq!(reader.frame().frame_type, 2);
    let stats = house.engine.stats();
    assert_eq!(stats.counts.data_in, 6000);
    assert!(stats.dispatch.refused > 0 && stats.dispatch.queued_bytes <= 1 << 20, "{:?}", stats.dispatch);
    assert_eq!(stats.counts.reads_paused_by_host, 0);
    // It comes round: what was taken is all there, in order.
    let mut got = 0;
    while got < 6000 - stats.dispatch.refused {
        got += u64::from(data_of(&worker.tell()).is_some());
    }
    worker.tell_until(|event| matches!(event, Event::Heartbeat { .. }));
    house.until("everything to be acknowledged", |stats| (stats.dispatch.queued_events, stats.dispatch.in_flight_events) == (0, 0));
}

#[test]
fn a_batch_longer_than_a_frame_goes_in_several_and_is_acknowledged_once() {
    let limits = DispatchLimits { batch_bytes: 8 << 20, ..DispatchLimits::default() };
    let house = House::with_limits(limits, EventMask::ALL);
    let mut peer = house.register("n");
    let data = "y".repeat(300_000);
    for _ in 0..10 {
        peer.send(3, 0, &data);
    }
    let longest = "z".repeat(10_000_000);
    peer.send(3, 0, &longest);
    house.until("the data", |stats| stats.counts.data_in == 11);
    let mut worker = house.attach();
    worker.attachment.ready(EventMask::DATA).unwrap();
    let mut lasts = Vec::new();
    for index in 0..11 {
        let delivered = worker.tell();
        let expected = if index < 10 { &data } else { &longest };
        assert_eq!(data_of(&delivered), Some(("n".into(), expected.clone())));
        if delivered.is_last {
            lasts.push(index);
        }
    }
    assert_eq!(lasts, [9, 10]);
}

#[test]
fn a_watched_channels_data_is_copied_to_whoever_watches_it() {
    let house = House::for_workers();
    let mut workers = [house.worker(), house.worker()];
    let mut peer = house.register("n");
    let channel = house.bus().node("n").unwrap().unwrap().channel_id;
    // Both watch it; one of them is its owner and gets it anyway.
    for worker in &mut workers {
        worker.attachment.watch(channel).unwrap();
        worker.attachment.subscribe(EventMask::DATA).unwrap();
    }
    // Words are heard within the turn of the bus thread that another caller's answer is proof of.
    house.bus().heartbeat_timeout().unwrap();
    house.bus().heartbeat_timeout().unwrap();
    peer.send(3, 0, "once");
    let mut watched: Vec<bool> = workers
        .iter_mut()
        .map(|worker| {
            let delivered = worker.tell_until(|event| matches!(event, Event::Data { .. }));
            assert_eq!(data_of(&delivered).unwrap().1, "once");
            delivered.told.watched
        })
        .collect();
    watched.sort();
    assert_eq!(watched, [false, true]);
    for worker in &mut workers {
        worker.attachment.unwatch(channel).unwrap();
    }
    house.bus().heartbeat_timeout().unwrap();
    house.bus().heartbeat_timeout().unwrap();
    peer.send(3, 0, "twice");
    house.until("the data", |stats| stats.counts.data_in == 2 && stats.dispatch.queued_events == 0);
    let told: usize = workers
        .iter_mut()
        .map(|worker| {
            house.bus().heartbeat_timeout().unwrap();
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            worker.queue.iter().filter(|delivered| data_of(delivered).is_some()).count()
        })
        .sum();
    assert_eq!(told, 1);
}

#[test]
fn the_engine_s_log_goes_to_one_of_the_workers_that_take_it() {
    let house = House::for_workers();
    let line = |text: &str| LogLine { level: LineLevel::Info, message: text.into(), context: r#""n":1"#.into() };
    assert_eq!(house.engine.send_log(line("nobody")), Err(line("nobody")));
    let mut plain = house.worker();
    assert_eq!(house.engine.send_log(line("not asked for")), Err(line("not asked for")));
    let (mut first, mut second) = (house.worker(), house.worker());
    let next = |worker: &mut Worker| {
        let deadline = deadline();
        loop {
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            if let Some(line) = worker.attachment.log_line() {
                return line.message;
            }
            assert!(Instant::now() < deadline, "waited in vain for a message");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let send = |text: &str| {
        let deadline = deadline();
        while house.engine.send_log(line(text)).is_err() {
            assert!(Instant::now() < deadline, "nobody takes messages");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    first.attachment.take_log().unwrap();
    send("one");
    assert_eq!(next(&mut first), "one");
    second.attachment.take_log().unwrap();
    send("two");
    assert_eq!(next(&mut first), "two");
    // It leaves, and the other one gets what comes from then on.
    first.attachment.leave().unwrap();
    first.tell_until_phase(AttachmentPhase::Finished);
    send("three");
    assert_eq!(next(&mut second), "three");
    drop(second);
    house.until("the second to be gone", |stats| stats.dispatch.workers == 1);
    assert_eq!(house.engine.send_log(line("nobody any more")), Err(line("nobody any more")));
    assert_eq!(house.engine.take_back_log(), []);
    plain.attachment.drain(&mut plain.queue, 64).unwrap();
    assert_eq!(plain.attachment.log_line(), None);
}

#[test]
fn a_drain_stops_where_it_is_told_to_and_goes_on_there() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let _peer = house.register("n");
    let deadline = deadline();
    let mut queue = VecDeque::new();
    let mut told = Vec::new();
    while told.len() < 2 {
        let count = worker.attachment.drain(&mut queue, 1).unwrap();
        assert!(count <= 1);
        if let Some(delivered) = queue.pop_front() {
            if delivered.is_last {
                worker.attachment.acknowledge(delivered.batch).unwrap();
            }
            told.push(delivered.told.event);
        }
        assert!(Instant::now() < deadline);
    }
    assert!(matches!(told[..], [Event::Connect { .. }, Event::Register { .. }]));
}
