//! What a server counted: numbers with names, and the text that Prometheus reads.

use crate::event::keep;
use crate::handle;
use crate::lookup::with_texts;
use crate::raw::{out, out_slice};
use crate::server::{Server, heartbus_server};
use crate::status::{guard, heartbus_status};
use heartbus_core::engine::Stats;
use heartbus_core::hub::Timings;
use heartbus_core::metrics;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::sync::LazyLock;

/// A number with its name, such as "nodes_online". Names live as long as the program.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct heartbus_stat {
    pub name: *const c_char,
    pub value: u64,
}

static NAMES: LazyLock<Vec<CString>> =
    LazyLock::new(|| Stats::default().list().into_iter().map(|(name, _)| CString::new(name).unwrap_or_default()).collect());

/// Writes up to `capacity` numbers into the caller's array, always in the same order, and says in `count` how many there are,
/// which may be more than fit. Counters run from the start of the server. Later versions add numbers, and keep the names of
/// those there are. Works after the server has stopped, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_stats(
    server: *const heartbus_server,
    stats: *mut heartbus_stat,
    capacity: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        let (stats, count) = unsafe { (out_slice("stats", stats, capacity)?, out("count", count)?) };
        count.write(write_stats(object.engine.stats(), stats));
        Ok(())
    })
}

/// The server's metrics under the names of the PHP library, as the text that Prometheus reads. Valid until this thread's next
/// lookup.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_metrics(
    server: *const heartbus_server,
    text: *mut *const c_char,
    text_len: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the places for the results, as the first page asks.
        let (target, target_len) = unsafe { (out("text", text)?, out("text_len", text_len)?) };
        write_metrics(&object.engine.stats(), &object.engine.timings(), target, target_len);
        Ok(())
    })
}

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
