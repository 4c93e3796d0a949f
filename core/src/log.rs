//! Log messages on their way to the host: the engine's `tracing` events as records, and the bounded queue in which they wait.
//!
//! Knows no target. Which messages are wanted, where they go and how a line looks is the business of the bindings.

mod quota;

use crate::descriptor::lift;
use crate::error::{Error, ErrorKind};
use crate::process;
use crate::text::printable;
use crate::wire::php_json;
use quota::Quotas;
use rustix::event::{EventfdFlags, eventfd};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// One log message. Nothing in it moves a cursor or begins a line, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it happened, which may be long before anybody reads of it.
    pub time: SystemTime,
    pub level: Level,
    pub message: String,
    /// What belongs to it, as the inside of a JSON object: `"port":9501,"error":"..."`. Often empty.
    pub context: String,
    /// Which client it is about, 0 when none.
    pub client_id: u64,
    /// Which of the host's servers or groups of clients it is about, as [`within`] was told; 0 when nobody was.
    pub origin: u64,
}

thread_local! {
    static ORIGIN: Cell<u64> = const { Cell::new(0) };
}

/// Messages of this thread carry this origin until the result is dropped, and so do those of the threads that are started meanwhile,
/// all their life: a host with several servers can tell them apart.
pub fn within(origin: u64) -> Within {
    Within { before: ORIGIN.replace(origin), stays: PhantomData }
}

/// What the messages of this thread carry.
pub fn origin() -> u64 {
    ORIGIN.get()
}

/// Until this is dropped; on the thread that made it.
#[must_use]
pub struct Within {
    before: u64,
    stays: PhantomData<*const ()>,
}

impl Drop for Within {
    fn drop(&mut self) {
        ORIGIN.set(self.before);
    }
}

/// Longest message, and longest text that belongs to one, in bytes: a stranger may have written it.
const MAX_TEXT: usize = 1000;

impl Record {
    pub fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.open_group("");
        let message = match cut(&fields.message) {
            Some(start) => format!("{start}..."),
            None => fields.message,
        };
        // A stranger may have written some of it.
        let message = printable(&message).into_owned();
        Self {
            time: SystemTime::now(),
            level: *event.metadata().level(),
            message,
            context: fields.context,
            client_id: fields.client_id,
            origin: origin(),
        }
    }

    fn left_out((level, of, count): (Level, String, u64)) -> Self {
        let mut fields = Fields::default();
        fields.member("of");
        fields.json(&of);
        fields.member("count");
        fields.context.push_str(&count.to_string());
        Self { time: SystemTime::now(), level, message: "Log messages left out".into(), context: fields.context, client_id: 0, origin: 0 }
    }

    /// What it is about, without what is special this time.
    fn subject(self) -> String {
        match self.message.split_once(": ") {
            Some((subject, _)) => subject.to_owned(),
            None => self.message,
        }
    }
}

/// Of all lines of the process.
static QUOTAS: Quotas = Quotas::new();
/// Their time begins with the first line.
static BEGUN: OnceLock<Instant> = OnceLock::new();

/// The counts of this process, and the time in microseconds that they are told.
fn quotas() -> (&'static Quotas, u64) {
    QUOTAS.belong_to(process::id());
    (&QUOTAS, BEGUN.get_or_init(Instant::now).elapsed().as_micros() as u64)
}

/// What is to be written for an event: its record, unless its place in the code has written as much as it may in this second;
/// and before it, how many were left out in seconds that are over.
pub fn records(event: &Event<'_>) -> Vec<Record> {
    let line = event.metadata();
    // The hub counts its own, for each thread; and what counts others is not counted.
    if module_path!() == line.target() || crate::hub::COUNTS_ITS_LINES.contains(&line.target()) {
        return vec![Record::of(event)];
    }
    let (quotas, now) = quotas();
    if !quotas.may(line, now, || Record::of(event).subject()) {
        return Vec::new();
    }
    let mut records: Vec<Record> = quotas.take_left_out(now, false).into_iter().map(Record::left_out).collect();
    records.push(Record::of(event));
    records
}

/// Tells what was left out in seconds that are over; `all`: in this one as well. To be called now and then, and at the end.
pub fn tell_left_out(all: bool) {
    let (quotas, now) = quotas();
    for (level, of, count) in quotas.take_left_out(now, all) {
        match level {
            Level::ERROR => tracing::error!(of, count, "Log messages left out"),
            Level::WARN => tracing::warn!(of, count, "Log messages left out"),
            Level::INFO => tracing::info!(of, count, "Log messages left out"),
            _ => tracing::debug!(of, count, "Log messages left out"),
        }
    }
}

