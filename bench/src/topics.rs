//! Topics and WebSockets beside their peers: fan-out, many topics at once, subscriptions among many, replay, connections that are idle.
//!
//! Owns what is asked of each, and its tables. How a publication is spelled for whom is `protocol`'s business.

use crate::cells::{MESSAGE, Settings, in_turn, note, say, start, to_floor};
use crate::fleet::Fleet;
use crate::floor::Reply;
use crate::plot::grouped;
use crate::protocol::{Dialect, Protocol, Sent};
use crate::report::{Report, cell};
use crate::server::{Ours, Server};
use crate::{Error, Result};
use heartbus_core::engine::Position;
use heartbus_core::wire::topic_frames::{Subscribe, SubscribeReply};
use heartbus_core::wire::{self, FrameType};
use std::time::Instant;

/// Publishers of [`many_topics`], each with a topic of its own, and who hears each of them.
const TOPICS: usize = 1_000;
const RECEIVERS: usize = 10;

/// Publications of one topic that are given again to each of as many who come back.
const KEPT: usize = 1_000;

pub fn topics(report: &mut Report, settings: &Settings) -> Result<()> {
    fan_out(report, settings)?;
    many_topics(report, settings)?;
    subscriptions(report, settings)?;
    replay(report, settings)?;
    websockets(report, settings)
}

fn id(index: usize) -> String {
    format!("node-{index:08}")
}

/// Who is compared: the floors, ours, and who may be installed.
fn everybody(settings: &Settings) -> Vec<Protocol> {
    let floors = settings.dialects.iter().map(|dialect| Protocol::Floor(*dialect));
    let ours = settings.ours().chain([Protocol::WebSocket]);
    floors.chain(ours).chain(settings.peers.iter().copied()).chain([Protocol::Ws]).collect()
}

/// Ours, each with those whom it must not cost more than.
fn contests(settings: &Settings) -> Vec<(Protocol, Protocol)> {
    let tcp = settings.ours().flat_map(|ours| settings.peers.iter().map(move |peer| (ours, *peer)));
    tcp.chain([(Protocol::WebSocket, Protocol::Ws)]).collect()
}

