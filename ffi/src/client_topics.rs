//! Topics of clients: what a program subscribes a client to and has it publish. What comes of it, events tell.

use crate::arguments::{bytes, out, slice, text};
use crate::clients::{Group, heartbus_clients};
use crate::event::heartbus_position;
use crate::handle;
use crate::status::{guard, heartbus_status};
use heartbus_core::error::{Error, ErrorKind};
use std::ffi::c_char;

/// Subscribes a client's first node to a topic, or with the levels + and # to all topics that match, over its connection and over each that
/// follows: a topic goes on behind the last message that was told. `since` NULL begins with what is published from now on; otherwise it
/// begins behind that position, with offset and epoch 0 with all that is kept, also where the client has subscribed already.
/// HEARTBUS_EVENT_CLIENT_SUBSCRIBED tells the server's answer, HEARTBUS_EVENT_CLIENT_SUBSCRIBE_REFUSED that it will not.
///
/// HEARTBUS_INVALID_ARGUMENT when it is no topic and no filter, or has wildcards and `since`; HEARTBUS_LIMIT when the client has
/// max_subscriptions; HEARTBUS_CLOSED when it will not connect again.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_subscribe(
    clients: *mut heartbus_clients,
    client_id: u64,
    filter: *const c_char,
    filter_len: usize,
    since: *const heartbus_position,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text and position, as the first page asks.
        let (filter, since) =
            unsafe { (text("filter", filter, filter_len)?, slice("since", since, usize::from(!since.is_null()))?.first().copied()) };
        group.client(client_id)?.subscribe(filter, since.map(Into::into))
    })
}

/// Nothing more is told of a topic or a filter, but for what waits to be polled, and for what is on its way through a filter.
///
/// HEARTBUS_NOT_FOUND when the client has not subscribed to it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_unsubscribe(
    clients: *mut heartbus_clients,
    client_id: u64,
    filter: *const c_char,
    filter_len: usize,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text, as the first page asks.
        let filter = unsafe { text("filter", filter, filter_len) }?;
        group.client(client_id)?.unsubscribe(filter)
    })
}

/// Publishes to a topic, in the name of the client's first node. Returns when it is queued. With a `number` other than 0 it is answered:
/// HEARTBUS_EVENT_CLIENT_PUBLISHED or HEARTBUS_EVENT_CLIENT_PUBLISH_REFUSED has it, unless the connection ends before. Without one only a refusal
/// is told.
///
/// As heartbus_client_send; HEARTBUS_INVALID_ARGUMENT also when nothing can be published under this name.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_publish(
    clients: *mut heartbus_clients,
    client_id: u64,
    topic: *const c_char,
    topic_len: usize,
    payload: *const c_char,
    payload_len: usize,
    number: u32,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text and bytes, as the first page asks.
        let (topic, payload) = unsafe { (text("topic", topic, topic_len)?, bytes("payload", payload, payload_len)?) };
        group.client(client_id)?.publish(topic, payload, Some(number).filter(|number| *number != 0))
    })
}

/// Behind which position a topic would go on, with this client or with another one: that of the last message that is polled or waits to be.
///
/// HEARTBUS_NOT_FOUND when the client has not subscribed to it by its name, or there was no answer yet.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_position(
    clients: *const heartbus_clients,
    client_id: u64,
    topic: *const c_char,
    topic_len: usize,
    position: *mut heartbus_position,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (topic, target) = unsafe { (text("topic", topic, topic_len)?, out("position", position)?) };
        let no_position = || Error::new(ErrorKind::NotFound, "The client has no position in this topic");
        target.write(group.client(client_id)?.position(topic).ok_or_else(no_position)?.into());
        Ok(())
    })
}