/// As much of a text as is wanted; none when that is all.
fn cut(text: &str) -> Option<&str> {
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end))?;
    (text.len() > MAX_TEXT).then(|| &text[..end])
}

/// Reads the fields of a message. `group.name` becomes the member `name` of an object `group`; those of a group stand together.
#[derive(Default)]
struct Fields {
    message: String,
    context: String,
    group: &'static str,
    client_id: u64,
}

impl Fields {
    fn key(&mut self, field: &Field) {
        let (group, name) = field.name().split_once('.').unwrap_or(("", field.name()));
        self.open_group(group);
        self.member(name);
    }

    /// Closes the one that is open, unless it is the same.
    fn open_group(&mut self, group: &'static str) {
        if group == self.group {
            return;
        }
        if !self.group.is_empty() {
            self.context.push('}');
        }
        self.group = group;
        if !group.is_empty() {
            self.member(group);
            self.context.push('{');
        }
    }

    fn member(&mut self, name: &str) {
        if !self.context.is_empty() && !self.context.ends_with('{') {
            self.context.push(',');
        }
        self.json(name);
        self.context.push(':');
    }

    fn json(&mut self, text: &str) {
        let mut quoted = Vec::new();
        match cut(text) {
            Some(start) => php_json::write_str(&mut quoted, &format!("{start}...")),
            None => php_json::write_str(&mut quoted, text),
        };
        // The one control character that JSON leaves as it is.
        self.context.push_str(&String::from_utf8_lossy(&quoted).replace('\x7f', "\\u007f"));
    }

