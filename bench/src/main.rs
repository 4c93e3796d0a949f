//! The command line of the benchmarks.

use heartbus_bench::attack::{ATTACKS, Attack, Outcome};
use heartbus_bench::cells::{self, Settings};
use heartbus_bench::fleet::{Fleet, Window};
use heartbus_bench::floor::{self, Reply};
use heartbus_bench::protocol::{Dialect, Protocol};
use heartbus_bench::report::{self, Report};
use heartbus_bench::server::{Cores, Target, peers};
use heartbus_bench::{Error, Result, flame, json, million, poll, proc, topics};
use pico_args::Arguments;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "\
Usage: heartbus-bench COMMAND [options]

run     measures everything and writes BENCHMARKS.md
  --out DIR            folder for the page, its plots and its numbers (docs)
  --quick              shorter, once, with fewer nodes
  --only A,B           heartbeats, churn, idle, threads, memory, waves, data, broadcast, topics, bus, poll, million, curves
  --rounds N           of each measurement (5; of what takes long fewer, of some ratios three times as many; --quick: 1)
  --seconds S          each is measured, after a warm-up that does not count (1.5; --quick: 0.5)
  --server-cores LIST  0; the load generator has the next one, or --load-cores LIST
  --dialect v1         only this one
attack  lets strangers do what they can to a server that others use; fails where these notice
  --only A,B           some of the attacks; without, all
json    says how fast frames of v1 are read, for each shape of JSON that may be in them, 10 MB each
  --rounds N           of which the fastest counts (15)
  --at-least MB        fails where one is read slower, in millions of bytes a second
load    keeps a running server busy, and says what that took
  --port P --pid PID   the server and its process
  --protocol NAME      v1, v2, websocket, floor-v1, floor-v2, redis, mqtt, nats, ws (v1)
  --connections N --depth N --seconds S --rate N (100, 1, 5; a rate: heartbeats a second, over all connections)
floor   a server that does nothing but wait, read and write
  --port P --dialect v1|v2 --reply heartbeat|register|broadcast|publish --threads N
flame   draws a flame graph (SVG) of what `perf script -F comm,tid,ip,sym,dso` says on standard input; scripts/flame does it all
  --title TEXT
