//! A million nodes: over sockets, and in the pure machine by itself; the plots of cost against their number.

use crate::cells::{Settings, say, start};
use crate::fleet::{Fleet, Load, Meter, Window};
use crate::floor::Reply;
use crate::machine::{Machine, TIMEOUT};
use crate::plot::{Line, grouped, svg};
use crate::proc;
use crate::protocol::{Dialect, Protocol, channel_of};
use crate::report::{Figure, Report, cell};
use crate::server::Ours;
use crate::{Error, Result};
use heartbus_core::bus::Bus;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 1000;
/// Nodes on each connection where their number varies: what a connection costs is the same part of each.
const EACH: usize = 1000;
/// Frames in one write.
const GROUP: usize = 100;

/// Nodes of a fleet: the channel of each, by connection.
type Channels = Vec<Vec<u32>>;

/// Opens connections and registers `each` nodes on each of them, in groups, and returns their channels and how many a second registered.
fn register(fleet: &mut Fleet, dialect: Dialect, connections: usize, each: usize) -> Result<(Channels, f64)> {
    let mut channels: Channels = (0..connections).map(|_| Vec::with_capacity(each)).collect();
    fn note(channels: &mut Channels, index: usize, reply: &[u8]) {
        channels[index].extend(channel_of(reply));
    }
    fleet.connect(connections, |index, reply| note(&mut channels, index, reply))?;
    let began = Instant::now();
    let mut sent = vec![1; connections];
    let mut bytes = Vec::new();
    let mut idle: Vec<usize> = (0..connections).collect();
    let mut done = if each == 1 { connections } else { 0 };
    while done < connections {
        for index in idle.drain(..) {
            let group = (sent[index]..each).take(GROUP);
            bytes.clear();
            group.clone().for_each(|node| bytes.extend(dialect.register(&format!("node-{index:04}-{node:04}"))));
            fleet.send(index, &bytes, group.len())?;
            sent[index] += group.len();
        }
        fleet.turn(Duration::from_secs(1), |index, reply| {
            note(&mut channels, index, reply);
            if channels[index].len() == sent[index] {
                if sent[index] == each { done += 1 } else { idle.push(index) }
            }
        })?;
        fleet.all_there()?;
        if began.elapsed() > Duration::from_secs(120) {
            return Err(Error::new("registering takes more than two minutes"));
        }
    }
    Ok((channels, (connections * (each - 1)) as f64 / began.elapsed().as_secs_f64()))
}

/// 100,000 heartbeats a second, each of one node, in groups of 100 per write.
fn individual(fleet: &mut Fleet, dialect: Dialect, channels: &Channels, window: Window) -> Result<Load> {
    let connections = channels.len();
    fleet.open_loop(Duration::from_millis(1), GROUP as u64, window, |number, bytes| {
        let index = number as usize % connections;
        let own = &channels[index];
        let first = number as usize / connections * GROUP;
        (0..GROUP).for_each(|next| bytes.extend(dialect.heartbeat(own[(first + next) % own.len()])));
        (index, GROUP)
    })
}

/// One heartbeat for all nodes of each connection.
fn beat_all(fleet: &mut Fleet, dialect: Dialect) -> Result<()> {
    let beat = dialect.heartbeat(0);
    (0..fleet.size()).try_for_each(|index| fleet.send(index, &beat, 1))?;
    fleet.drain()
}

