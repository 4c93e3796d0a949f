//! What the kernel counts about a process: time on a core, memory, and the cores it may use.
//!
//! Owns the reading of /proc and nothing else. Times come from `schedstat`, which counts nanoseconds; `utime` and `stime`
//! count ticks of ten milliseconds.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Binds this thread, and what it starts from now on, to some cores.
pub fn run_on(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Time that the threads of a process and of its children have spent on a core, in nanoseconds.
pub fn cpu(pid: u32) -> u64 {
    tree(pid).into_iter().flat_map(|pid| entries(format!("/proc/{pid}/task"))).map(|task| on_core(&format!("{task}/schedstat"))).sum()
}

/// Time that each thread whose name begins so has spent on a core, in nanoseconds, in one order.
pub fn threads_cpu(pid: u32, name: &str) -> Vec<u64> {
    let mut tasks = entries(format!("/proc/{pid}/task"));
    tasks.retain(|task| fs::read_to_string(format!("{task}/comm")).is_ok_and(|comm| comm.starts_with(name)));
    tasks.sort_unstable();
    tasks.iter().map(|task| on_core(&format!("{task}/schedstat"))).collect()
}

fn on_core(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Memory that is mapped and present, of a process and its children, in bytes.
pub fn memory(pid: u32) -> u64 {
    tree(pid).into_iter().map(|pid| kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Rss:") * 1024).sum()
}

/// The value of a line like `Rss:  1234 kB`; 0 where there is none.
pub fn kilobytes(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Time that this thread has spent on a core.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds of the clock that PHP's `hrtime()` reads as well.
pub fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn pid_of(child: &std::process::Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        for task in entries(format!("/proc/{pid}/task")) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

fn entries(path: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn work_shows_in_the_time_of_a_process() {
        let started = Instant::now();
        // Not this process: where other tests' threads end, their time goes.
        let mut child = Command::new("yes").stdout(Stdio::null()).spawn().expect("yes is everywhere");
        while cpu(child.id()) < 20_000_000 && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (spent, passed) = (cpu(child.id()), started.elapsed());
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert!((20_000_000..=passed.as_nanos()).contains(&spent.into()), "one thread worked for {spent} ns within {passed:?}");
    }

    #[test]
    fn memory_shows_in_the_memory_of_a_process() {
        let block = std::hint::black_box(vec![1u8; 8 << 20]);
        assert!(memory(std::process::id()) >= 8 << 20);
        assert_eq!(std::hint::black_box(block).len(), 8 << 20);
    }

    #[test]
    fn of_a_process_that_is_gone_nothing_is_known() {
        let mut child = Command::new("true").spawn().expect("true is everywhere");
        let pid = child.id();
        child.wait().expect("it ends");
        assert_eq!((cpu(pid), memory(pid)), (0, 0));
    }
}
