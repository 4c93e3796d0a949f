//! `PfinalClub\AsyncioHeartbeat\Utils\Metrics`: the application's own metrics, in this process, as Prometheus text and JSON.
//!
//! Bounded: a histogram keeps counts and no observations, and beyond [`MAX_SERIES`] new series are counted, not kept.

use super::state::{self, Field, Table, bytes, items};
use crate::arguments;
use crate::clock::{microtime, monotonic};
use crate::declare::Declare;
use crate::measures::{self, Number};
use crate::php::{self, Call, Outcome, Thrown, map, text, value};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Utils\Metrics";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const COUNTERS: Field = Field::new(0, c"counters");
const GAUGES: Field = Field::new(1, c"gauges");
const HISTOGRAMS: Field = Field::new(2, c"histograms");
const START_TIME: Field = Field::new(3, c"startTime");
const SERIES: Field = Field::new(4, c"series");
const DROPPED: Field = Field::new(5, c"droppedSeries");

/// Every set of labels is a series: labels that hold ids would fill the memory.
const MAX_SERIES: i64 = 10_000;

/// Upper bounds of the buckets, the engine's own: from a tenth of a millisecond, which a message takes, to ten seconds.
const BOUNDS: [f64; 15] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const _: () = {
    let mut place = 0;
    while place < BOUNDS.len() {
        assert!((BOUNDS[place] * 1e6 + 0.5) as u64 == heartbus_core::hub::counters::BOUNDS[place]);
        place += 1;
    }
};

const UPTIME: &str = "heartbeat_uptime_seconds";
const DROPPED_NAME: &str = "heartbeat_metric_series_dropped_total";

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare("private __construct()", construct)
        .declare("static getInstance(): self", get_instance)
        .declare("incCounter(string $name, int $value = 1, array $labels = []): void", inc_counter)
        .declare("setGauge(string $name, float $value, array $labels = []): void", set_gauge)
        .declare("observeHistogram(string $name, float $value, array $labels = []): void", observe_histogram)
        .declare("export(): string", export)
        .declare("exportJson(): string", export_json)
        .declare("reset(): void", reset)
        .declare("getAll(): array", get_all)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            state::declare_singleton(class, NAME);
            COUNTERS.declare(class, "array", Some(value(ZendEmptyArray)));
            GAUGES.declare(class, "array", Some(value(ZendEmptyArray)));
            HISTOGRAMS.declare(class, "array", Some(value(ZendEmptyArray)));
            START_TIME.declare(class, "float", None);
            SERIES.declare(class, "int", Some(value(0i64)));
            DROPPED.declare(class, "int", Some(value(0i64)));
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

/// The process's metrics, for the functions `hb_metric_*`.
pub(super) fn instance() -> Outcome<Zval> {
    let class = CLASS.load(Ordering::Relaxed);
    state::singleton(class, || {
        let mut metrics = Zval::new();
        // SAFETY: the class is registered and can be instantiated.
        unsafe { shim::object_init_ex(&raw mut metrics, class) };
        let object = metrics.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
        START_TIME.set(object, value(monotonic()));
        Ok(metrics)
    })
}

fn construct(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    START_TIME.set(call.this(), value(monotonic()));
    Ok(())
}

fn get_instance(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = instance()?;
    Ok(())
}

/// The object of a method's call, or of a function's.
fn target(call: &mut Call<'_>) -> Outcome<(Zval, *mut zend_object)> {
    let this = call.this();
    let metrics = if this.is_null() { instance()? } else { php::object(this) };
    let object = metrics.object().map(|object| ptr::from_ref(object).cast_mut()).ok_or(Thrown)?;
    Ok((metrics, object))
}

/// What is neither a number nor a text becomes a text as soon as it is kept: one that cannot throws at the call that brought it, and not at
/// every export from then on.
fn as_texts(mut labels: Zval) -> Outcome<Zval> {
    for (key, label) in Table::of(&mut labels).entries() {
        if label.is_object() || label.is_array() || label.is_resource() {
            let label = state::to_string(&label)?;
            match key.long() {
                Some(key) => Table::of(&mut labels).set_index(key, label),
                None => Table::of(&mut labels).set(bytes(&key), label),
            }
        }
    }
    Ok(labels)
}

