//! The measurements at hundreds and thousands of connections: each starts its servers, takes turns among them, and writes
//! its tables and bounds into the report.

use crate::fleet::{Fleet, Load, Window};
use crate::floor::Reply;
use crate::plot::grouped;
use crate::protocol::{Dialect, Protocol};
use crate::report::{Figure, Report, cell};
use crate::server::{Cores, Ours, Server, Target};
use crate::{Error, Result};
use hdrhistogram::Histogram;
use heartbus_core::bus::Bus;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a message.
pub const MESSAGE: [u8; 64] = [b'x'; 64];

#[derive(Clone, Debug)]
pub struct Settings {
    pub rounds: usize,
    pub window: Window,
    pub cores: Cores,
    pub dialects: Vec<Dialect>,
    pub peers: Vec<Protocol>,
    pub quick: bool,
}

impl Settings {
    /// Each dialect's floor, then ours, then the peers: who is compared is measured one behind the other.
    pub fn everybody(&self) -> Vec<Protocol> {
        let ours = self.dialects.iter().flat_map(|dialect| [Protocol::Floor(*dialect), Protocol::Heartbus(*dialect)]);
        ours.chain(self.peers.iter().copied()).collect()
    }

    pub fn ours(&self) -> impl Iterator<Item = Protocol> {
        self.dialects.iter().map(|dialect| Protocol::Heartbus(*dialect))
    }

    /// Connections where "many" are meant: half of the descriptors that a process usually gets.
    pub fn many(&self) -> usize {
        if self.quick { 2_000 } else { 10_000 }
    }

    /// For what is not compared with the floor: the server may use the load generator's core as well.
    pub fn all_cores(&self) -> Cores {
        Cores { server: [self.cores.server.clone(), self.cores.load.clone()].concat(), load: self.cores.load.clone() }
    }

    /// For what takes long, or does not vary much.
    pub fn few_rounds(&self) -> usize {
        self.rounds.min(3)
    }

