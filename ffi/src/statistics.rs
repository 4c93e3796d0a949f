//! What a server counted: numbers with names, and the text that Prometheus reads.

use crate::event::keep;
use crate::texts::with_texts;
use heartbus_core::engine::Stats;
use heartbus_core::hub::Timings;
use heartbus_core::metrics;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::sync::LazyLock;

/// A number with its name, such as "nodes_online". Names live as long as the program.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_stat {
    pub name: *const c_char,
    pub value: u64,
}

static NAMES: LazyLock<Vec<CString>> =
    LazyLock::new(|| Stats::default().list().into_iter().map(|(name, _)| CString::new(name).unwrap_or_default()).collect());

/// Returns how many there are.
pub(crate) fn write_stats(numbers: Stats, stats: &mut [MaybeUninit<heartbus_stat>]) -> usize {
    for (target, (name, (_, value))) in stats.iter_mut().zip(NAMES.iter().zip(numbers.list())) {
        target.write(heartbus_stat { name: name.as_ptr(), value });
    }
    NAMES.len()
}

pub(crate) fn write_metrics(
    stats: &Stats,
    timings: &Timings,
    target: &mut MaybeUninit<*const c_char>,
    target_len: &mut MaybeUninit<usize>,
) {
    let (text, text_len) = with_texts(|texts| keep(texts, &metrics::export(stats, timings)));
    target.write(text);
    target_len.write(text_len);
}