fn labels_of(labels: *mut Zval) -> Zval {
    // SAFETY: an argument of the running call, or null when it was left out.
    unsafe { labels.as_ref() }.map_or_else(|| value(ZendEmptyArray), |labels| labels.dereference().shallow_clone())
}

pub(super) fn inc_counter(call: &mut Call<'_>) -> Outcome {
    let (mut name, mut more, mut labels) = (ptr::null_mut::<zend_string>(), 1i64, ptr::null_mut::<Zval>());
    arguments!(call, c"S|la", name, more, labels)?;
    let (_kept, metrics) = target(call)?;
    let Some(series) = open(metrics, COUNTERS, php::bytes(name), labels_of(labels))? else { return Ok(()) };
    let before = series.get(b"value").unwrap_or_else(|| value(0i64));
    // As PHP adds: what no integer can hold becomes a float.
    let sum = match before.long() {
        Some(whole) => whole.checked_add(more).map_or_else(|| value(whole as f64 + more as f64), value),
        None => value(before.double().unwrap_or_default() + more as f64),
    };
    series.set(b"value", sum);
    Ok(())
}

pub(super) fn set_gauge(call: &mut Call<'_>) -> Outcome {
    let (mut name, mut number, mut labels) = (ptr::null_mut::<zend_string>(), 0f64, ptr::null_mut::<Zval>());
    arguments!(call, c"Sd|a", name, number, labels)?;
    let (_kept, metrics) = target(call)?;
    if let Some(series) = open(metrics, GAUGES, php::bytes(name), labels_of(labels))? {
        series.set(b"value", value(number));
    }
    Ok(())
}

pub(super) fn observe_histogram(call: &mut Call<'_>) -> Outcome {
    let (mut name, mut number, mut labels) = (ptr::null_mut::<zend_string>(), 0f64, ptr::null_mut::<Zval>());
    arguments!(call, c"Sd|a", name, number, labels)?;
    let (_kept, metrics) = target(call)?;
    let Some(series) = open(metrics, HISTOGRAMS, php::bytes(name), labels_of(labels))? else { return Ok(()) };
    // One count for each bucket alone: they are added up when somebody looks.
    let bucket = BOUNDS.iter().position(|bound| number <= *bound).unwrap_or(BOUNDS.len());
    let buckets = series.open(b"buckets");
    let count = buckets.get_index(bucket as i64).and_then(|count| count.long()).unwrap_or_default();
    buckets.set_index(bucket as i64, value(count + 1));
    let sum = series.get(b"sum").and_then(|sum| sum.double()).unwrap_or_default();
    series.set(b"sum", value(sum + number));
    series.set(b"count", value(series.get(b"count").and_then(|count| count.long()).unwrap_or_default() + 1));
    Ok(())
}

/// The entry of a series, made when it is new; none when there are too many. Labels may be objects: runs PHP code.
fn open(metrics: *mut zend_object, kind: Field, name: &[u8], labels: Zval) -> Outcome<Option<Table>> {
    let key = key(name, &labels)?;
    let families = kind.table(metrics);
    let known = families.get(name).is_some_and(|mut family| family.is_array() && Table::of(&mut family).get(&key).is_some());
    if !known {
        let labels = as_texts(labels)?;
        if SERIES.int(metrics) >= MAX_SERIES {
            DROPPED.add(metrics, 1);
            return Ok(None);
        }
        SERIES.add(metrics, 1);
        let entry = match kind.is_same(HISTOGRAMS) {
            false => map([("value", value(0i64)), ("labels", labels)]),
            true => {
                let none: Vec<i64> = vec![0; BOUNDS.len() + 1];
                map([("sum", value(0f64)), ("count", value(0i64)), ("labels", labels), ("buckets", value(none))])
            }
        };
        families.open(name).set(&key, entry);
    }
    Ok(Some(families.open(name).open(&key)))
}