    fn number(&mut self, field: &Field, number: impl ToString) {
        self.key(field);
        self.context.push_str(&number.to_string());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.record_str(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // A field may be called `message` too; the message itself comes formatted, through `record_debug`.
        self.key(field);
        self.json(value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "client_id" {
            self.client_id = value;
        }
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no other floats.
        if value.is_finite() { self.number(field, value) } else { self.record_str(field, &value.to_string()) }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }
}

/// Records that wait for a host, and a descriptor to wait for them on. Beyond its bound the oldest are dropped, and counted.
pub struct LogQueue {
    bound: usize,
    waiting: Mutex<WaitingLines>,
    fd: OwnedFd,
}

#[derive(Default)]
struct WaitingLines {
    records: VecDeque<Record>,
    dropped: u64,
}

impl LogQueue {
    /// # Errors
    /// [`ErrorKind::Io`] when no descriptor is left.
    pub fn new(bound: usize) -> Result<Self, Error> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(lift)
            .map_err(|error| Error::new(ErrorKind::Io, format!("Cannot wait for log messages: {error}")))?;
        Ok(Self { bound, waiting: Mutex::default(), fd })
    }

    /// Readable while records wait.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes the descriptor readable until it is emptied next, whether records wait or not.
    pub fn wake(&self) {
        let _waiting = self.lock();
        self.make_readable();
    }

    pub fn push(&self, record: Record) {
        let mut waiting = self.lock();
        if waiting.records.len() >= self.bound {
            waiting.records.pop_front();
            waiting.dropped += 1;
        }
        waiting.records.push_back(record);
        if waiting.records.len() == 1 {
            self.make_readable();
        }
    }

    /// Records that wait, and one more where some were dropped.
    pub fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.records.len() + usize::from(waiting.dropped > 0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn make_readable(&self) {
        // Any number but 0 will do, and what does not fit any more is readable already.
        let _ = rustix::io::write(&self.fd, &[1; 8]);
    }

    /// The oldest record. Where some were dropped, a record that says so comes first.
    pub fn pop(&self) -> Option<Record> {
        let mut waiting = self.lock();
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            let message = format!("{dropped} log messages were dropped: the logger is too slow for them");
            return Some(Record { time: SystemTime::now(), level: Level::WARN, message, context: String::new(), client_id: 0, origin: 0 });
        }
        let record = waiting.records.pop_front();
        if waiting.records.is_empty() {
            // Fails when it was not readable.
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
        record
    }

    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::Arc;
    use tracing::span::{Attributes, Id};
    use tracing::{Metadata, Subscriber};

    struct Collect(Arc<LogQueue>);

    impl Subscriber for Collect {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            self.0.push(Record::of(event));
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn collected(log: impl FnOnce()) -> Arc<LogQueue> {
        let queue = Arc::new(LogQueue::new(3).unwrap());
        tracing::subscriber::with_default(Collect(queue.clone()), log);
        queue
    }

    fn is_readable(queue: &LogQueue) -> bool {
        poll(&mut [PollFd::new(&queue.as_fd(), PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn the_fields_of_a_message_become_the_inside_of_a_json_object() {
        let before = SystemTime::now();
        let queue = collected(|| tracing::error!(host = %"a\"b", port = 9501, up = true, load = 1.5, odd = f64::NAN, "Lost {}", 7));
        let context = r#""host":"a\"b","port":9501,"up":true,"load":1.5,"odd":"NaN""#;
        let record = queue.pop().unwrap();
        assert_eq!((record.level, record.message, record.context), (Level::ERROR, "Lost 7".into(), context.into()));
        assert!((before..=SystemTime::now()).contains(&record.time));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_message_about_a_client_says_which() {
        let queue = collected(|| {
            tracing::info!(client_id = 7u64, "Connected");
            tracing::info!(client = 8, "Connected");
        });
        let records = [queue.pop(), queue.pop()].map(|record| record.map(|record| (record.client_id, record.context)));
        assert_eq!(records, [Some((7, r#""client_id":7"#.into())), Some((0, r#""client":8"#.into()))]);
    }

    #[test]
    fn fields_with_a_dot_become_objects() {
        let queue = collected(|| {
            tracing::info!(nodes.total = 1, nodes.online = 2, plain = "{", memory.peak = 3, "Numbers");
            tracing::info!(a.b = "x", "One");
        });
        let contexts = [queue.pop(), queue.pop()].map(|record| record.unwrap().context);
        assert_eq!(contexts, [r#""nodes":{"total":1,"online":2},"plain":"{","memory":{"peak":3}"#, r#""a":{"b":"x"}"#]);
    }

    #[test]
    fn texts_that_strangers_write_have_a_bound() {
        let long = format!("{}é{}", "x".repeat(MAX_TEXT - 1), "y".repeat(1_000_000));
        let record = collected(|| tracing::info!(long, "{long}")).pop().unwrap();
        let kept = format!("{}...", "x".repeat(MAX_TEXT - 1));
        assert_eq!((record.message, record.context), (kept.clone(), format!(r#""long":"{kept}""#)));
        let whole = "x".repeat(MAX_TEXT);
        assert_eq!(collected(|| tracing::info!("{whole}")).pop().unwrap().message, whole);
    }

    #[test]
    fn what_a_stranger_wrote_begins_no_line_and_moves_no_cursor() {
        let name = "n\r\n[ERROR] all is lost \u{1b}[2J\u{7f}\u{9b}31m\u{202e}";
        let record = collected(|| tracing::info!(name, host = %name, debugged = ?name, "Hello {name}")).pop().unwrap();
        assert_eq!(record.message, r"Hello n\r\n[ERROR] all is lost \u001b[2J\u007f\u009b31m\u202e");
        let text = r#""n\r\n[ERROR] all is lost \u001b[2J\u007f\u009b31m\u202e""#;
        assert!(record.context.starts_with(&format!(r#""name":{text},"host":{text},"debugged":"#)), "{}", record.context);
        assert!(!record.context.contains(|character: char| character.is_control() || !character.is_ascii()), "{}", record.context);
    }

    #[test]
    fn the_descriptor_is_readable_while_records_wait() {
        let queue = collected(|| tracing::info!("one"));
        assert!(is_readable(&queue));
        queue.pop();
        assert!(!is_readable(&queue));
        queue.wake();
        assert!(is_readable(&queue));
        assert_eq!((queue.pop(), is_readable(&queue)), (None, false));
    }

    #[test]
    fn a_record_carries_the_origin_of_its_thread() {
        let queue = collected(|| {
            tracing::info!("none");
            let outer = within(1);
            {
                let _inner = within(2);
                tracing::info!("two");
            }
            tracing::info!("one");
            drop(outer);
        });
        let origins: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|record| record.origin).collect();
        assert_eq!((origins, origin()), (vec![0, 2, 1], 0));
    }

    #[test]
    fn beyond_its_bound_the_oldest_are_dropped_and_that_is_said_first() {
        let queue = collected(|| (1..=5).for_each(|n| tracing::info!("{n}")));
        assert_eq!(queue.len(), 4, "three, and what says that there were more");
        let mut messages: Vec<String> = std::iter::from_fn(|| queue.pop()).map(|record| record.message).collect();
        assert_eq!(messages.remove(0), "2 log messages were dropped: the logger is too slow for them");
        assert_eq!(messages, ["3", "4", "5"]);
        assert!(!is_readable(&queue));
    }
}