pub fn million(report: &mut Report, settings: &Settings) -> Result<()> {
    let nodes = if settings.quick { 100_000 } else { 1_000_000 };
    let timeout = Duration::from_secs(if settings.quick { 6 } else { 30 });
    let silent = nodes / 10;
    let window = Window { warm_up: Duration::from_millis(500), length: if settings.quick { Duration::from_secs(3) } else { timeout } };
    let dialect = *settings.dialects.last().unwrap_or(&Dialect::V1);
    let rounds = if settings.quick { 1 } else { 2 };
    for _ in 0..rounds {
        let ours = Ours { mode: "timeouts", timeout: timeout.as_secs_f64(), expect: silent, bus: true, ..Ours::default() };
        // Nothing is compared with the floor here, and whoever has a million nodes does not keep the server on one core.
        let mut server = start(Protocol::Heartbus(dialect), Reply::Heartbeat, &ours, &settings.all_cores())?;
        server.target.settle();
        let before = server.target.memory();
        let mut fleet = Fleet::new(server.target)?;
        let (channels, rate) = register(&mut fleet, dialect, CONNECTIONS, nodes / CONNECTIONS)?;
        report.add("million/registered per second", rate);
        say("nodes registered", server.target, &format!("{rate:>10.0}/s"));
        let bytes = (server.target.memory() as f64 - before as f64) / nodes as f64;
        report.add("million/bytes per node", bytes);
        say("bytes per node", server.target, &format!("{bytes:8.0}"));

        let beat = dialect.heartbeat(0);
        let load = fleet.open_loop(Duration::from_millis(10), 1, window, |number, bytes| {
            bytes.extend_from_slice(&beat);
            (number as usize % CONNECTIONS, 1)
        })?;
        report.add("million/whole connections, percent of a core", load.core_share() * 100.0);
        say("whole connections every 10 s", server.target, &format!("{:8.3} % of a core", load.core_share() * 100.0));

        // As long as a timeout: the wheel looks at every node once meanwhile.
        let load = individual(&mut fleet, dialect, &channels, window)?;
        report.add("million/individual heartbeats, percent of a core", load.core_share() * 100.0);
        report.add("million/individual heartbeats, us each", load.cpu_each());
        report.add("million/individual heartbeats a second", load.per_second());
        say("individual heartbeats", server.target, &format!("{:8.3} µs  {:>10.0}/s", load.cpu_each(), load.per_second()));

        silence(report, &mut fleet, dialect, timeout, server.bus())?;
        let seen = server.report()?;
        let number = |key: &str| seen[key].as_f64().unwrap_or(f64::NAN);
        let last_beat = report.figure("million/last beat").map_or(0.0, |figure| figure.high);
        let due = last_beat + timeout.as_nanos() as f64;
        for (name, value) in [
            ("first reported, ms after its time", (number("first") - due) / 1e6),
            ("last reported, ms after its time", (number("last") - due) / 1e6),
            ("reported", number("count")),
            ("different", number("different")),
            ("silent", silent as f64),
            ("getStats() meanwhile, ms", number("stats_ns") / 1e6),
        ] {
            report.add(&format!("million/{name}"), value);
            say(name, server.target, &format!("{value:8.1}"));
        }
    }
    tell(report, nodes, silent, dialect);
    Ok(())
}