/// The original's key: the name, and the MD5 of the JSON of the labels in order.
fn key(name: &[u8], labels: &Zval) -> Outcome<Vec<u8>> {
    const NO_LABELS: &[u8] = b"d751713988987e9331980363e24189ce";
    let mut key = name.to_vec();
    key.push(b'_');
    if items(labels).next().is_none() {
        key.extend_from_slice(NO_LABELS);
        return Ok(key);
    }
    let sorted = if items(labels).nth(1).is_some() { state::sorted_by_key(labels.shallow_clone()) } else { labels.shallow_clone() };
    let json = match php::json_encode(&sorted)? {
        Some(json) => json,
        None => state::json_lossy(&sorted, false)?,
    };
    key.extend_from_slice(state::md5(bytes(&json)).as_bytes());
    Ok(key)
}

/// What the application measured, and the servers of this process. Where both have a series, counters are added up, and
/// of the others the servers' own stands.
fn families(metrics: *mut zend_object, kind: Field) -> Outcome<Zval> {
    let mut families = kind.table(metrics).snapshot();
    for measure in measures::of_this_process() {
        let labels = measure.label.map_or_else(|| value(ZendEmptyArray), |(label, text)| map([(label, php::text(text))]));
        let key = key(measure.name.as_bytes(), &labels)?;
        let entry = match measure.number {
            Number::Counter(number) if kind.is_same(COUNTERS) => {
                let before = Table::of(&mut families).open(measure.name.as_bytes()).get(&key);
                let before = before.and_then(|mut entry| Table::of(&mut entry).get(b"value")).and_then(|value| value.long());
                map([("value", value(before.unwrap_or_default().saturating_add(number as i64))), ("labels", labels)])
            }
            Number::Gauge(number) if kind.is_same(GAUGES) => map([("value", value(number)), ("labels", labels)]),
            Number::Histogram(distribution) if kind.is_same(HISTOGRAMS) => {
                let buckets: Vec<i64> = distribution.buckets.iter().map(|count| *count as i64).collect();
                map([
                    ("sum", value(distribution.micros as f64 / 1e6)),
                    ("count", value(buckets.iter().sum::<i64>())),
                    ("labels", labels),
                    ("buckets", value(buckets)),
                ])
            }
            _ => continue,
        };
        Table::of(&mut families).open(measure.name.as_bytes()).set(&key, entry);
    }
    Ok(families)
}

/// What one line of the text says, added up where two sets of labels look the same in it.
enum Sample {
    Number(f64),
    Whole(i128),
    Histogram { buckets: [i64; BOUNDS.len() + 1], sum: f64, count: i64 },
}

impl Sample {
    fn of(series: Table, kind: Field) -> Self {
        if kind.is_same(HISTOGRAMS) {
            let mut buckets = [0; BOUNDS.len() + 1];
            let counts = series.get(b"buckets").unwrap_or_else(|| value(ZendEmptyArray));
            for (bucket, count) in buckets.iter_mut().zip(items(&counts)) {
                *bucket = count.long().unwrap_or_default();
            }
            let sum = series.get(b"sum").and_then(|sum| sum.double()).unwrap_or_default();
            return Self::Histogram { buckets, sum, count: series.get(b"count").and_then(|count| count.long()).unwrap_or_default() };
        }
        let number = series.get(b"value").unwrap_or_else(Zval::null);
        match number.long() {
            Some(whole) => Self::Whole(i128::from(whole)),
            None => Self::Number(number.double().unwrap_or_default()),
        }
    }

    fn merge(&mut self, other: Self, adds: bool) {
        match (&mut *self, other) {
            (Self::Histogram { buckets, sum, count }, Self::Histogram { buckets: more, sum: more_sum, count: more_count }) => {
                buckets.iter_mut().zip(more).for_each(|(bucket, more)| *bucket += more);
                *sum += more_sum;
                *count += more_count;
            }
            (Self::Whole(whole), Self::Whole(more)) if adds => *whole += more,
            (_, other) if adds => *self = Self::Number(self.float() + other.float()),
            (_, other) => *self = other,
        }
    }

    fn float(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Whole(whole) => *whole as f64,
            Self::Histogram { sum, .. } => *sum,
        }
    }
}

/// The server's; where none runs, the object's own.
fn uptime(metrics: *mut zend_object) -> f64 {
    measures::uptime().unwrap_or_else(|| monotonic() - START_TIME.float(metrics))
}

