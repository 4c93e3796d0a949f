//! The hub without sockets or clocks: sessions driven frame by frame at times that the test chooses.

#[path = "support/bus.rs"]
mod bus;

use bus::*;
use heartbus_core::event::CloseReason;
use heartbus_core::hub::NodeRef;
use heartbus_core::hub::wheel::TICK;
use heartbus_core::settings::{RateLimit, RateLimitBy};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn the_limit_of_all_connections_together_holds_beside_that_of_each_and_costs_nobody_his_own_tokens() {
    let own = RateLimit { capacity: 3, refill_per_second: 0.0, by: RateLimitBy::Connection };
    let mut bus = Bus::with_limits(true, |limits| {
        limits.max_requests_per_second = 4;
        limits.rate_limit = Some(own);
    });
    let (a, b) = (bus.open(), bus.open());
    let pings = |bus: &mut Bus, slot, count| (0..count).filter(|_| bus.send(slot, 4, 0, "")[0].0 == 5).count();
    assert_eq!(pings(&mut bus, a, 5), 3, "its own limit");
    assert_eq!(pings(&mut bus, b, 5), 1, "what the two may take together");
    assert_eq!(bus.thread.counters.rate_limited.get(), 6);
    bus.now += 1_000_000;
    assert_eq!((pings(&mut bus, a, 5), pings(&mut bus, b, 5)), (0, 2), "of its own three it had paid one");
}

