//! Attacks on a server that others use meanwhile: what strangers can do within their limits, each for a few seconds.
//!
//! Owns the list of attacks and the verdict; what strangers do is `strangers`', the watch is `beside`'s: a bystander who beats every 50 ms and notes how long each answer takes, nodes that
//! beat as they should and must not be cut off, and the server's memory against what it says it keeps. What the machine itself makes
//! everybody wait is measured at the same moments, with a second bystander whose answers come from a thread that does nothing else.

mod arena;
mod beside;
mod strangers;

use crate::{Error, Result, proc};
use arena::Arena;
use beside::{Beside, beat, echo, sample, stand_by};
use serde_json::json;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strangers::STOP;

/// One kind of attack. Names are unique.
pub struct Attack {
    pub name: &'static str,
    pub what: &'static str,
    /// What PHP subscribes to, as `bench/attack.php` has it.
    mode: &'static str,
    /// Bytes that the server may keep for everybody together.
    total_buffer_bytes: u64,
    /// For how long the attack holds everybody up by stopping the process.
    pub stops: Duration,
    run: fn(&Arena) -> Result<()>,
}

const MIB: u64 = 1 << 20;

pub const ATTACKS: [Attack; 13] = [
    Attack {
        name: "frames",
        what: "60 connections hold a frame of 10 MB each but for its last byte; then the last bytes come together",
        mode: "idle",
        total_buffer_bytes: 1024 * MIB,
        stops: Duration::ZERO,
        run: strangers::frames,
    },
    Attack {
        name: "heartbeats",
        what: "one connection with 10,000 nodes sends 256 KB of empty heartbeats, and PHP wants to hear of each",
        mode: "heartbeat",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::heartbeats,
    },
    Attack {
        name: "crumbs",
        what: "100 connections send long frames in pieces of 11 bytes",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::crumbs,
    },
    Attack {
        name: "capacity",
        what: "200 connections send a frame of 8 MB, and half of a short one",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::capacity,
    },
    Attack {
        name: "broadcasts",
        what: "a peer does not read, and there are 50,000 short broadcasts",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::broadcasts,
    },
    Attack {
        name: "held",
        what: "eight peers agree on v2 and never speak it, and are sent what v1 cannot carry",
        mode: "idle",
        total_buffer_bytes: 4 * MIB,
        stops: Duration::ZERO,
        run: strangers::held,
    },
    Attack {
        name: "metadata",
        what: "one connection registers 10,000 nodes with 60 KB of metadata each",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::metadata,
    },
    Attack {
        name: "registrations",
        what: "one id comes and goes 5,000 times with 60 KB of metadata while PHP is busy",
        mode: "busy",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::registrations,
    },
    Attack {
        name: "deaf",
        what: "50 connections ask as fast as they can and read no answer",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::deaf,
    },
    Attack {
        name: "doors",
        what: "5,000 connections come, say something, and are reset",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::doors,
    },
    Attack {
        name: "garbage",
        what: "20 connections send frames that mean nothing, come back, and do it again",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::garbage,
    },
    Attack {
        name: "websockets",
        what: "40 WebSockets send fragments of messages without end, ping without reading, break the rules, and come back",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: strangers::websockets,
    },
    Attack {
        name: "stopped",
        what: "the busy server is stopped for longer than the nodes' timeout, and continued",
        mode: "heartbeat",
        total_buffer_bytes: 64 * MIB,
        stops: STOP,
        run: strangers::stopped,
    },
];

const HEALTHY: usize = 50;

/// What one attack did to everybody else.
pub struct Outcome {
    /// The longest that the bystander waited for an answer; none when it was cut off.
    pub longest_wait: Option<Duration>,
    /// The most that an I/O thread of the server did while the bystander waited, in time on a core.
    pub most_work: Duration,
    /// The longest that the one waited who asked nothing of the server.
    pub control: Duration,
    /// Healthy nodes, and the bystander, that were cut off.
    pub cut_off: usize,
    /// Resident memory over that before the attack, at its highest, and two seconds after it.
    pub grown: u64,
    pub left: u64,
    /// The most that the server said it keeps for strangers.
    pub accounted: u64,
    pub took: Duration,
}

impl Attack {
    pub fn run(&self) -> Result<Outcome> {
        let arena = Arena::open(self.mode, self.total_buffer_bytes)?;
        let nobody = json!([]);
        let bystander = arena.registered("bystander", &nobody)?;
        let healthy = (0..HEALTHY).map(|node| arena.registered(&format!("healthy-{node}"), &nobody)).collect::<Result<Vec<_>>>()?;
        let pid = arena.server.id();
        let bystander = Beside::start(move |over| stand_by(bystander, Some(pid), over));
        let healthy = Beside::start(move |over| beat(healthy, over));
        let echoed = echo()?;
        let control = Beside::start(move |over| stand_by(echoed, None, over));
        sleep(Duration::from_millis(500));
        let bus = arena.bus()?;
        let before = proc::memory(pid);
        let sampler = Beside::start(move |over| sample(pid, bus, over));
        let began = Instant::now();
        (self.run)(&arena)?;
        let took = began.elapsed();
        sleep(Duration::from_secs(2));
        let left = proc::memory(pid).saturating_sub(before);
        let (peak, accounted) = sampler.end()?;
        let (longest_wait, most_work) = bystander.end()?.unzip();
        let (control, _) = control.end()?.ok_or_else(|| Error::new("the echo ended"))?;
        let cut_off = healthy.end()? + usize::from(longest_wait.is_none());
        Ok(Outcome {
            longest_wait,
            most_work: most_work.unwrap_or_default(),
            control,
            cut_off,
            grown: peak.saturating_sub(before),
            left,
            accounted,
            took,
        })
    }

    /// What memory may grow by: what may be kept, what the allocator adds to it, and the tables of those who came.
    pub fn allowance(&self) -> u64 {
        self.total_buffer_bytes * 3 / 2 + 48 * MIB
    }
}
