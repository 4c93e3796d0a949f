//! One rule after the other.

use crate::rig::*;

#[test]
fn a_turn_ends_when_it_is_used_up_and_the_next_goes_on_with_the_same_frame() {
    let mut bus = Bus::new(true);
    let slot = bus.open();
    let ping = frame(4, 0, "");
    let pings = ping.repeat(3_000);
    let (mut rest, mut turns, mut pongs) = (&pings[..], 0, 0);
    loop {
        let (consumed, next) = receive(&mut bus, slot, rest, Budget::share(1));
        turns += 1;
        pongs += answers(&mut bus).iter().filter(|frame_type| **frame_type == 5).count();
        assert_eq!(consumed % ping.len(), 0);
        assert!(consumed as u64 / ping.len() as u64 * 200 <= budget::TURN + 1_000, "{consumed} bytes in one turn");
        rest = &rest[consumed..];
        match next {
            Next::Again => assert!(!rest.is_empty()),
            other => break assert_eq!((other, rest.len()), (Next::Continue, 0)),
        }
    }
    assert_eq!(pongs, 3_000);
    assert!(turns > 5, "{turns} turns");
    // Half a frame is nothing that a turn could go on with.
    assert_eq!(receive(&mut bus, slot, &ping[..9], Budget::of(0)), (0, Next::Continue));
    assert_eq!(receive(&mut bus, slot, &ping, Budget::of(0)), (0, Next::Again));
}

#[test]
fn a_heartbeat_for_many_nodes_that_the_host_is_told_of_takes_several_turns_and_names_each_node_once_that_stays() {
    let mut bus = Bus::new(true);
    let slot = gateway(&mut bus, 1_000);
    answers(&mut bus);
    bus.host.hears_heartbeats.store(true, Ordering::Relaxed);
    let beats = frame(1, 0, "").repeat(2);
    let (mut rest, mut turns, mut longest) = (&beats[..], 0, 0);
    while !rest.is_empty() {
        let before = bus.host.heartbeats.lock().unwrap().len();
        let (consumed, next) = receive(&mut bus, slot, rest, Budget::share(1));
        rest = &rest[consumed..];
        turns += 1;
        longest = longest.max(bus.host.heartbeats.lock().unwrap().len() - before);
        assert_eq!(next, if rest.is_empty() { Next::Continue } else { Next::Again });
        if turns == 1 {
            // One that was told already, and one that was not.
            for id in ["n0", "n999"] {
                let channel_id = bus.hub.node(id).unwrap().channel_id();
                bus.with(slot, |session, cx| {
                    session.evict(cx, Eviction { node: NodeRef::of_main_channel(channel_id), why: CloseReason::Kicked })
                });
            }
            answers(&mut bus);
        }
    }
    assert!(turns >= 4 && longest as u64 * 200 <= budget::TURN, "{turns} turns of up to {longest} nodes");
    let first = (0..999).map(|n| format!("n{n}"));
    let second = (1..999).map(|n| format!("n{n}"));
    assert_eq!(*bus.host.heartbeats.lock().unwrap(), first.chain(second).collect::<Vec<_>>());
    // Each frame was answered and counted once.
    assert_eq!(answers(&mut bus), [2, 2]);
    assert_eq!((bus.thread.counters.heartbeat_requests.get(), bus.thread.counters.heartbeats.get()), (2, 2));
}