#[test]
fn a_million_nodes_time_out_in_the_first_tick_after_their_deadline_and_heartbeats_cost_the_wheel_nothing() {
    const CONNECTIONS: u32 = 1_000;
    const PER_CONNECTION: u32 = 1_000;
    let mut bus = Bus::new(true);
    let start = bus.now;
    for _ in 0..CONNECTIONS {
        let slot = bus.open();
        for n in 0..PER_CONNECTION {
            let id = format!("{slot}-{n}");
            bus.with(slot, |session, cx| session.receive(cx, &frame(6, 0, &format!(r#"{{"node_id":"{id}"}}"#))));
        }
        bus.thread.replies.clear();
    }
    assert_eq!(bus.hub.node_count(), 1_000_000);
    let (start_of_walk, pages) = (std::time::Instant::now(), 1_000_000 / 100);
    assert_eq!(walk(&mut bus, 100, |_| {}).len(), 1_000_000);
    println!("{:.3} ms per page of 100 of a million nodes", start_of_walk.elapsed().as_secs_f64() * 1e3 / f64::from(pages));
    // Every third connection goes silent at once; the others beat once per second with one frame for all their nodes.
    let silent = |slot: u32| slot % 3 == 0;
    let beat = frame(1, 0, "{}");
    let mut gone_at = BTreeMap::new();
    for _ in 0..(2 * TIMEOUT / TICK) {
        bus.tick();
        *gone_at.entry(bus.now).or_insert(0) = bus.thread.counters.nodes_timed_out.get();
        if bus.now % 1_000_000 == 0 {
            for slot in (0..CONNECTIONS).filter(|slot| !silent(*slot)) {
                bus.with(slot, |session, cx| session.receive(cx, &beat));
            }
            bus.thread.replies.clear();
        }
    }
    let lost = u64::from((0..CONNECTIONS).filter(|slot| silent(*slot)).count() as u32 * PER_CONNECTION);
    assert_eq!(gone_at[&(start + TIMEOUT)], 0, "at the deadline itself nobody is late");
    assert_eq!(gone_at[&(start + TIMEOUT + TICK)], lost, "one tick later all of them are gone");
    assert_eq!(bus.thread.counters.nodes_timed_out.get(), lost, "and nobody else, ever");
    assert_eq!(bus.hub.node_count() as u64, 1_000_000 - lost);
    // Per timeout period the wheel touches a node once, whatever the number of heartbeats.
    assert!(bus.touched <= 3 * 1_000_000, "{} touches", bus.touched);
}

/// Walks the list page by page, with `between` called after each page.
fn walk(bus: &mut Bus, limit: usize, mut between: impl FnMut(&mut Bus)) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = bus.hub.page(after, limit);
        assert!(page.len() <= limit && (page.len() == limit || next.is_none()));
        ids.extend(page.iter().map(|node| node.id().to_string()));
        between(bus);
        match next {
            Some(next) => after = Some(next),
            None => return ids,
        }
    }
}

#[test]
fn the_pages_of_the_node_list_hold_each_node_once_whatever_their_size() {
    let mut bus = Bus::new(true);
    assert_eq!(bus.hub.page(None, 10).0.len(), 0);
    let slot = bus.open();
    let ids: BTreeSet<String> = (0..2_500).map(|n| format!("n{n}")).collect();
    for id in &ids {
        bus.register(slot, id);
    }
    let in_one = walk(&mut bus, usize::MAX, |_| {});
    assert_eq!(in_one.len(), ids.len());
    assert_eq!(in_one.iter().cloned().collect::<BTreeSet<_>>(), ids);
    for limit in [1, 7, 100, 2_499, 2_500, 2_501] {
        assert_eq!(walk(&mut bus, limit, |_| {}), in_one, "pages of {limit}");
    }
    assert_eq!(bus.hub.page(None, 0).0.len(), 1, "a page makes progress");
    let (behind_the_last, next) = bus.hub.page(Some(u64::MAX), 10);
    assert!(behind_the_last.is_empty() && next.is_none());
}

#[test]
fn a_node_that_stays_is_on_exactly_one_page_while_others_come_and_go() {
    let mut bus = Bus::new(true);
    let (stay, go) = (bus.open(), bus.open());
    for n in 0..3_000 {
        bus.register(stay, &format!("stays{n}"));
        bus.register(go, &format!("goes{n}"));
    }
    let (mut gone, mut come) = (0, 0);
    let seen = walk(&mut bus, 25, |bus| {
        for _ in 0..10 {
            let channel = bus.channel(&format!("goes{gone}"));
            bus.send(go, 7, channel, "");
            gone += 1;
            bus.register(go, &format!("comes{come}"));
            come += 1;
            // The id stays, on another connection.
            bus.register(if come % 2 == 0 { stay } else { go }, &format!("stays{come}"));
        }
    });
    assert!(gone > 1_000);
    let mut stayed: Vec<&str> = seen.iter().map(String::as_str).filter(|id| id.starts_with("stays")).collect();
    assert_eq!(stayed.len(), 3_000);
    stayed.sort_unstable();
    stayed.dedup();
    assert_eq!(stayed.len(), 3_000);
    let mut once = seen.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "nobody is there twice");
}

#[test]
fn channel_zero_means_all_nodes_for_a_heartbeat_and_the_first_node_otherwise() {
    let mut bus = Bus::new(false);
    let slot = bus.open();
    for id in ["a", "b", "c"] {
        bus.register(slot, id);
    }
    for _ in 0..2 * TIMEOUT / TICK {
        bus.send(slot, 1, 0, "{}");
        bus.tick();
    }
    assert_eq!(bus.online().len(), 3);
    bus.send(slot, 7, 0, "");
    assert!(bus.online().is_empty());
}

#[test]
fn a_wrapped_channel_id_skips_zero_and_those_in_use() {
    let mut bus = Bus::new(false);
    let slot = bus.open();
    bus.register(slot, "first");
    assert_eq!(bus.channel("first"), 1);
    bus.hub.set_next_channel_for_test(NodeRef::MAX);
    let ids: Vec<i64> = ["last", "after"]
        .iter()
        .map(|id| {
            bus.register(slot, id);
            bus.channel(id)
        })
        .collect();
    assert_eq!(ids, [i64::from(NodeRef::MAX), 2]);
}

#[test]
fn generated_ids_look_like_the_references_and_differ() {
    let mut bus = Bus::new(false);
    let slot = bus.open();
    for _ in 0..50 {
        bus.send(slot, 6, 0, "[]");
    }
    let ids = bus.online();
    assert_eq!(ids.len(), 50);
    for id in ids {
        let parts: Vec<&str> = id.split('_').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("node", 13, 8), "{id}");
        assert!(parts[1..].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit())), "{id}");
    }
}

