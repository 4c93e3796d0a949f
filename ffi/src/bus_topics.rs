//! Topics for a program that is no server: it subscribes over a bus handle, and polls that.

use crate::arguments::{out, slice, text};
use crate::bus::{SharedBus, heartbus_bus};
use crate::bus_feed::{Begun, FeedTeller};
use crate::event::{heartbus_event, heartbus_position};
use crate::handle;
use crate::status::{guard, heartbus_status};
use heartbus_core::error::{Error, ErrorKind};
use std::ffi::{c_char, c_int};

fn begun(bus: &SharedBus) -> Result<Begun, Error> {
    bus.topics.begun(&bus.path)
}

/// Lets this program have what is published from now on to the topics that a filter matches, as HEARTBUS_EVENT_MESSAGE of
/// heartbus_bus_poll: each publication once, however many filters match it, in the order of its topic. Returns when the server has said that
/// it does, within the handle's timeout. The topic `$nodes` tells which nodes come and go. Subscriptions come back by themselves when the
/// connection was lost: a topic goes on behind its last message, as far as the server keeps it, and of a filter HEARTBUS_EVENT_MISSED is told.
/// Nothing waits for this program: when it does not poll, publications are dropped, which HEARTBUS_EVENT_MISSED tells. A filter that is there
/// already stays.
///
/// HEARTBUS_INVALID_ARGUMENT when it is no filter, HEARTBUS_LIMIT when there are too many topics, or of these, HEARTBUS_PROTOCOL when the
/// server is older.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_subscribe_topics(
    bus: *mut heartbus_bus,
    filter: *const c_char,
    filter_len: usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<SharedBus>(bus)?;
        // SAFETY: the caller's text, as the first page asks.
        let filter = unsafe { text("filter", filter, filter_len) }?;
        begun(&object)?.feed.subscribe(filter, None, object.timeout)
    })
}

/// As heartbus_bus_subscribe_topics for one topic, behind the position `since`, with offset and epoch 0 with all that is kept: what the server
/// keeps comes first, once and in order, then what is published. HEARTBUS_EVENT_MISSED in front of it tells that something is missing. A topic
/// that is there already begins anew there. `since` NULL is the same as heartbus_bus_subscribe_topics.
///
/// HEARTBUS_INVALID_ARGUMENT also when it has wildcards and `since`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_subscribe_topics_since(
    bus: *mut heartbus_bus,
    filter: *const c_char,
    filter_len: usize,
    since: *const heartbus_position,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<SharedBus>(bus)?;
        // SAFETY: the caller's text and position, as the first page asks.
        let (filter, since) =
            unsafe { (text("filter", filter, filter_len)?, slice("since", since, usize::from(!since.is_null()))?.first().copied()) };
        begun(&object)?.feed.subscribe(filter, since.map(Into::into), object.timeout)
    })
}

/// Ends what heartbus_bus_subscribe_topics has begun. What waits already is still told.
///
/// HEARTBUS_NOT_FOUND when there is no such filter.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_unsubscribe_topics(
    bus: *mut heartbus_bus,
    filter: *const c_char,
    filter_len: usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<SharedBus>(bus)?;
        // SAFETY: the caller's text, as the first page asks.
        let was_there = begun(&object)?.feed.unsubscribe(unsafe { text("filter", filter, filter_len) }?)?;
        if was_there { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, "There is no such subscription")) }
    })
}

/// A descriptor that is readable while events wait for heartbus_bus_poll, as heartbus_server_fd is for heartbus_server_poll.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_fd(bus: *const heartbus_bus, fd: *mut c_int) -> heartbus_status {
    guard(|| {
        let object = handle::get::<SharedBus>(bus)?;
        // SAFETY: the place for the result, as the first page asks.
        let target = unsafe { out("fd", fd) }?;
        target.write(begun(&object)?.queue.fd());
        Ok(())
    })
}

/// As heartbus_server_poll, of what heartbus_bus_subscribe_topics has asked for. Other calls of this handle need not wait for it.
///
/// HEARTBUS_CLOSED when another thread has freed it, HEARTBUS_INVALID_ARGUMENT when `capacity` is 0 or another thread is polling.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_poll(
    bus: *mut heartbus_bus,
    events: *mut heartbus_event,
    capacity: usize,
    timeout_ms: i32,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get_to_poll::<SharedBus>(bus)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        unsafe { begun(&object)?.queue.poll_into(&FeedTeller, events, capacity, timeout_ms, count) }
    })
}