#[test]
fn data_that_the_host_has_no_room_for_is_taken_once_and_offered_as_it_is_until_there_is_room() {
    let mut bus = Bus::new(true);
    bus.host.room.set(AtomicBool::new(false)).unwrap();
    let slot = gateway(&mut bus, 2);
    let (before, data) = (bus.hub.memory().of(Part::Input), [frame(3, 0, "first"), frame(3, 0, "second")].concat());
    let turn = || Budget::share(1);
    assert_eq!(receive(&mut bus, slot, &data, turn()), (frame(3, 0, "first").len(), Next::Wait));
    assert_eq!(bus.hub.memory().of(Part::Input), before + 5);
    let rest = &data[frame(3, 0, "first").len()..];
    // What is behind it is not looked at either.
    assert_eq!(receive(&mut bus, slot, b"no frame at all", turn()), (0, Next::Wait));
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    assert_eq!(receive(&mut bus, slot, rest, turn()), (rest.len(), Next::Continue));
    assert_eq!(*bus.host.data.lock().unwrap(), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!((bus.thread.counters.data_in.get(), bus.hub.memory().of(Part::Input)), (2, before));

    // A node that was replaced meanwhile says no more.
    bus.host.room.get().unwrap().store(false, Ordering::Relaxed);
    assert_eq!(receive(&mut bus, slot, &frame(3, 0, "last"), turn()).1, Next::Wait);
    let other = bus.open();
    bus.register(other, "n0");
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    assert_eq!(receive(&mut bus, slot, b"", turn()), (0, Next::Continue));
    assert_eq!((bus.host.data.lock().unwrap().len(), bus.hub.memory().of(Part::Input)), (2, before));
}

#[test]
fn the_more_connections_are_ready_the_shorter_are_their_turns_down_to_a_least() {
    let mut bus = Bus::new(true);
    let slot = bus.open();
    let pings = frame(4, 0, "").repeat(1_000);
    let mut frames_of = |ready| receive(&mut bus, slot, &pings, Budget::share(ready)).0;
    let [alone, many, crowd, more] = [1, 300, 10_000, 1_000_000].map(&mut frames_of);
    assert!(alone > many && many > crowd && crowd == more && more > 0);
}

#[test]
fn a_long_frame_waits_for_the_turn_of_a_long_frame_and_what_is_before_it_does_not() {
    let mut bus = Bus::new(true);
    let slot = gateway(&mut bus, 1);
    for long in [frame(3, 0, &"x".repeat(budget::LONG_FRAME)), v2_frame(3, 0, &vec![0; budget::LONG_FRAME])] {
        let (ping, data_in) = (frame(4, 0, ""), bus.thread.counters.data_in.get());
        let bytes = [&ping[..], &long, &long, &ping].concat();
        assert_eq!(receive(&mut bus, slot, &bytes, Budget::share(1)), (ping.len(), Next::Later));
        assert_eq!((answers(&mut bus), bus.thread.counters.data_in.get()), (vec![5], data_in));
        // One of them, and nothing behind it.
        assert_eq!(receive(&mut bus, slot, &bytes[ping.len()..], Budget::long()), (long.len(), Next::Again));
        assert_eq!(bus.thread.counters.data_in.get(), data_in + 1);
        assert_eq!(receive(&mut bus, slot, &bytes[ping.len() + long.len()..], Budget::long()).1, Next::Again);
        assert_eq!(receive(&mut bus, slot, &ping, Budget::share(1)), (ping.len(), Next::Continue));
        assert_eq!(answers(&mut bus), [5]);
    }
}

#[test]
fn nodes_that_unregister_together_leave_over_several_turns_and_what_was_sent_behind_it_waits() {
    const NODES: usize = 1_000;
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, NODES);
    let bytes = [frame(7, 0, ""), frame(4, 0, "")].concat();
    let (mut consumed, mut turns) = (0, 0);
    while consumed == 0 {
        let before = bus.hub.node_count();
        let (taken, next) = receive(&mut bus, slot, &bytes, Budget::share(1));
        (consumed, turns) = (taken, turns + 1);
        let left = before - bus.hub.node_count();
        assert!((1..=budget::TURN as usize / budget::DEPARTURE as usize).contains(&left), "{left} left in one turn");
        assert!(next == Next::Again && answers(&mut bus).is_empty() || consumed > 0);
        assert_eq!(bus.thread.counters.unregisters.get(), u64::from(consumed > 0), "it is one frame");
    }
    assert!(turns > 10);
    receive(&mut bus, slot, &bytes[consumed..], Budget::share(1));
    assert_eq!((answers(&mut bus), bus.hub.node_count(), bus.thread.counters.nodes_unregistered.get()), (vec![5], 0, NODES as u64));
    assert!(bus.host.events.lock().unwrap().values().all(|told| *told == ["register", "unregister"]));
    assert_eq!(bus.thread.wheel.len(), 1, "the time to register in");
}

#[test]
fn a_connection_that_is_over_lets_its_nodes_leave_over_several_turns_each_once() {
    const NODES: usize = 1_000;
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, NODES);
    let mut turns = 1;
    loop {
        bus.thread.budget = Budget::share(1);
        let next = bus.with(slot, |session, cx| session.close(cx, CloseReason::PeerClosed)).unwrap();
        if next != Next::Again {
            assert_eq!(next, Next::Continue);
            break;
        }
        assert!(bus.hub.node_count() > 0);
        turns += 1;
        // Meanwhile another connection takes one of them over.
        if turns == 2 {
            bus.thread.budget = Budget::unlimited();
            let other = bus.open();
            bus.register(other, "n999");
        }
    }
    assert!(turns > 10);
    assert_eq!(bus.online().into_iter().collect::<Vec<_>>(), ["n999"]);
    for (id, told) in &*bus.host.events.lock().unwrap() {
        let expected: &[&str] = if id == "n999" { &["register", "replaced", "register"] } else { &["register", "disconnected"] };
        assert_eq!(told, expected, "{id}");
    }
    assert_eq!(bus.thread.wheel.len(), 1, "the timer of the node that is left");
}