#[test]
fn limits_on_nodes_are_refused_and_the_connection_stays() {
    let mut bus = Bus::new(true);
    let slot = bus.open();
    for n in 0..10_000 {
        bus.with(slot, |session, cx| session.receive(cx, &frame(6, 0, &format!(r#"{{"node_id":"{n}"}}"#))));
    }
    bus.thread.replies.clear();
    let answers = bus.register(slot, "one too many");
    assert_eq!(answers, [(8, 0, r#"{"message":"Too many nodes on this connection","code":403}"#.to_owned())]);
    assert_eq!(bus.send(slot, 1, 0, "{}")[0].0, 2);
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Register(u8, u8),
    Beat(u8, Option<u8>),
    Unregister(u8, Option<u8>),
    Close(u8),
    Kick(u8),
    Ticks(u8),
    Pause(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Open),
        6 => (any::<u8>(), 0..12u8).prop_map(|(connection, id)| Step::Register(connection, id)),
        4 => (any::<u8>(), prop::option::of(0..12u8)).prop_map(|(connection, id)| Step::Beat(connection, id)),
        2 => (any::<u8>(), prop::option::of(0..12u8)).prop_map(|(connection, id)| Step::Unregister(connection, id)),
        1 => any::<u8>().prop_map(Step::Close),
        1 => (0..12u8).prop_map(Step::Kick),
        4 => (1..25u8).prop_map(Step::Ticks),
        2 => (0..99u16).prop_map(Step::Pause),
    ];
    prop::collection::vec(step, 1..120)
}

/// The same rules written the plain way: lists, and a look at everything at every tick.
#[derive(Default)]
struct Model {
    /// Connection to (time since which nobody is registered, nodes in order with the time they were last seen).
    connections: BTreeMap<u32, (u64, Vec<(String, u64)>)>,
    told: BTreeMap<String, Vec<&'static str>>,
}

impl Model {
    fn owner(&self, id: &str) -> Option<u32> {
        self.connections.iter().find(|(_, (_, nodes))| nodes.iter().any(|(other, _)| other == id)).map(|(slot, _)| *slot)
    }

    fn tell(&mut self, id: &str, word: &'static str) {
        self.told.entry(id.to_owned()).or_default().push(word);
    }

    /// Removes a node; its connection ends with its last one, except after UNREGISTER.
    fn leave(&mut self, slot: u32, id: &str, how: &'static str, now: u64) {
        self.tell(id, how);
        let (empty_since, nodes) = self.connections.get_mut(&slot).unwrap();
        nodes.retain(|(other, _)| other != id);
        if nodes.is_empty() {
            *empty_since = now;
            if how != "unregister" {
                self.connections.remove(&slot);
            }
        }
    }

    fn tick(&mut self, now: u64) {
        for (slot, (empty_since, nodes)) in self.connections.clone() {
            if nodes.is_empty() && now > empty_since + REGISTER_TIMEOUT {
                self.connections.remove(&slot);
            }
            for (id, seen) in nodes {
                if now > seen + TIMEOUT {
                    self.leave(slot, &id, "timeout", now);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn wheel_and_registry_do_what_the_plain_model_does(steps in steps()) {
        let mut bus = Bus::new(false);
        let mut model = Model::default();
        for step in steps {
            let pick = |model: &Model, n: u8| model.connections.keys().nth(n as usize % model.connections.len().max(1)).copied();
            match step {
                Step::Open => {
                    let slot = bus.open();
                    model.connections.insert(slot, (bus.now, Vec::new()));
                }
                Step::Register(connection, id) => {
                    let Some(slot) = pick(&model, connection) else { continue };
                    let id = format!("id{id}");
                    let answers = bus.register(slot, &id);
                    prop_assert_eq!(answers.len(), 1);
                    prop_assert_eq!(answers[0].0, 6);
                    match model.owner(&id) {
                        Some(owner) if owner == slot => {
                            let nodes = &mut model.connections.get_mut(&slot).unwrap().1;
                            nodes.iter_mut().find(|(other, _)| *other == id).unwrap().1 = bus.now;
                        }
                        owner => {
                            if let Some(owner) = owner {
                                model.leave(owner, &id, "replaced", bus.now);
                            }
                            model.tell(&id, "register");
                            model.connections.get_mut(&slot).unwrap().1.push((id, bus.now));
                        }
                    }
                }
                Step::Beat(connection, id) => {
                    let Some(slot) = pick(&model, connection) else { continue };
                    let channel = id.map_or(0, |id| bus.channel(&format!("id{id}")));
                    let answers = bus.send(slot, 1, channel, "{}");
                    let now = bus.now;
                    let nodes = &mut model.connections.get_mut(&slot).unwrap().1;
                    let mut beaten = 0;
                    for (other, seen) in nodes {
                        if id.is_none_or(|id| *other == format!("id{id}")) {
                            *seen = now;
                            beaten += 1;
                        }
                    }
                    prop_assert_eq!(answers.len(), usize::from(beaten > 0));
                }
                Step::Unregister(connection, id) => {
                    let Some(slot) = pick(&model, connection) else { continue };
                    let channel = id.map_or(0, |id| bus.channel(&format!("id{id}")));
                    prop_assert_eq!(bus.send(slot, 7, channel, ""), []);
                    for (other, _) in model.connections[&slot].1.clone() {
                        if id.is_none_or(|id| other == format!("id{id}")) {
                            model.leave(slot, &other, "unregister", bus.now);
                        }
                    }
                }
                Step::Close(connection) => {
                    let Some(slot) = pick(&model, connection) else { continue };
                    bus.close(slot, CloseReason::PeerClosed);
                    for (id, _) in model.connections.remove(&slot).unwrap().1 {
                        model.tell(&id, "disconnected");
                    }
                }
                Step::Kick(id) => {
                    let id = format!("id{id}");
                    let result = bus.hub.disconnect(&id, &bus.thread.counters);
                    bus.follow_commands();
                    let owner = model.owner(&id);
                    prop_assert_eq!(result.is_ok(), owner.is_some());
                    if let Some(owner) = owner {
                        model.leave(owner, &id, "disconnected", bus.now);
                    }
                }
                Step::Ticks(count) => {
                    for _ in 0..count {
                        bus.tick();
                        model.tick(bus.now);
                    }
                }
                // Frames come between ticks as well.
                Step::Pause(part) => bus.now = bus.now / TICK * TICK + u64::from(part) * TICK / 100,
            }
            let expected: BTreeSet<String> = model.connections.values().flat_map(|(_, nodes)| nodes.iter().map(|(id, _)| id.clone())).collect();
            prop_assert_eq!(bus.online(), expected.clone());
            prop_assert_eq!(bus.hub.node_count(), expected.len());
            prop_assert_eq!(bus.hub.channel_count(), expected.len());
            prop_assert_eq!(bus.sessions.keys().copied().collect::<BTreeSet<_>>(), model.connections.keys().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(&*bus.host.events.lock().unwrap(), &model.told);
            // One timer per node, one per connection without nodes: nothing stays behind in the wheel.
            let idle = model.connections.values().filter(|(_, nodes)| nodes.is_empty()).count();
            prop_assert_eq!(bus.thread.wheel.len(), expected.len() + idle);
        }
    }
}