fn export(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let mut out = String::new();
    let uptime = uptime(this);
    let _ = writeln!(out, "# HELP {UPTIME} Server uptime in seconds\n# TYPE {UPTIME} gauge\n{UPTIME} {}", number(uptime));
    let mut names: HashSet<String> = HashSet::from([UPTIME.into()]);
    if DROPPED.int(this) > 0 {
        let dropped = DROPPED.int(this);
        let _ = writeln!(out, "\n# HELP {DROPPED_NAME} Counter metric\n# TYPE {DROPPED_NAME} counter\n{DROPPED_NAME} {dropped}");
        names.insert(DROPPED_NAME.into());
    }
    for (kind, title, suffixes) in
        [(COUNTERS, "Counter", &[""][..]), (GAUGES, "Gauge", &[""]), (HISTOGRAMS, "Histogram", &["", "_bucket", "_sum", "_count"])]
    {
        for (name, mut family) in Table::of(&mut families(this, kind)?).entries() {
            let name = unused(metric_name(bytes(&state::to_string(&name)?)), title, suffixes, &mut names);
            let samples = if family.is_array() { samples(Table::of(&mut family), kind)? } else { Vec::new() };
            let _ = writeln!(out, "\n# HELP {name} {title} metric\n# TYPE {name} {}", title.to_lowercase());
            samples.iter().for_each(|(labels, sample)| write_sample(&mut out, &name, labels, sample));
        }
    }
    *call.result = text(out);
    Ok(())
}

/// A name may stand for one family only: another kind of the same name gets its kind appended.
fn unused(mut name: String, title: &str, suffixes: &[&str], names: &mut HashSet<String>) -> String {
    while suffixes.iter().any(|suffix| names.contains(&format!("{name}{suffix}"))) {
        name.push('_');
        name.push_str(&title.to_lowercase());
    }
    names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    name
}

fn samples(family: Table, kind: Field) -> Outcome<Vec<(String, Sample)>> {
    let mut samples: Vec<(String, Sample)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for mut series in family.values().into_iter().filter(Zval::is_array) {
        let series = Table::of(&mut series);
        let sample = Sample::of(series, kind);
        let labels = labels(series.get(b"labels"), kind.is_same(HISTOGRAMS))?;
        match places.get(&labels) {
            Some(place) => samples[*place].1.merge(sample, !kind.is_same(GAUGES)),
            None => {
                places.insert(labels.clone(), samples.len());
                samples.push((labels, sample));
            }
        }
    }
    Ok(samples)
}

fn write_sample(out: &mut String, name: &str, labels: &str, sample: &Sample) {
    let braces = |labels: &str| if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = match sample {
        Sample::Whole(whole) => writeln!(out, "{name}{} {whole}", braces(labels)),
        Sample::Number(float) => writeln!(out, "{name}{} {}", braces(labels), number(*float)),
        Sample::Histogram { buckets, sum, count } => {
            let mut total = 0;
            let comma = if labels.is_empty() { "" } else { "," };
            for (bucket, bound) in buckets.iter().zip(BOUNDS.into_iter().chain([f64::INFINITY])) {
                total += bucket;
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {total}", number(bound));
            }
            writeln!(out, "{name}_sum{0} {1}\n{name}_count{0} {count}", braces(labels), number(*sum))
        }
    };
}