    /// Servers of all sorts, running side by side. One that is not measured is idle. Our timeout is the usual one.
    fn start_all(&self, protocols: &[Protocol], reply: Reply) -> Result<Vec<Server>> {
        let ours = Ours { timeout: 30.0, ..Ours::default() };
        let started = protocols.iter().map(|protocol| Server::start(*protocol, reply, &ours, &self.cores));
        Ok(started.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    pub fn start_ours(&self, dialect: Dialect, ours: &Ours) -> Result<Server> {
        start(Protocol::Heartbus(dialect), Reply::Heartbeat, ours, &self.cores)
    }
}

/// Each round begins with another one, so that nobody is always measured behind the same other.
pub fn in_turn(servers: &[Server], round: usize) -> impl Iterator<Item = &Server> {
    servers.iter().cycle().skip(round % servers.len().max(1)).take(servers.len())
}

pub fn start(protocol: Protocol, reply: Reply, ours: &Ours, cores: &Cores) -> Result<Server> {
    Server::start(protocol, reply, ours, cores)?.ok_or_else(|| Error::new(format!("{} is not installed", protocol.name())))
}

/// Says what is measured, on standard error: a run takes minutes.
pub fn say(what: &str, who: Target, figure: &str) {
    eprintln!("{what:<50} {:<14} {figure}", who.protocol.name());
}

pub fn note(report: &mut Report, cell: &str, who: Target, load: &Load) {
    let name = who.protocol.name();
    report.add(&format!("{cell}/{name}/cpu_us"), load.cpu_each());
    report.add(&format!("{cell}/{name}/per_second"), load.per_second());
    for (title, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
        report.add(&format!("{cell}/{name}/{title}"), load.latency.value_at_quantile(quantile) as f64);
    }
    say(cell, who, &format!("{:8.3} µs  {:>10.0}/s", load.cpu_each(), load.per_second()));
}

/// The floor that a server is compared with: that of its dialect, and v1's for peers.
fn floor_of(protocol: Protocol) -> String {
    let dialect = if let Protocol::Heartbus(dialect) | Protocol::Floor(dialect) = protocol { dialect } else { Dialect::V1 };
    Protocol::Floor(dialect).name()
}

pub fn to_floor(report: &Report, cell: &str, protocol: Protocol) -> Option<Figure> {
    report.ratio(&format!("{cell}/{}/cpu_us", protocol.name()), &format!("{cell}/{}/cpu_us", floor_of(protocol)))
}

fn below_peers(report: &mut Report, settings: &Settings, cell: &str, what: &str, unit: &str) {
    for (protocol, peer) in settings.ours().flat_map(|ours| settings.peers.iter().map(move |peer| (ours, peer))) {
        let ratio = report.ratio(&format!("{cell}/{}/{what}", protocol.name()), &format!("{cell}/{}/{what}", peer.name()));
        report.at_most(format!("{cell}, {}, {unit} over that of {}", protocol.name(), peer.name()), 1.0, "", ratio);
    }
}

pub fn heartbeats(report: &mut Report, settings: &Settings) -> Result<()> {
    let many = settings.many();
    let shapes = [(100, 1), (many, 1), (100, 16)];
    let everybody = settings.everybody();
    let servers = settings.start_all(&everybody, Reply::Heartbeat)?;
    for (connections, depth) in shapes {
        let name = format!("heartbeat {connections}x{depth}");
        // Few connections are soon made, and the ratio asked for is narrow: three times as many rounds for ours and the floors. The peers
        // are further away.
        let rounds = settings.rounds * if connections < many { 3 } else { 1 };
        for round in 0..rounds {
            for Server { target, .. } in in_turn(&servers, round) {
                if round >= settings.rounds && settings.peers.contains(&target.protocol) {
                    continue;
                }
                let mut fleet = Fleet::connected(*target, connections)?;
                let load = fleet.closed_loop(&target.protocol.ping(), depth, settings.window)?;
                drop(fleet);
                note(report, &name, *target, &load);
                target.settle();
            }
        }
    }
    let names = shapes.map(|(connections, depth)| format!("heartbeat {connections}x{depth}"));
    let costs = everybody.iter().map(|protocol| {
        let costs = names
            .iter()
            .flat_map(|name| [cell(report.figure(&format!("{name}/{}/cpu_us", protocol.name()))), cell(to_floor(report, name, *protocol))]);
        [protocol.name()].into_iter().chain(costs).collect()
    });
    let costs = costs.collect();
    report.section(
        "Heartbeats",
        "CPU time of the server's processes for one heartbeat and its answer, in microseconds, and its ratio to the floor's in the same round. \
         *100 × 16* means 100 connections with 16 heartbeats under way each. At 100 connections, three times as many rounds for ours and the floors.\n\n`heartbus-bench run --only heartbeats`",
        &["server", "100 × 1", "ratio", &format!("{} × 1", grouped(many as f64)), "ratio", "100 × 16", "ratio"],
        costs,
    );
    let speeds = everybody.iter().map(|protocol| {
        let speeds = names.iter().flat_map(|name| {
            ["per_second", "p50_us", "p99_us"].map(|what| {
                report.figure(&format!("{name}/{}/{what}", protocol.name())).map_or("-".into(), |figure| grouped(figure.median))
            })
        });
        [protocol.name()].into_iter().chain(speeds).collect()
    });
    let speeds = speeds.collect();
    report.section(
        "Rates and round trips",
        "From the same runs: heartbeats per second, and the time from sending a batch to its last answer, in microseconds. The server \
         has one core, the load generator another; where the generator is the slower of the two, the rate is its own.",
        &["server", "100 × 1 /s", "p50", "p99", &format!("{} × 1 /s", grouped(many as f64)), "p50", "p99", "100 × 16 /s", "p50", "p99"],
        speeds,
    );
    for (name, [v1, v2]) in names.iter().zip([[1.08, 1.08], [1.08, 1.08], [1.35, 1.2]]) {
        for protocol in settings.ours() {
            let bound = if protocol == Protocol::Heartbus(Dialect::V1) { v1 } else { v2 };
            let ratio = to_floor(report, name, protocol);
            report.at_most(format!("{name}, {}, CPU over the floor's", protocol.name()), bound, "", ratio);
        }
        below_peers(report, settings, name, "cpu_us", "CPU");
    }
    Ok(())
}

pub fn churn(report: &mut Report, settings: &Settings) -> Result<()> {
    const NAME: &str = "connect + register";
    let everybody = settings.everybody();
    let servers = settings.start_all(&everybody, Reply::Register)?;
    for round in 0..settings.rounds {
        for Server { target, .. } in in_turn(&servers, round) {
            let load = Fleet::new(*target)?.churn(50, settings.window)?;
            note(report, NAME, *target, &load);
            target.settle();
        }
    }
    costs(
        report,
        "Connect and register",
        NAME,
        "A connection is opened, greets the server (Heartbus: REGISTER; MQTT and NATS: CONNECT; Redis: PING), is answered, and is closed; 50 at a time. CPU \
         of the server for one, in microseconds, with what its end costs.\n\n`heartbus-bench run --only churn`",
        &everybody,
    );
    for protocol in settings.ours() {
        let ratio = to_floor(report, NAME, protocol);
        report.at_most(format!("{NAME}, {}, CPU over the floor's", protocol.name()), 1.5, "", ratio);
    }
    below_peers(report, settings, NAME, "cpu_us", "CPU");
    Ok(())
}

pub fn idle(report: &mut Report, settings: &Settings) -> Result<()> {
    let many = settings.many();
    let name = format!("{} idle, 1,000/s", grouped(many as f64));
    let servers = settings.start_all(&settings.everybody(), Reply::Heartbeat)?;
    let targets: Vec<Target> = servers.iter().map(|server| server.target).collect();
    let pairs: Vec<(Target, Target)> = targets
        .iter()
        .filter(|target| matches!(target.protocol, Protocol::Heartbus(_)))
        .flat_map(|ours| {
            let others = targets.iter().filter(|other| match other.protocol {
                Protocol::Heartbus(_) => false,
                Protocol::Floor(_) => other.protocol.name() == floor_of(ours.protocol),
                _ => true,
            });
            others.map(|other| (*ours, *other))
        })
        .collect();
    let pair_name = |ours: Protocol, other: Protocol| format!("{name}, {} beside {}", ours.name(), other.name());
    for round in 0..settings.rounds * 3 {
        for (ours, other) in &pairs {
            // The peers are further away than the floor.
            if round >= settings.rounds && settings.peers.contains(&other.protocol) {
                continue;
            }
            let pair = pair_name(ours.protocol, other.protocol);
            // Both fit into the descriptors of one process. Who is behind whom changes from round to round.
            let mut sides = [(*ours, many), (*other, many - many / 100)];
            sides.rotate_left(round % 2);
            let [(first, size), (second, other_size)] = sides;
            let meet = Barrier::new(2);
            let loads = thread::scope(|scope| {
                let load = scope.spawn(|| one_by_one(second, other_size, &meet, Duration::from_micros(500), settings.window));
                [one_by_one(first, size, &meet, Duration::ZERO, settings.window), load.join().expect("a load generator does not panic")]
            });
            for (target, load) in [first, second].into_iter().zip(loads) {
                note(report, &pair, target, &load?);
            }
            ours.settle();
            other.settle();
        }
    }
    let of = |pair: &str, who: Protocol| format!("{pair}/{}/cpu_us", who.name());
    let mut rows = Vec::new();
    for (ours, other) in pairs.iter().map(|(ours, other)| (ours.protocol, other.protocol)) {
        let pair = pair_name(ours, other);
        let ratio = report.ratio(&of(&pair, ours), &of(&pair, other));
        rows.push(vec![
            ours.name(),
            other.name(),
            cell(report.figure(&of(&pair, ours))),
            cell(report.figure(&of(&pair, other))),
            cell(ratio),
        ]);
        if let Protocol::Floor(_) = other {
            report.at_most(format!("{name}, {}, CPU over the floor's", ours.name()), 1.10, "", ratio);
        } else {
            report.at_most(format!("{name}, {}, CPU over that of {}", ours.name(), other.name()), 1.0, "", ratio);
        }
    }
    report.section(
        "Idle connections, and 1,000 heartbeats a second",
        format!(
            "{} connections to each of two servers (to the second 1 % fewer), of which each in turn sends a heartbeat. All of a server's CPU time, its timers \
             included, for one of the heartbeats, in microseconds. The two are measured at the same time on the same core, half a millisecond behind each other: \
             what waking a sleeping core costs is the machine's, and changes from second to second by more than what they differ \
             by. Beside the floor, three times as many rounds.\n\n`heartbus-bench run --only idle`",
            grouped(many as f64)
        ),
        &["server", "beside", "CPU µs", "the other's", "ratio"],
        rows,
    );
    Ok(())
}

/// Connects, meets the other side, and sends a heartbeat each millisecond from `late` on, on one connection after the other.
fn one_by_one(target: Target, connections: usize, meet: &Barrier, late: Duration, window: Window) -> Result<Load> {
    let fleet = Fleet::connected(target, connections);
    target.settle();
    meet.wait();
    thread::sleep(late);
    let ping = target.protocol.ping();
    fleet?.open_loop(Duration::from_millis(1), 1, window, |number, bytes| {
        bytes.extend_from_slice(&ping);
        (number as usize % connections, 1)
    })
}

fn costs(report: &mut Report, title: &'static str, name: &str, text: &str, everybody: &[Protocol]) {
    let rows = everybody.iter().map(|protocol| {
        let of = |what: &str| report.figure(&format!("{name}/{}/{what}", protocol.name()));
        vec![protocol.name(), cell(of("cpu_us")), cell(to_floor(report, name, *protocol)), cell(of("per_second")), cell(of("p99_us"))]
    });
    let rows = rows.collect();
    report.section(title, text, &["server", "CPU µs each", "ratio to the floor", "per second", "p99 µs"], rows);
}

/// One I/O thread against two: sharing the server's core, and free to use all cores, one of which the load generator has as well.
pub fn threads(report: &mut Report, settings: &Settings) -> Result<()> {
    let shapes = [(100, 1), (100, 16)];
    let protocols = [Protocol::Floor(Dialect::V1), Protocol::Heartbus(Dialect::V1)];
    let all = settings.all_cores();
    // Where the load generator is in the way of the second thread, rounds differ more than one thread and two do.
    let places = [("one core", &settings.cores, settings.rounds), ("all cores", &all, 3 * settings.rounds)];
    let cell_name =
        |place: &str, (connections, depth): (usize, usize), threads: usize| format!("threads on {place}, {connections}x{depth}/{threads}");
    for (place, cores, rounds) in places {
        for _ in 0..rounds {
            for (protocol, threads) in protocols.iter().flat_map(|protocol| [(*protocol, 1), (*protocol, 2)]) {
                let server = start(protocol, Reply::Heartbeat, &Ours { threads, ..Ours::default() }, cores)?;
                for (connections, depth) in shapes {
                    let mut fleet = Fleet::connected(server.target, connections)?;
                    let load = fleet.closed_loop(&protocol.ping(), depth, settings.window)?;
                    note(report, &cell_name(place, (connections, depth), threads), server.target, &load);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for ((place, ..), shape) in places.iter().flat_map(|place| shapes.map(|shape| (place, shape))) {
        for protocol in protocols {
            let of = |threads| format!("{}/{}/cpu_us", cell_name(place, shape, threads), protocol.name());
            let ratio = report.ratio(&of(2), &of(1));
            let figures = [cell(report.figure(&of(1))), cell(report.figure(&of(2))), cell(ratio)];
            rows.push([(*place).into(), format!("{} × {}", shape.0, shape.1), protocol.name()].into_iter().chain(figures).collect());
            if let Protocol::Heartbus(_) = protocol {
                report.at_most(format!("two I/O threads on {place}, {} × {}, CPU over that of one", shape.0, shape.1), 1.1, "", ratio);
            }
        }
    }
    report.section(
        "One and two I/O threads",
        "CPU for one heartbeat, in microseconds. *One core*: all threads of the server share it, the load generator has another. *All cores*: on a machine \
         with two, the server's second thread has to share a core with the load generator, is woken for a few heartbeats at a time, and pays for the change of \
         threads; the floor, with two threads that share nothing, shows how much that is. On all cores, three times as many \
         rounds.\n\n`heartbus-bench run --only threads`",
        &["server on", "connections", "server", "one thread", "two threads", "ratio"],
        rows,
    );
    Ok(())
}

pub fn memory(report: &mut Report, settings: &Settings) -> Result<()> {
    let many = settings.many();
    let everybody = settings.everybody();
    for _ in 0..settings.few_rounds() {
        for protocol in &everybody {
            let Some(server) = Server::start(*protocol, Reply::Register, &Ours::default(), &settings.cores)? else { continue };
            // What the first connections bring with them is not a connection's own.
            drop(Fleet::connected(server.target, 100)?);
            server.target.settle();
            let before = server.target.memory();
            let fleet = Fleet::connected(server.target, many)?;
            server.target.settle();
            let each = (server.target.memory() as f64 - before as f64) / many as f64;
            drop(fleet);
            report.add(&format!("memory/{}/bytes", protocol.name()), each);
            say("bytes per idle connection", server.target, &format!("{each:8.0}"));
        }
    }
    let bytes = |protocol: &Protocol| format!("memory/{}/bytes", protocol.name());
    let rows = everybody.iter().map(|protocol| vec![protocol.name(), cell(report.figure(&bytes(protocol)))]).collect();
    report.section(
        "Memory of an idle connection",
        format!(
            "Resident memory that {} connections, greeted and then silent, add to the server's processes, divided by their number. The kernel's \
         own memory for a socket is not in it: that is about 3.85 KB for every server.\n\n`heartbus-bench run --only memory`",
            grouped(many as f64)
        ),
        &["server", "bytes"],
        rows,
    );
    for protocol in settings.ours() {
        let figure = report.figure(&bytes(&protocol));
        report.at_most(format!("user bytes per idle connection, {}", protocol.name()), 400.0, "", figure);
    }
    below_peers(report, settings, "memory", "bytes", "bytes");
    Ok(())
}

pub fn waves(report: &mut Report, settings: &Settings) -> Result<()> {
    let waves = if settings.quick { 3 } else { 10 };
    let many = settings.many();
    let server = settings.start_ours(Dialect::V1, &Ours::default())?;
    let mut after = Vec::new();
    for wave in 1..=waves {
        drop(Fleet::connected(server.target, many)?);
        server.target.settle();
        after.push(server.target.memory() as f64);
        say(&format!("memory after wave {wave}"), server.target, &format!("{:8.1} MB", after[wave - 1] / 1e6));
        report.add("waves/bytes", after[wave - 1]);
    }
    let row = after.iter().enumerate().map(|(wave, bytes)| vec![format!("{}", wave + 1), format!("{:.2}", bytes / 1e6)]).collect();
    report.section(
        "Waves",
        format!(
            "Resident memory of the server, in MB, each time after {} clients came, registered, and went.\n\n`heartbus-bench run --only waves`",
            grouped(many as f64)
        ),
        &["wave", "MB"],
        row,
    );
    report.at_most(
        format!("memory after wave {waves} over that after the first"),
        1.05,
        "",
        Some(Figure::one(after[waves - 1] / after[0])),
    );
    Ok(())
}

/// Messages into PHP and back.
pub fn data(report: &mut Report, settings: &Settings) -> Result<()> {
    const BLOCK: usize = 64;
    let both = settings.all_cores();
    let mut rows = Vec::new();
    for dialect in &settings.dialects {
        let message = dialect.data(&MESSAGE);
        let block = [message.repeat(BLOCK - 1), dialect.data(b"?")].concat();
        for (mode, title) in [("echo", "node → PHP → node"), ("count", "node → PHP"), ("batch", "node → PHP, `data.batch`")] {
            for (cores, place) in [(&settings.cores, "one core"), (&both, "both cores")] {
                let name = format!("{mode}, {place}");
                for _ in 0..settings.few_rounds() {
                    let server = start(Protocol::Heartbus(*dialect), Reply::Heartbeat, &Ours { mode, ..Ours::default() }, cores)?;
                    let mut fleet = Fleet::connected(server.target, 100)?;
                    let load = if mode == "echo" {
                        fleet.closed_loop(&message, 16, settings.window)?
                    } else {
                        fleet.batches(&block, 1, BLOCK as u64, settings.window)?
                    };
                    note(report, &name, server.target, &load);
                }
                let of = |what: &str| report.figure(&format!("{name}/Heartbus {}/{what}", dialect.name()));
                rows.push(vec![
                    title.into(),
                    dialect.name().into(),
                    place.into(),
                    cell(of("per_second")),
                    cell(of("cpu_us")),
                    cell(of("p99_us")),
                ]);
                let rate = of("per_second");
                match mode {
                    "echo" if place == "both cores" => {
                        report.at_least(format!("{title}, {}, messages", dialect.name()), 250_000.0, "/s", rate);
                    }
                    "count" if place == "both cores" => {
                        report.at_least(format!("{title}, {}, messages", dialect.name()), 1_000_000.0, "/s", rate);
                    }
                    "batch" => {
                        let each = format!("count, {place}/Heartbus {}/per_second", dialect.name());
                        let ratio = report.ratio(&format!("{name}/Heartbus {}/per_second", dialect.name()), &each);
                        report.at_least(format!("{title}, {}, {place}, over a callback for each", dialect.name()), 1.0, "", ratio);
                    }
                    _ => {}
                }
            }
        }
    }
    report.section(
        "Messages",
        "100 nodes; messages of 64 bytes, one callback for each (`data.batch`: one for many). Echoes: 16 under way per node. Into PHP: 63 messages \
         and one that asks for an answer. *One core*: the engine and PHP share one, the load generator has the other; *both cores*: all three share \
         two. CPU is that of the engine and PHP together, in microseconds for one message.\n\n`heartbus-bench run --only data`",
        &["way", "dialect", "server on", "messages/s", "CPU µs", "p99 µs"],
        rows,
    );
    Ok(())
}

pub fn broadcast(report: &mut Report, settings: &Settings) -> Result<()> {
    let many = settings.many();
    let name = &format!("broadcast to {}", grouped(many as f64));
    let mut rows = Vec::new();
    for dialect in &settings.dialects {
        let [floor, ours] = [Protocol::Floor(*dialect), Protocol::Heartbus(*dialect)];
        let servers = [
            start(floor, Reply::Broadcast, &Ours::default(), &settings.cores)?,
            start(ours, Reply::Broadcast, &Ours { mode: "broadcast", ..Ours::default() }, &settings.cores)?,
        ];
        for _ in 0..settings.rounds {
            for Server { target, .. } in &servers {
                let mut fleet = Fleet::connected(*target, many)?;
                let load = fleet.broadcasts(&dialect.data(&MESSAGE), settings.window)?;
                drop(fleet);
                note(report, name, *target, &load);
                target.settle();
            }
        }
        let ratio = to_floor(report, name, ours);
        report.at_most(format!("{name}, {}, CPU per delivery over a bare write loop's", ours.name()), 1.3, "", ratio);
        for protocol in [floor, ours] {
            let of = |what: &str| report.figure(&format!("{name}/{}/{what}", protocol.name()));
            let title = if protocol == floor { format!("bare write loop, {}", dialect.name()) } else { protocol.name() };
            rows.push(vec![title, cell(of("cpu_us")), cell(to_floor(report, name, protocol)), cell(of("per_second"))]);
        }
    }
    report.section(
        "Broadcast",
        "One node sends a message of 64 bytes, a PHP callback broadcasts it to all connections, and it begins anew when all have it. CPU for one \
         delivery, in microseconds, and its ratio to a loop that does nothing but write to as many sockets.\n\n`heartbus-bench run --only broadcast`",
        &["server", "CPU µs", "ratio", "deliveries/s"],
        rows,
    );
    Ok(())
}

/// Another process of the machine that sends to a node, through the bus socket.
pub fn bus(report: &mut Report, settings: &Settings) -> Result<()> {
    let failed = |error: heartbus_core::error::Error| Error::new(error.to_string());
    let server = settings.start_ours(Dialect::V1, &Ours { bus: true, ..Ours::default() })?;
    let mut fleet = Fleet::connected(server.target, 1)?;
    let patience = Duration::from_secs(5);
    let times = if settings.quick { 200 } else { 2_000 };
    let mut micros = |name: &str, ask: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).map_err(|error| Error::new(error.to_string()))?;
        for _ in 0..times {
            let began = Instant::now();
            ask()?;
            latency.saturating_record(began.elapsed().as_nanos() as u64);
            // What was sent is taken, so that the node never counts as slow.
            fleet.turn(Duration::ZERO, |_, _| {})?;
        }
        for (title, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            report.add(&format!("bus/{name}/{title}_us"), latency.value_at_quantile(quantile) as f64 / 1e3);
        }
        Ok(())
    };
    let mut bus = Bus::connect(&server.bus(), patience).map_err(failed)?;
    micros("sendTo()", &mut || bus.send_to("node-00000000", &MESSAGE, 0).map_err(failed))?;
    micros("connect() and sendTo()", &mut || {
        let mut bus = Bus::connect(&server.bus(), patience).map_err(failed)?;
        bus.send_to("node-00000000", &MESSAGE, 0).map_err(failed)
    })?;
    let of = |report: &Report, name: &str, what: &str| cell(report.figure(&format!("bus/{name}/{what}_us")));
    let rows = ["sendTo()", "connect() and sendTo()"].map(|name| vec![name.into(), of(report, name, "p50"), of(report, name, "p99")]);
    report.section(
        "The bus socket",
        "Another process of the machine, on the load generator's core, sends 64 bytes to a node, and is told that they are on their way. Microseconds.\n\n\
         `heartbus-bench run --only bus`",
        &["call", "p50", "p99"],
        rows.into(),
    );
    Ok(())
}