fn start_all(settings: &Settings) -> Result<Vec<Server>> {
    let ours = Ours { timeout: 300.0, ..Ours::default() };
    let started = everybody(settings).into_iter().map(|protocol| Server::start(protocol, Reply::Publish, &ours, &settings.cores));
    Ok(started.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn below_peers(report: &mut Report, settings: &Settings, cell: &str, what: &str, unit: &str) {
    for (ours, peer) in contests(settings) {
        let ratio = report.ratio(&format!("{cell}/{}/{what}", ours.name()), &format!("{cell}/{}/{what}", peer.name()));
        if ratio.is_some() {
            report.at_most(format!("{cell}, {}, {unit} over that of {}", ours.name(), peer.name()), 1.0, "", ratio);
        }
    }
}

fn fan_out(report: &mut Report, settings: &Settings) -> Result<()> {
    let servers = start_all(settings)?;
    let mut rows = Vec::new();
    for count in [1, 100, settings.many()] {
        let name = format!("publish to {}", grouped(count as f64));
        for round in 0..settings.rounds {
            for Server { target, .. } in in_turn(&servers, round) {
                let protocol = target.protocol;
                let mut fleet = Fleet::connected(*target, count + 1)?;
                fleet.send_each(0..count, |index| protocol.subscribe(&id(index), "room"))?;
                if protocol == Protocol::WebSocket {
                    fleet.send_each(count..count + 1, |index| (crate::protocol::masked(&Dialect::V2.register(&id(index))), 1))?;
                }
                let load = fleet.publications(count, 0..count, &protocol.publish("room", &MESSAGE), settings.window)?;
                drop(fleet);
                note(report, &name, *target, &load);
                target.settle();
            }
        }
        for Server { target, .. } in &servers {
            let protocol = target.protocol;
            let of = |what: &str| cell(report.figure(&format!("{name}/{}/{what}", protocol.name())));
            let ratio = floor_ratio(report, &name, protocol);
            rows.push(vec![name.clone(), protocol.name(), of("cpu_us"), cell(ratio), of("per_second"), of("p50_us"), of("p99_us")]);
        }
        for (protocol, bound) in settings.ours().map(|ours| (ours, 1.2)).chain([(Protocol::WebSocket, 1.25)]) {
            let ratio = floor_ratio(report, &name, protocol);
            report.at_most(format!("{name}, {}, CPU per delivery over a bare write loop's", protocol.name()), bound, "", ratio);
        }
        below_peers(report, settings, &name, "cpu_us", "CPU");
    }
    report.section(
        "Topics: one publisher",
        "A connection publishes 64 bytes to a topic, and again when all who have subscribed to it have them. CPU for one delivery, in microseconds, \
         its ratio to a loop that does nothing but write to as many sockets (WebSocket: as many bytes of v2), and microseconds until the last one has \
         it. `ws` has no topics: there whatever comes in goes to all others.\n\n`heartbus-bench run --only topics`",
        &["cell", "server", "CPU µs", "ratio", "deliveries/s", "p50 µs", "p99 µs"],
        rows,
    );
    Ok(())
}

fn floor_ratio(report: &Report, name: &str, protocol: Protocol) -> Option<crate::report::Figure> {
    if protocol != Protocol::WebSocket {
        return to_floor(report, name, protocol);
    }
    report.ratio(&format!("{name}/{}/cpu_us", protocol.name()), &format!("{name}/{}/cpu_us", Protocol::Floor(Dialect::V2).name()))
}

fn many_topics(report: &mut Report, settings: &Settings) -> Result<()> {
    let publishers = if settings.quick { TOPICS / 10 } else { TOPICS };
    let name = format!("{} publishers with {RECEIVERS} each", grouped(publishers as f64));
    let mut servers = start_all(settings)?;
    servers.retain(|server| !matches!(server.target.protocol, Protocol::Floor(_) | Protocol::Ws));
    let topic = |index: usize| format!("room/{index}");
    for round in 0..settings.few_rounds() {
        for Server { target, .. } in in_turn(&servers, round) {
            let protocol = target.protocol;
            let mut fleet = Fleet::connected(*target, publishers * (1 + RECEIVERS))?;
            if protocol == Protocol::WebSocket {
                fleet.send_each(0..publishers, |index| (crate::protocol::masked(&Dialect::V2.register(&id(index))), 1))?;
            }
            let all = publishers..publishers * (1 + RECEIVERS);
            fleet.send_each(all, |index| protocol.subscribe(&id(index), &topic((index - publishers) / RECEIVERS)))?;
            let publications: Vec<Sent> = (0..publishers).map(|index| protocol.publish(&topic(index), &MESSAGE)).collect();
            let load = fleet.many_publications(&publications, RECEIVERS, settings.window)?;
            drop(fleet);
            note(report, &name, *target, &load);
            target.settle();
        }
    }
    let rows = servers.iter().map(|server| {
        let protocol = server.target.protocol.name();
        let of = |what: &str| cell(report.figure(&format!("{name}/{protocol}/{what}")));
        vec![protocol.clone(), of("cpu_us"), of("per_second"), of("p50_us"), of("p99_us")]
    });
    let rows = rows.collect();
    report.section(
        "Topics: many publishers",
        format!(
            "{} connections publish 64 bytes, each to a topic of its own that {RECEIVERS} others have subscribed to, and again when these have them. CPU for one \
             publication, which is {RECEIVERS} deliveries, in microseconds.\n\n`heartbus-bench run --only topics`",
            grouped(publishers as f64)
        ),
        &["server", "CPU µs", "publications/s", "p50 µs", "p99 µs"],
        rows,
    );
    below_peers(report, settings, &name, "cpu_us", "CPU");
    Ok(())
}

/// One connection subscribes and takes it back, among few topics and among many.
fn subscriptions(report: &mut Report, settings: &Settings) -> Result<()> {
    let (few, many) = (1_000, if settings.quick { 10_000 } else { 100_000 });
    // As many as one may have.
    let per_connection = 1_000;
    let protocol = Protocol::Heartbus(Dialect::V2);
    let servers = [few, many].map(|_| settings.start_ours(Dialect::V2, &Ours::default()));
    let mut prepared = Vec::new();
    for (topics, server) in [few, many].into_iter().zip(servers) {
        let server = server?;
        let mut fleet = Fleet::connected(server.target, topics / per_connection + 1)?;
        fleet.send_each(0..topics / per_connection, |index| {
            let all = (0..per_connection).flat_map(|topic| protocol.subscribe("", &format!("room/{}", index * per_connection + topic)).0);
            (all.collect(), per_connection)
        })?;
        prepared.push((topics, server, fleet));
    }
    for _ in 0..settings.rounds {
        for (topics, server, fleet) in &mut prepared {
            let name = format!("subscribe among {}", grouped(*topics as f64));
            let (last, topics) = (fleet.size() - 1, *topics);
            let round: Vec<u8> = (0..64)
                .flat_map(|_| {
                    let topic = format!("room/{}", fastrand::usize(..topics));
                    [Dialect::V2.subscribe(&topic), Dialect::V2.unsubscribe(&topic)].concat()
                })
                .collect();
            let load = fleet.batches_of(last..last + 1, &round, 128, 64, settings.window)?;
            note(report, &name, server.target, &load);
        }
    }
    let figure =
        |topics: usize, what: &str| report.figure(&format!("subscribe among {}/{}/{what}", grouped(topics as f64), protocol.name()));
    let rows = [few, many].map(|topics| vec![grouped(topics as f64), cell(figure(topics, "cpu_us")), cell(figure(topics, "per_second"))]);
    report.section(
        "Topics: subscriptions",
        "A node subscribes to a topic that others have and takes that back, 64 of these at a time, where there are so many topics. CPU for one such pair, \
         in microseconds.\n\n`heartbus-bench run --only topics`",
        &["topics", "CPU µs", "pairs/s"],
        rows.into(),
    );
    let name = |topics: usize| format!("subscribe among {}/{}/cpu_us", grouped(topics as f64), protocol.name());
    let ratio = report.ratio(&name(many), &name(few));
    report.at_most(format!("subscribing among {} topics over among {}", grouped(many as f64), grouped(few as f64)), 1.5, "", ratio);
    let pairs = report.figure(&format!("subscribe among {}/{}/per_second", grouped(many as f64), protocol.name()));
    report.at_least(format!("subscriptions among {} topics", grouped(many as f64)), 10_000.0, "/s", pairs);
    Ok(())
}

/// Many come back and are given what they missed.
fn replay(report: &mut Report, settings: &Settings) -> Result<()> {
    let subscribers = if settings.quick { KEPT / 10 } else { KEPT };
    for dialect in &settings.dialects {
        let protocol = Protocol::Heartbus(*dialect);
        let server = start(protocol, Reply::Heartbeat, &Ours { history: KEPT, ..Ours::default() }, &settings.cores)?;
        let mut publisher = Fleet::connected(server.target, 1)?;
        let (subscribe, answers) = protocol.subscribe(&id(0), "room");
        publisher.send(0, &subscribe, answers)?;
        let mut first = None;
        publisher.drain_with(|_, frame| first = first.or_else(|| position(*dialect, frame)))?;
        let since = first.ok_or_else(|| Error::new("a topic of which something is kept has no position"))?;
        publisher.send(0, &protocol.publish("room", &MESSAGE).0.repeat(KEPT), KEPT)?;
        publisher.drain()?;
        for _ in 0..settings.few_rounds() {
            // Whoever publishes has the name of the first.
            let mut fleet = Fleet::named_from(server.target, 1)?;
            fleet.connect(subscribers, |_, _| {})?;
            server.target.settle();
            let (cpu, began) = (server.target.cpu(), Instant::now());
            for index in 0..subscribers {
                fleet.send(index, &come_back(*dialect, since), 1 + KEPT)?;
            }
            fleet.drain()?;
            let messages = (subscribers * KEPT) as f64;
            let (cpu, seconds) = ((server.target.cpu() - cpu) as f64 / 1e3, began.elapsed().as_secs_f64());
            report.add(&format!("replay/{}/cpu_us", protocol.name()), cpu / messages);
            report.add(&format!("replay/{}/per_second", protocol.name()), messages / seconds);
            say("replay", server.target, &format!("{:8.3} µs  {:>10.0}/s", cpu / messages, messages / seconds));
        }
    }
    let rows = settings.ours().map(|protocol| {
        let of = |what: &str| cell(report.figure(&format!("replay/{}/{what}", protocol.name())));
        vec![protocol.name(), of("cpu_us"), of("per_second")]
    });
    let rows = rows.collect();
    report.section(
        "Topics: replay",
        format!(
            "{} nodes subscribe at once from a position behind which {} publications of 64 bytes are kept, until all have all of them. CPU for one message, in \
             microseconds.\n\n`heartbus-bench run --only topics`",
            grouped(subscribers as f64),
            grouped(KEPT as f64)
        ),
        &["server", "CPU µs", "messages/s"],
        rows,
    );
    Ok(())
}

fn core_dialect(dialect: Dialect) -> wire::Dialect {
    if dialect == Dialect::V1 { wire::Dialect::V1 } else { wire::Dialect::V2 }
}

/// The position that a subscriber is told.
fn position(dialect: Dialect, frame: &[u8]) -> Option<Position> {
    let (_, wire::Decoded::Frame { frame, .. }) = wire::decode(frame, u32::MAX) else { return None };
    SubscribeReply::decode(core_dialect(dialect), &frame.payload.bytes()).ok()?.position
}

fn come_back(dialect: Dialect, since: Position) -> Vec<u8> {
    let mut payload = Vec::new();
    Subscribe { filter: "room".into(), since: Some(since) }.encode(core_dialect(dialect), &mut payload);
    dialect.frame(FrameType::SUBSCRIBE, 0, &payload)
}

/// What an idle WebSocket takes, and what a handshake costs.
fn websockets(report: &mut Report, settings: &Settings) -> Result<()> {
    let many = settings.many();
    let both = [Protocol::WebSocket, Protocol::Ws];
    for _ in 0..settings.few_rounds() {
        for protocol in both {
            let Some(server) = Server::start(protocol, Reply::Register, &Ours::default(), &settings.cores)? else { continue };
            drop(Fleet::connected(server.target, 100)?);
            server.target.settle();
            let before = server.target.memory();
            let fleet = Fleet::connected(server.target, many)?;
            server.target.settle();
            let each = (server.target.memory() as f64 - before as f64) / many as f64;
            drop(fleet);
            server.target.settle();
            report.add(&format!("WebSocket memory/{}/bytes", protocol.name()), each);
            say("bytes per idle WebSocket", server.target, &format!("{each:8.0}"));
            let load = Fleet::new(server.target)?.churn(100, settings.window)?;
            note(report, "WebSocket handshake", server.target, &load);
        }
    }
    let rows = both.map(|protocol| {
        let name = protocol.name();
        let of = |cell_name: &str, what: &str| cell(report.figure(&format!("{cell_name}/{name}/{what}")));
        vec![name.clone(), of("WebSocket memory", "bytes"), of("WebSocket handshake", "cpu_us"), of("WebSocket handshake", "per_second")]
    });
    report.section(
        "WebSockets",
        format!(
            "Resident memory that each of {} WebSockets that were opened and then say nothing adds, the kernel's own not in it; and opening one, with its \
             handshake, and closing it: CPU in microseconds.\n\n`heartbus-bench run --only topics`",
            grouped(many as f64)
        ),
        &["server", "bytes", "CPU µs of a handshake", "handshakes/s"],
        rows.into(),
    );
    let bytes = report.figure(&format!("WebSocket memory/{}/bytes", Protocol::WebSocket.name()));
    report.at_most("user bytes per idle WebSocket", 600.0, "", bytes);
    below_peers(report, settings, "WebSocket memory", "bytes", "bytes");
    below_peers(report, settings, "WebSocket handshake", "cpu_us", "CPU");
    Ok(())
}