/// `a="1",b="2"`, in the order in which they were given.
fn labels(labels: Option<Zval>, is_histogram: bool) -> Outcome<String> {
    let Some(mut labels) = labels.filter(Zval::is_array) else { return Ok(String::new()) };
    let mut names = HashSet::new();
    // `le` is the label of a histogram's buckets.
    if is_histogram {
        names.insert("le".to_owned());
    }
    let mut parts = Vec::new();
    for (name, value) in Table::of(&mut labels).entries() {
        let mut name = label_name(bytes(&state::to_string(&name)?));
        while !names.insert(name.clone()) {
            name.push('_');
        }
        let value = String::from_utf8_lossy(bytes(&state::to_string(&value)?)).into_owned();
        parts.push(format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")));
    }
    Ok(parts.join(","))
}

/// What Prometheus does not allow in a name becomes `_`.
fn metric_name(name: &[u8]) -> String {
    clean(name, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

fn label_name(name: &[u8]) -> String {
    let name = clean(name, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // Two underscores in front are Prometheus's own.
    if name.starts_with("__") { format!("label{name}") } else { name }
}

fn clean(name: &[u8], is_allowed: impl Fn(u8) -> bool) -> String {
    let mut clean: String = name.iter().map(|byte| if is_allowed(*byte) { char::from(*byte) } else { '_' }).collect();
    if clean.is_empty() || clean.starts_with(|first: char| first.is_ascii_digit()) {
        clean.insert(0, '_');
    }
    clean
}

/// With all its digits.
fn number(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".into(),
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        number if number != 0.0 && !(1e-7..1e21).contains(&number.abs()) => format!("{number:e}"),
        number => number.to_string(),
    }
}

fn get_all(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = map([("counters", families(this, COUNTERS)?), ("gauges", families(this, GAUGES)?), ("histograms", histograms(this)?)]);
    Ok(())
}

/// In the original's shape, without observations: `values` is empty, and `buckets` says how many were at most as large.
fn histograms(metrics: *mut zend_object) -> Outcome<Zval> {
    let mut all = value(ZendEmptyArray);
    for (name, mut family) in Table::of(&mut families(metrics, HISTOGRAMS)?).entries() {
        let (name, mut shown) = (state::to_string(&name)?, value(ZendEmptyArray));
        let entries = if family.is_array() { Table::of(&mut family).entries() } else { Vec::new() };
        for (key, mut series) in entries.into_iter().filter(|(_, series)| series.is_array()) {
            let series = Table::of(&mut series);
            let Sample::Histogram { buckets, sum, count } = Sample::of(series, HISTOGRAMS) else { continue };
            let (mut cumulative, mut total) = (value(ZendEmptyArray), 0);
            for (bucket, bound) in buckets.iter().zip(BOUNDS.into_iter().chain([f64::INFINITY])) {
                total += bucket;
                Table::of(&mut cumulative).set(number(bound).as_bytes(), value(total));
            }
            let entry = map([
                ("values", value(ZendEmptyArray)),
                ("sum", value(sum)),
                ("count", value(count)),
                ("labels", series.get(b"labels").unwrap_or_else(|| value(ZendEmptyArray))),
                ("buckets", cumulative),
            ]);
            Table::of(&mut shown).set(bytes(&state::to_string(&key)?), entry);
        }
        Table::of(&mut all).set(bytes(&name), shown);
    }
    Ok(all)
}

fn export_json(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let data = map([
        ("uptime", value(uptime(this))),
        ("counters", families(this, COUNTERS)?),
        ("gauges", finite(Table::of(&mut families(this, GAUGES)?), b"value")?),
        ("histograms", finite(Table::of(&mut histograms(this)?), b"sum")?),
        ("timestamp", value(microtime())),
    ]);
    *call.result = state::json_lossy(&data, true)?;
    Ok(())
}

/// JSON has no infinity: such numbers are written as Prometheus writes them.
fn finite(families: Table, field: &[u8]) -> Outcome<Zval> {
    let mut all = families.snapshot();
    for (name, mut family) in families.entries() {
        let entries = if family.is_array() { Table::of(&mut family).entries() } else { Vec::new() };
        for (key, mut series) in entries.into_iter().filter(|(_, series)| series.is_array()) {
            let infinite = Table::of(&mut series).get(field).and_then(|value| value.double()).filter(|number| !number.is_finite());
            if let Some(infinite) = infinite {
                let (name, key) = (state::to_string(&name)?, state::to_string(&key)?);
                Table::of(&mut all).open(bytes(&name)).open(bytes(&key)).set(field, text(number(infinite)));
            }
        }
    }
    Ok(all)
}

fn reset(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    for families in [COUNTERS, GAUGES, HISTOGRAMS] {
        families.set(this, value(ZendEmptyArray));
    }
    SERIES.set(this, value(0i64));
    DROPPED.set(this, value(0i64));
    START_TIME.set(this, value(monotonic()));
    Ok(())
}