#[test]
fn a_node_that_seems_silent_is_looked_for_and_only_an_empty_socket_proves_that_it_is() {
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, 1);
    let channel_id = bus.channel("n0") as u32;
    for (look, next_look) in [(Look::Unread, TIMEOUT / 16), (Look::Stopped, TIMEOUT)] {
        let key = fired(&mut bus, channel_id);
        assert_eq!(
            bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::NotYet)),
            Some(Next::Look)
        );
        let looked_at = bus.now;
        assert_eq!(
            bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), look)),
            Some(Next::Continue)
        );
        assert_eq!(bus.thread.wheel.pop(looked_at + next_look), None, "{look:?}");
    }
    // What the look finds counts from when it was found.
    let key = fired(&mut bus, channel_id);
    assert_eq!(
        bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::NotYet)),
        Some(Next::Look)
    );
    bus.now += 5 * TIMEOUT;
    bus.send(slot, 1, 0, "{}");
    let heard_at = bus.now;
    assert_eq!(
        bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::Empty)),
        Some(Next::Continue)
    );
    assert_eq!(bus.thread.wheel.pop(heard_at + TIMEOUT), None);
    let key = fired(&mut bus, channel_id);
    let ask = |bus: &mut Bus, look| bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), look));
    assert_eq!(ask(&mut bus, Look::NotYet), Some(Next::Look));
    assert_eq!(ask(&mut bus, Look::Empty), Some(Next::Close(CloseReason::HeartbeatTimeout)));
    assert_eq!(bus.host.events.lock().unwrap()["n0"], ["register", "timeout"]);
}

#[test]
fn a_node_that_the_look_finds_leaving_is_not_judged() {
    let mut bus = Bus::new(false);
    let slot = gateway(&mut bus, 1);
    let channel_id = bus.channel("n0") as u32;
    let key = fired(&mut bus, channel_id);
    bus.send(slot, 7, 0, "");
    bus.register(slot, "other");
    let other = bus.channel("other") as u32;
    assert_eq!(
        bus.with(slot, |session, cx| session.node_timer(cx, key, NodeRef::of_main_channel(channel_id), Look::Empty)),
        Some(Next::Continue)
    );
    assert_eq!(bus.host.events.lock().unwrap()["n0"], ["register", "unregister"]);
    assert_eq!((bus.online().len(), bus.thread.wheel.len()), (1, 1));
    fired(&mut bus, other);
}

#[test]
fn who_registers_in_the_last_moment_is_found_by_the_look_also_when_it_has_left_again() {
    for leaves_again in [false, true] {
        let mut bus = Bus::new(false);
        let slot = bus.open();
        let key = fired(&mut bus, 0);
        let ask = |bus: &mut Bus, look| bus.with(slot, |session, cx| session.register_timer(cx, key, look));
        assert_eq!(ask(&mut bus, Look::NotYet), Some(Next::Look));
        bus.register(slot, "late");
        if leaves_again {
            bus.send(slot, 7, 0, "");
        }
        assert_eq!(ask(&mut bus, Look::Empty), Some(Next::Continue));
        assert_eq!((bus.thread.counters.register_timeouts.get(), bus.thread.wheel.len()), (0, 1));
    }
    let mut bus = Bus::new(false);
    let slot = bus.open();
    for (look, next_look) in [(Look::Unread, REGISTER_TIMEOUT / 16), (Look::Stopped, REGISTER_TIMEOUT)] {
        let key = fired(&mut bus, 0);
        assert_eq!(bus.with(slot, |session, cx| session.register_timer(cx, key, look)), Some(Next::Continue));
        assert_eq!(bus.thread.wheel.pop(bus.now + next_look), None, "{look:?}");
    }
    let key = fired(&mut bus, 0);
    assert_eq!(bus.with(slot, |session, cx| session.register_timer(cx, key, Look::Empty)), Some(Next::Close(CloseReason::RegisterTimeout)));
}

#[test]
fn a_compressed_message_of_very_many_empty_blocks_takes_many_turns_and_is_counted_meanwhile() {
    let mut bus = Bus::with_limits(true, |limits| limits.websocket_compression = true);
    let slot = bus.open_as(Session::open_websocket);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: heartbus.json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    assert_eq!(receive(&mut bus, slot, request.as_bytes(), Budget::unlimited()), (request.len(), Next::Continue));
    bus.thread.replies.clear();
    // An empty block has ten bits, so four of them five bytes. Behind them comes one that is not compressed.
    let text = br#"{"type":"ping"}"#;
    let mut payload = [0x02, 0x08, 0x20, 0x80, 0x00].repeat(10_000);
    payload.extend([0, text.len() as u8, 0, !text.len() as u8, 0xff]);
    payload.extend(text);
    payload.push(0);
    let mut message = vec![0xc1, 0x80 | 126];
    message.extend((payload.len() as u16).to_be_bytes());
    message.extend([0; 4]);
    message.extend(&payload);
    let (consumed, mut next) = receive(&mut bus, slot, &message, Budget::share(1));
    assert_eq!((consumed, next), (message.len(), Next::Again), "{:?}", String::from_utf8_lossy(bus.thread.replies.bytes()));
    let kept = |bus: &mut Bus| bus.with(slot, |session, _| session.kept_bytes()).unwrap();
    assert!(kept(&mut bus) >= payload.len());
    let mut turns = 1;
    while next == Next::Again {
        assert!(bus.thread.replies.is_empty());
        (_, next) = receive(&mut bus, slot, b"", Budget::share(1));
        turns += 1;
    }
    assert_eq!(next, Next::Continue);
    assert!((500..2_000).contains(&turns), "{turns} turns");
    assert!(bus.thread.replies.bytes().ends_with(br#"{"type":"pong"}"#));
    assert_eq!(kept(&mut bus), 0);
}
