//! The PHP library's global functions, and `Heartbus\reopen_logs()`.

use super::logger::{self, Level};
use super::metrics;
use super::state::{bytes, call, division_by_zero, memory_usage, to_string};
use crate::arguments;
use crate::declare::function;
use crate::php::{self, Call, Callable, Outcome, map, text, value};
use ext_php_rs::builders::ModuleBuilder;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn add(module: ModuleBuilder<'_>) -> ModuleBuilder<'_> {
    module
        .function(function("hb_log(string $message, string $level = 'info', array $context = []): void", log))
        .function(function("hb_metric_inc(string $name, int $value = 1, array $labels = []): void", metrics::inc_counter))
        .function(function("hb_metric_set(string $name, float $value, array $labels = []): void", metrics::set_gauge))
        .function(function("hb_metric_observe(string $name, float $value, array $labels = []): void", metrics::observe_histogram))
        .function(function("hb_format_bytes(int $bytes, int $precision = 2): string", format_bytes))
        .function(function("hb_format_duration(float $seconds): string", format_duration))
        .function(function("hb_memory_usage(): array", memory))
        .function(function("hb_generate_node_id(string $prefix = 'node'): string", generate_node_id))
        .function(function("hb_benchmark(callable $callback, int $iterations = 1): array", benchmark))
        .function(function(r"Heartbus\reopen_logs(): bool", reopen_logs))
}

fn log(call: &mut Call<'_>) -> Outcome {
    let (mut message, mut level, mut context) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|Sa", message, level, context)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let context = unsafe { context.as_ref() }.map_or_else(|| value(ZendEmptyArray), |context| context.dereference().shallow_clone());
    logger::log_globally(Level::named(php::bytes(level)), php::string(message), context)
}

/// For whoever rotates logs. False when the engine's lines go nowhere, or still to the old file.
fn reopen_logs(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    call.result.set_bool(crate::log::reopen());
    Ok(())
}

fn format_bytes(call: &mut Call<'_>) -> Outcome {
    let (mut size, mut precision) = (0i64, 2i64);
    arguments!(call, c"l|l", size, precision)?;
    *call.result = bytes_text(size, precision)?;
    Ok(())
}

/// A unit is left only above 1024 of it: 1024 bytes are "1024 B".
fn bytes_text(size: i64, precision: i64) -> Outcome<Zval> {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    // As PHP divides: an integer as long as nothing is left over.
    let (mut whole, mut number, mut unit) = (Some(size), size as f64, 0);
    while number > 1024.0 && unit < UNITS.len() - 1 {
        whole = whole.filter(|whole| whole % 1024 == 0).map(|whole| whole / 1024);
        number = whole.map_or(number / 1024.0, |whole| whole as f64);
        unit += 1;
    }
    let rounded = call("round", [whole.map_or_else(|| value(number), value), value(precision)])?;
    Ok(text([bytes(&to_string(&rounded)?), b" ", UNITS[unit].as_bytes()].concat()))
}

fn format_duration(call: &mut Call<'_>) -> Outcome {
    let mut seconds = 0f64;
    arguments!(call, c"d", seconds)?;
    // From a minute on fractions are dropped.
    let floor = |number: f64, unit: f64| (number / unit).floor();
    let rest = |number: f64, unit: i64| if number.is_finite() { (number as i64) % unit } else { 0 };
    let minutes = floor(seconds, 60.0);
    let hours = floor(minutes, 60.0);
    let days = floor(hours, 24.0);
    let (big, small) = if seconds < 60.0 {
        let rounded = self::call("round", [value(seconds), value(2i64)])?;
        (rounded, "s".to_owned())
    } else if minutes < 60.0 {
        (value(minutes), format!("m {}s", rest(seconds, 60)))
    } else if hours < 24.0 {
        (value(hours), format!("h {}m", rest(minutes, 60)))
    } else {
        (value(days), format!("d {}h", rest(hours, 24)))
    };
    *call.result = text([bytes(&to_string(&big)?), small.as_bytes()].concat());
    Ok(())
}

fn memory(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let (current, peak) = (memory_usage(false), memory_usage(true));
    *call.result = map([
        ("current", value(current)),
        ("peak", value(peak)),
        ("current_formatted", bytes_text(current, 2)?),
        ("peak_formatted", bytes_text(peak, 2)?),
    ]);
    Ok(())
}

/// `<prefix>_<13 hex>_<8 hex>`: the time in microseconds, and chance.
fn generate_node_id(call: &mut Call<'_>) -> Outcome {
    let mut prefix = ptr::null_mut::<zend_string>();
    arguments!(call, c"|S", prefix)?;
    let prefix: &[u8] = if prefix.is_null() { b"node" } else { php::bytes(prefix) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = self::call("random_bytes", [value(4i64)])?;
    let random: String = bytes(&random).iter().map(|byte| format!("{byte:02x}")).collect();
    let tail = format!("_{:08x}{:05x}_{random}", now.as_secs(), now.subsec_micros());
    *call.result = text([prefix, tail.as_bytes()].concat());
    Ok(())
}

fn benchmark(call: &mut Call<'_>) -> Outcome {
    let (mut callback, mut iterations) = (ptr::null_mut::<Zval>(), 1i64);
    arguments!(call, c"z|l", callback, iterations)?;
    let callback = Rc::new(Callable::new(callback, 1)?);
    let (start, before) = (Instant::now(), memory_usage(false));
    for _ in 0..iterations {
        callback.call([])?;
    }
    let memory_used = memory_usage(false) - before;
    if iterations == 0 {
        return Err(division_by_zero());
    }
    // A clock that did not move would make the rate infinite.
    let duration = start.elapsed().as_secs_f64().max(1e-9);
    *call.result = map([
        ("iterations", value(iterations)),
        ("total_time", value(duration)),
        ("avg_time", value(duration / iterations as f64)),
        ("memory_used", value(memory_used)),
        ("ops_per_second", value(iterations as f64 / duration)),
    ]);
    Ok(())
}