/// A tenth of the connections falls silent, the others go on. Another thread asks for statistics and pages meanwhile.
fn silence(report: &mut Report, fleet: &mut Fleet, dialect: Dialect, timeout: Duration, bus: PathBuf) -> Result<()> {
    let quiet = CONNECTIONS / 10;
    report.add("million/last beat", proc::monotonic() as f64);
    let began = Instant::now();
    beat_all(fleet, dialect)?;
    let asked = thread::spawn(move || watch(&bus, began + timeout));
    let beat = dialect.heartbeat(0);
    let every = Duration::from_secs(5) / (CONNECTIONS - quiet) as u32;
    let mut beats = 0u32;
    while began.elapsed() < timeout + Duration::from_secs(4) {
        while began.elapsed() >= every * (beats + 1) {
            fleet.send(quiet + beats as usize % (CONNECTIONS - quiet), &beat, 1)?;
            beats += 1;
        }
        fleet.turn(Duration::from_millis(5), |_, _| {})?;
    }
    if fleet.lost != quiet {
        return Err(Error::new(format!("{} connections ended where {quiet} were silent", fleet.lost)));
    }
    let seen = asked.join().map_err(|_| Error::new("asking for statistics failed"))??;
    report.add("million/statistics over the bus socket, ms", seen.stats.as_secs_f64() * 1e3);
    report.add("million/a page of 100 nodes over the bus socket, ms", seen.page.as_secs_f64() * 1e3);
    if let Some(noticed) = seen.noticed {
        report.add("million/first noticed, ms after its time", noticed.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// What another process sees of the silence.
#[derive(Default)]
struct Seen {
    /// The longest that statistics took, and a page of the list.
    stats: Duration,
    page: Duration,
    /// When a node was first counted as timed out, after `due`.
    noticed: Option<Duration>,
}

/// Asks every few milliseconds, from shortly before nodes are due until two seconds later.
fn watch(socket: &Path, due: Instant) -> Result<Seen> {
    let failed = |error: heartbus_core::error::Error| Error::new(error.to_string());
    let mut bus = Bus::connect(socket, Duration::from_secs(5)).map_err(failed)?;
    thread::sleep((due - Duration::from_millis(200)).saturating_duration_since(Instant::now()));
    let (mut seen, mut after, mut before) = (Seen::default(), None, None);
    while due.elapsed() < Duration::from_secs(2) {
        let began = Instant::now();
        let timed_out = bus.stats().map_err(failed)?.stats.counts.nodes_timed_out;
        seen.stats = seen.stats.max(began.elapsed());
        if timed_out > *before.get_or_insert(timed_out) {
            seen.noticed.get_or_insert(due.elapsed());
        }
        let began = Instant::now();
        after = bus.page(after, 100, None, None).map_err(failed)?.1;
        seen.page = seen.page.max(began.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(seen)
}

fn tell(report: &mut Report, nodes: usize, silent: usize, dialect: Dialect) {
    let of = |report: &Report, what: &str| report.figure(&format!("million/{what}"));
    let rows = [
        ("registered per second", "/s"),
        ("bytes per node", ""),
        ("whole connections, percent of a core", " %"),
        ("individual heartbeats, percent of a core", " %"),
        ("individual heartbeats, us each", " µs"),
        ("individual heartbeats a second", "/s"),
        ("silent", ""),
        ("reported", ""),
        ("different", ""),
        ("first noticed, ms after its time", " ms"),
        ("first reported, ms after its time", " ms"),
        ("last reported, ms after its time", " ms"),
        ("getStats() meanwhile, ms", " ms"),
        ("statistics over the bus socket, ms", " ms"),
        ("a page of 100 nodes over the bus socket, ms", " ms"),
    ];
    let rows = rows.map(|(what, unit)| vec![what.split(", ms").next().unwrap_or(what).into(), format!("{}{unit}", cell(of(report, what)))]);
    report.section(
        "A million nodes",
        format!(
            "{} nodes over {} connections, in {}. *Whole connections*: each sends one heartbeat for all its nodes every ten seconds. \
             *Individual*: 100,000 heartbeats of single nodes a second, 100 in one write. Then {} nodes fall silent at once while the others go on; each \
             that is found silent is told to PHP. The server may use all cores. Times count from the moment at which the first of them was due; the last could be due a few \
             milliseconds later, when the last of the heartbeats before the silence was read.\n\n`heartbus-bench run --only million`",
            grouped(nodes as f64),
            grouped(CONNECTIONS as f64),
            dialect.name(),
            grouped(silent as f64),
        ),
        &["what", "measured"],
        rows.into(),
    );
    report.at_least("a million nodes: registered", 100_000.0, "/s", of(report, "registered per second"));
    report.at_most("a million nodes: bytes per node", 400.0, "", of(report, "bytes per node"));
    report.at_most(
        "a million nodes: whole-connection heartbeats every 10 s",
        1.0,
        " %",
        of(report, "whole connections, percent of a core"),
    );
    report.at_most(
        "a million nodes: 100,000 heartbeats/s in groups of 100",
        5.0,
        " %",
        of(report, "individual heartbeats, percent of a core"),
    );
    let worst = |report: &Report, what: &str| of(report, what).map(Figure::highest);
    report.at_most("silence: the first is noticed (looked at every 5 ms)", 105.0, " ms", worst(report, "first noticed, ms after its time"));
    report.at_most("silence: all are told to PHP", 1000.0, " ms", worst(report, "last reported, ms after its time"));
    let off = |report: &Report, one: &str, other: &str| {
        let (one, other) = (of(report, one)?, of(report, other)?);
        Some(Figure::one((one.low - other.low).abs().max((one.high - other.high).abs())))
    };
    report.at_most("silence: nodes that were not told, or that were not silent", 0.0, "", off(report, "different", "silent"));
    report.at_most("silence: nodes that were told twice", 0.0, "", off(report, "reported", "different"));
    report.at_most("statistics meanwhile, in PHP", 5.0, " ms", worst(report, "getStats() meanwhile, ms"));
    report.at_most("statistics meanwhile, from another process", 5.0, " ms", worst(report, "statistics over the bus socket, ms"));
    report.at_most("a page of the list meanwhile", 5.0, " ms", worst(report, "a page of 100 nodes over the bus socket, ms"));
}

/// The cost of a heartbeat and of a timeout against the number of nodes, in the pure machine and over sockets.
pub fn curves(report: &mut Report, settings: &Settings, folder: &Path) -> Result<()> {
    let sizes: &[usize] = if settings.quick { &[1_000, 10_000, 100_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let dialect = *settings.dialects.last().unwrap_or(&Dialect::V1);
    for nodes in sizes {
        let (beat, timeout) = in_the_machine(*nodes, dialect);
        report.add(&format!("curve/machine/{nodes}/heartbeat"), beat);
        report.add(&format!("curve/machine/{nodes}/timeout"), timeout);
        eprintln!("{:<34} {nodes:>10} nodes: {beat:.3} µs a heartbeat, {timeout:.3} µs a timeout", "pure machine");
        let (beat, timeout) = over_sockets(*nodes, dialect, settings)?;
        report.add(&format!("curve/sockets/{nodes}/heartbeat"), beat);
        report.add(&format!("curve/sockets/{nodes}/timeout"), timeout);
        eprintln!("{:<34} {nodes:>10} nodes: {beat:.3} µs a heartbeat, {timeout:.3} µs a timeout", "over sockets");
    }
    for (what, title) in [("heartbeat", "heartbeat"), ("timeout", "timeout")] {
        let at = |report: &Report, nodes: usize| Some(report.figure(&format!("curve/sockets/{nodes}/{what}"))?.median);
        let (few, most) = (sizes[0], sizes[sizes.len() - 1]);
        let ratio = at(report, most).zip(at(report, few)).map(|(most, few)| Figure::one(most / few));
        let name = format!("flat: a {title} at {} nodes over one at {}, over sockets", grouped(most as f64), grouped(few as f64));
        report.at_most(name, 1.5, "", ratio);
    }
    fs::create_dir_all(folder.join("bench"))?;
    let mut links = String::new();
    for (what, title) in [("heartbeat", "CPU per heartbeat"), ("timeout", "CPU per timeout")] {
        let lines = [("machine", "pure machine"), ("sockets", "over sockets")].map(|(place, name)| {
            let at = |nodes: &usize| Some((*nodes as f64, report.figure(&format!("curve/{place}/{nodes}/{what}"))?.median));
            Line { name: name.into(), points: sizes.iter().filter_map(at).collect() }
        });
        fs::write(folder.join(format!("bench/{what}.svg")), svg(title, "microseconds", &lines))?;
        links += &format!("\n\n![{title} against the number of nodes](bench/{what}.svg)");
    }
    let rows = sizes.iter().map(|nodes| {
        let of = |place: &str, what: &str| cell(report.figure(&format!("curve/{place}/{nodes}/{what}")));
        vec![
            grouped(*nodes as f64),
            of("machine", "heartbeat"),
            of("sockets", "heartbeat"),
            of("machine", "timeout"),
            of("sockets", "timeout"),
        ]
    });
    let rows = rows.collect();
    report.section(
        "Cost against the number of nodes",
        format!(
            "Microseconds of CPU. *Pure machine*: sessions, nodes and wheel on one thread, without sockets. *Over sockets*: the server's processes. 1,000 \
             nodes on each connection. Heartbeats are of single nodes, in {}, 100 in one write. Then all nodes fall silent, and leave.{links}\n\n`heartbus-bench run --only curves`",
            dialect.name(),
        ),
        &["nodes", "heartbeat, pure", "heartbeat, sockets", "timeout, pure", "timeout, sockets"],
        rows,
    );
    Ok(())
}

fn in_the_machine(nodes: usize, dialect: Dialect) -> (f64, f64) {
    const BEATS: usize = 500_000;
    let mut machine = Machine::default();
    let connections = nodes / EACH;
    let mut channels: Channels = vec![Vec::new(); connections];
    for (index, own) in channels.iter_mut().enumerate() {
        machine.open();
        for node in 0..EACH {
            let frame = dialect.register(&format!("node-{index:04}-{node:04}"));
            machine.receive(index, &frame, |reply| own.extend(channel_of(reply)));
        }
    }
    let mut bytes = Vec::new();
    let mut spent = Duration::ZERO;
    for round in 0..BEATS / GROUP {
        let own = &channels[round % connections];
        bytes.clear();
        (0..GROUP).for_each(|next| bytes.extend(dialect.heartbeat(own[(round / connections * GROUP + next) % EACH])));
        machine.now += 1000;
        let began = proc::own_cpu();
        machine.receive(round % connections, &bytes, |_| {});
        spent += proc::own_cpu() - began;
    }
    let beat = spent.as_secs_f64() * 1e6 / BEATS as f64;
    machine.now += 2 * TIMEOUT;
    let began = proc::own_cpu();
    let left = machine.tick();
    let timeout = (proc::own_cpu() - began).as_secs_f64() * 1e6 / left.max(1) as f64;
    (beat, timeout)
}

fn over_sockets(nodes: usize, dialect: Dialect, settings: &Settings) -> Result<(f64, f64)> {
    // Long enough for registering a million of them.
    let timeout = Duration::from_secs(if nodes > 100_000 { 25 } else { 5 });
    let ours = Ours { timeout: timeout.as_secs_f64(), ..Ours::default() };
    let server = start(Protocol::Heartbus(dialect), Reply::Heartbeat, &ours, &settings.cores)?;
    let mut fleet = Fleet::new(server.target)?;
    let (channels, _) = register(&mut fleet, dialect, nodes / EACH, EACH)?;
    let window = Window { warm_up: Duration::from_millis(300), length: settings.window.length.min(Duration::from_secs(3)) };
    let beat = individual(&mut fleet, dialect, &channels, window)?.cpu_each();
    beat_all(&mut fleet, dialect)?;
    fleet.listen(timeout - Duration::from_millis(300))?;
    let mut measured = Meter::new(server.target, Window { warm_up: Duration::ZERO, length: Duration::from_secs(20) });
    measured.turn();
    while fleet.lost < fleet.size() && measured.turn().is_some() {
        fleet.turn(Duration::from_millis(50), |_, _| {})?;
    }
    server.target.settle();
    measured.operations = nodes as u64;
    if fleet.lost < fleet.size() {
        return Err(Error::new(format!("{} of {} connections were not closed", fleet.size() - fleet.lost, fleet.size())));
    }
    Ok((beat, measured.stop().cpu_each()))
}
