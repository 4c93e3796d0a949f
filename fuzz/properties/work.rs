//! What a decoder may do for the bytes that it is given: so much memory and, under the fuzzer, so much processor time for each of them.

use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

/// Bytes of memory that may be asked for without a byte to decode.
const MEMORY: u64 = 1024;

/// Nanoseconds, once and for each byte, with what a sanitizer adds: far above what is needed, and far below what a loop within a loop would take.
const TIME: (u64, u64) = (100_000, 500);

/// So often it is measured before it is a fault: what else a machine does only adds.
const ROUNDS: u32 = 30;

/// Decodes, and panics where that took more than it may for so many bytes as `used` says of the outcome; `memory_each` is what each of them may
/// take.
pub(crate) fn bounded<T>(what: &str, memory_each: u64, decode: impl Fn() -> T, used: impl Fn(&T) -> usize) -> T {
    bounded_by(what, memory_each, TIME.1, decode, used)
}

/// The same of what does more than to decode; `time_each` is in nanoseconds.
pub(crate) fn bounded_by<T>(what: &str, memory_each: u64, time_each: u64, decode: impl Fn() -> T, used: impl Fn(&T) -> usize) -> T {
    let mut outcome = None;
    let memory = allocation_counter::measure(|| outcome = Some(decode())).bytes_total;
    let outcome = outcome.expect("it was decoded");
    let used = used(&outcome) as u64;
    assert!(memory <= MEMORY + memory_each * used, "{what}: {memory} bytes of memory for {used}");
    if cfg!(fuzzing) {
        let allowed = TIME.0 + time_each * used;
        assert!((0..ROUNDS).any(|_| time(&decode) <= allowed), "{what}: more than {allowed} ns for {used} bytes");
    }
    outcome
}

fn time<T>(decode: impl Fn() -> T) -> u64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let start = now();
    black_box(decode());
    now() - start
}