";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_env();
    let result = match arguments.subcommand() {
        Ok(Some(command)) if command == "run" => run(arguments),
        Ok(Some(command)) if command == "attack" => attack(arguments),
        Ok(Some(command)) if command == "json" => read_json(arguments),
        Ok(Some(command)) if command == "load" => load(arguments),
        Ok(Some(command)) if command == "floor" => floor(arguments),
        Ok(Some(command)) if command == "flame" => flame(arguments),
        _ => Err(Error::new(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn no_more(arguments: Arguments) -> Result<()> {
    match arguments.finish().first() {
        None => Ok(()),
        Some(unknown) => Err(Error::new(format!("unknown argument {}\n\n{USAGE}", unknown.to_string_lossy()))),
    }
}

fn run(mut arguments: Arguments) -> Result<()> {
    let quick = arguments.contains("--quick");
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    let out: PathBuf = arguments.opt_value_from_str("--out")?.unwrap_or_else(|| "docs".into());
    let rounds = arguments.opt_value_from_str("--rounds")?.unwrap_or(if quick { 1 } else { 5 });
    let seconds = arguments.opt_value_from_str("--seconds")?.unwrap_or(if quick { 0.5 } else { 1.5 });
    let server: Vec<usize> = arguments.opt_value_from_fn("--server-cores", list)?.unwrap_or_else(|| vec![0]);
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let next = (server.iter().max().unwrap_or(&0) + 1) % all;
    let load: Vec<usize> = arguments.opt_value_from_fn("--load-cores", list)?.unwrap_or_else(|| vec![next]);
    let dialect: Option<Dialect> = arguments.opt_value_from_fn("--dialect", dialect)?;
    no_more(arguments)?;
    if rounds == 0 {
        return Err(Error::new("--rounds is at least 1"));
    }
    let (peers, missing) = peers();
    missing.iter().for_each(|package| eprintln!("{package} is not installed and is left out (scripts/setup bench installs it)"));
    let settings = Settings {
        rounds,
        window: Window { warm_up: Duration::from_secs_f64(seconds / 5.0), length: Duration::from_secs_f64(seconds) },
        cores: Cores { server, load },
        dialects: [Dialect::V1, Dialect::V2].into_iter().filter(|one| dialect.is_none_or(|wanted| wanted == *one)).collect(),
        peers,
        quick,
    };
    proc::run_on(&settings.cores.load)?;
    let wants = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let mut report = Report::default();
    let began = Instant::now();
    type Cell = fn(&mut Report, &Settings) -> Result<()>;
    let all: [(&str, Cell); 12] = [
        ("heartbeats", cells::heartbeats),
        ("churn", cells::churn),
        ("idle", cells::idle),
        ("threads", cells::threads),
        ("memory", cells::memory),
        ("waves", cells::waves),
        ("data", cells::data),
        ("broadcast", cells::broadcast),
        ("topics", topics::topics),
        ("bus", cells::bus),
        ("poll", poll::poll),
        ("million", million::million),
    ];
    // What failed is left out of the page, and the others are still measured.
    let mut failed = Vec::new();
    let mut done = |name: &str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("{name} failed: {error}");
            failed.push(format!("{name}: {error}"));
        }
    };
    for (name, cell) in all.iter().filter(|(name, _)| wants(name)) {
        done(name, cell(&mut report, &settings));
    }
    if wants("curves") {
        done("curves", million::curves(&mut report, &settings, &out));
    }
    let failures = failed.iter().fold(String::new(), |all, failure| format!("{all} **Failed: {failure}.**"));
    let left_out = if missing.is_empty() { String::new() } else { format!(" Not installed, and left out: {}.", missing.join(", ")) };
    let introduction = format!(
        "One run of `make bench{}`, {:.0} minutes, on {}. The server on core {:?}, the load generator on core {:?}, over the loopback device, so \
         every figure is about CPU and memory and none about a network. Each is the median of {rounds} round{} of {seconds} s (of what takes long: fewer; some tables say more), after a warm-up, \
         with the lowest and the highest round in parentheses; what is compared took turns in the same minutes, or was measured at the same time. Times are those of the server's \
         processes on a core (`/proc/PID/task/*/schedstat`), memory is their resident memory (`smaps_rollup`). Ours is `HeartbeatServer` in PHP on its own \
         loop, built by `make build`; it subscribes to nothing except where a table says so. The floor is an epoll loop that parses \
         nothing (`bench/src/floor.rs`). Every number of every round is in [bench/samples.json](bench/samples.json).{left_out}{failures}\n",
        if quick { " QUICK=1" } else { "" },
        began.elapsed().as_secs_f64() / 60.0,
        report::machine(),
        settings.cores.server,
        settings.cores.load,
        if rounds == 1 { "" } else { "s" },
    );
    report.write(&out, &introduction)?;
    eprintln!("wrote {} after {:.0} s", out.join("BENCHMARKS.md").display(), began.elapsed().as_secs_f64());
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

/// What an I/O thread may do before a bystander has its answer, in its own time on a core: a quiet machine answers as soon.
const MOST_WORK: Duration = Duration::from_millis(50);
/// What a bystander may wait longer than one of a server that does nothing else, which is asked beside it. On a shared machine the two are
/// not held up at the same moments, and the thread that does nothing else is let go first.
const LONGEST_WAIT: Duration = Duration::from_millis(150);
/// How often an attack is tried under which the bystander waited too long. A server that is at fault is so each time.
const ATTEMPTS: usize = 3;

fn attack(mut arguments: Arguments) -> Result<()> {
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    no_more(arguments)?;
    let wanted = |attack: &&Attack| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == attack.name));
    let mut failed = Vec::new();
    let mut count = 0;
    println!(
        "| attack | took | longest wait of a bystander | and without the server | most work before its answer | cut off | memory grew by at most | and by, afterwards | it says it kept |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for attack in ATTACKS.iter().filter(wanted) {
        count += 1;
        let mut faults = Vec::new();
        for _ in 0..ATTEMPTS {
            let outcome = attack.run()?;
            println!("{}", row(attack, &outcome));
            // Where it is stopped, everybody waits for that.
            let patience = LONGEST_WAIT + outcome.control + attack.stops;
            let waited_too_long = outcome.longest_wait.is_some_and(|wait| wait > patience) || outcome.most_work > MOST_WORK;
            let seen = [
                (waited_too_long, "the bystander waited too long"),
                (outcome.cut_off > 0, "healthy nodes were cut off"),
                (outcome.grown > attack.allowance(), "memory grew by more than it may"),
            ];
            faults = seen.iter().filter(|(is, _)| *is).map(|(_, fault)| format!("{}: {fault}", attack.name)).collect();
            if !waited_too_long || faults.len() > 1 {
                break;
            }
        }
        failed.extend(faults);
    }
    if count == 0 {
        return Err(Error::new("there is no such attack"));
    }
    if !failed.is_empty() {
        return Err(Error::new(failed.join("; ")));
    }
    println!("OK ({count} attacks, and nobody else noticed)");
    Ok(())
}

fn row(attack: &Attack, outcome: &Outcome) -> String {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let ms = |wait: Duration| format!("{:.0} ms", wait.as_secs_f64() * 1e3);
    format!(
        "| {}: {} | {:.1} s | {} | {} | {} | {} | {:.0} MB | {:.0} MB | {:.0} MB |",
        attack.name,
        attack.what,
        outcome.took.as_secs_f64(),
        outcome.longest_wait.map_or("cut off".into(), ms),
        ms(outcome.control),
        ms(outcome.most_work),
        outcome.cut_off,
        mb(outcome.grown),
        mb(outcome.left),
        mb(outcome.accounted),
    )
}

fn read_json(mut arguments: Arguments) -> Result<()> {
    let rounds = arguments.opt_value_from_str("--rounds")?.unwrap_or(15);
    let least: f64 = arguments.opt_value_from_str("--at-least")?.unwrap_or(0.0);
    no_more(arguments)?;
    let speeds = json::measure(rounds).map_err(Error::new)?;
    println!("| what is in the frame | decoded, MB/s | with the payload taken, MB/s |\n|---|---|---|");
    for speed in &speeds {
        println!("| {} | {:.0} | {} |", speed.name, speed.decoded, speed.taken.map_or(String::new(), |taken| format!("{taken:.0}")));
    }
    let slow: Vec<&str> = speeds.iter().filter(|speed| speed.decoded < least).map(|speed| speed.name).collect();
    if slow.is_empty() { Ok(()) } else { Err(Error::new(format!("slower than {least} MB/s: {}", slow.join(", ")))) }
}

fn load(mut arguments: Arguments) -> Result<()> {
    let port: u16 = arguments.value_from_str("--port")?;
    let pid = arguments.value_from_str("--pid")?;
    let protocol = arguments.opt_value_from_fn("--protocol", protocol)?.unwrap_or(Protocol::Heartbus(Dialect::V1));
    let connections = arguments.opt_value_from_str("--connections")?.unwrap_or(100);
    let depth = arguments.opt_value_from_str("--depth")?.unwrap_or(1);
    let seconds = arguments.opt_value_from_str("--seconds")?.unwrap_or(5.0);
    let rate: Option<u32> = arguments.opt_value_from_str("--rate")?;
    no_more(arguments)?;
    let target = Target { protocol, address: ([127, 0, 0, 1], port).into(), pid };
    let window = Window { warm_up: Duration::from_millis(500), length: Duration::from_secs_f64(seconds) };
    let mut fleet = Fleet::connected(target, connections)?;
    let ping = protocol.ping();
    let load = match rate {
        None => fleet.closed_loop(&ping, depth, window)?,
        Some(rate) => fleet.open_loop(Duration::from_secs(1) / rate.max(1), 1, window, |number, bytes| {
            bytes.extend_from_slice(&ping);
            (number as usize % connections, 1)
        })?,
    };
    let at = |quantile| load.latency.value_at_quantile(quantile);
    println!(
        "{:.0}/s, {:.3} µs of CPU each, {:.1} % of a core; round trips: p50 {} µs, p99 {} µs, p99.9 {} µs, at most {} µs; memory {:.1} MB",
        load.per_second(),
        load.cpu_each(),
        load.core_share() * 100.0,
        at(0.5),
        at(0.99),
        at(0.999),
        load.latency.max(),
        target.memory() as f64 / 1e6,
    );
    Ok(())
}

fn floor(mut arguments: Arguments) -> Result<()> {
    let port = arguments.value_from_str("--port")?;
    let dialect = arguments.opt_value_from_fn("--dialect", dialect)?.unwrap_or(Dialect::V1);
    let reply = arguments.opt_value_from_fn("--reply", |name| match name {
        "heartbeat" => Ok(Reply::Heartbeat),
        "register" => Ok(Reply::Register),
        "broadcast" => Ok(Reply::Broadcast),
        "publish" => Ok(Reply::Publish),
        other => Err(format!("no such reply: {other}")),
    })?;
    let threads = arguments.opt_value_from_str("--threads")?.unwrap_or(1);
    no_more(arguments)?;
    Ok(floor::serve(port, dialect, reply.unwrap_or(Reply::Heartbeat), threads)?)
}

fn flame(mut arguments: Arguments) -> Result<()> {
    let title: String = arguments.opt_value_from_str("--title")?.unwrap_or_default();
    no_more(arguments)?;
    let profile = flame::fold(&std::io::read_to_string(std::io::stdin())?);
    if profile.threads.samples == 0 {
        return Err(Error::new("there is no sample in what perf script said"));
    }
    eprintln!("{title}: {}", profile.shares());
    print!("{}", profile.svg(&title));
    Ok(())
}

fn dialect(name: &str) -> std::result::Result<Dialect, String> {
    match name {
        "v1" => Ok(Dialect::V1),
        "v2" => Ok(Dialect::V2),
        other => Err(format!("no such dialect: {other}")),
    }
}

fn protocol(name: &str) -> std::result::Result<Protocol, String> {
    Ok(match name {
        "redis" => Protocol::Redis,
        "mqtt" => Protocol::Mqtt,
        "nats" => Protocol::Nats,
        "websocket" => Protocol::WebSocket,
        "ws" => Protocol::Ws,
        name => match name.strip_prefix("floor-") {
            Some(name) => Protocol::Floor(dialect(name)?),
            None => Protocol::Heartbus(dialect(name)?),
        },
    })
}

fn list(text: &str) -> std::result::Result<Vec<usize>, std::num::ParseIntError> {
    text.split(',').map(str::parse).collect()
}
