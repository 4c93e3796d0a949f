//! Methods that only ask a server: one line declares each for both classes, `HeartbeatServer` and `Heartbus\\Bus`.
//!
//! Owns how PHP's arguments become a request. What becomes of a refusal is the class's own affair.

use crate::arguments;
use crate::declare::Declare;
use crate::php::{Call, Native, Outcome, bytes};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::ffi::zend_string;
use heartbus_core::service::{Reply, Request};
use std::ptr;

pub(crate) trait Asking: Native {
    /// `None`: it was refused, and the caller gets false.
    fn try_to(&self, request: &Request<'_>) -> Outcome<Option<Reply>>;

    fn count(&self, request: &Request<'_>) -> Outcome<usize>;
}

pub(crate) trait DeclareCalls: Sized {
    fn declare_calls<A: Asking>(self) -> Self;
}

impl DeclareCalls for ClassBuilder {
    fn declare_calls<A: Asking>(self) -> Self {
        self.declare("sendTo(string $nodeId, string $data, int $channelId = 0): bool", send_to::<A>)
            .declare("broadcast(string $data): int", |call| with_data::<A>(call, |data| Request::Broadcast { data }))
            .declare("disconnect(string $nodeId): bool", |call| with_node::<A>(call, |node| Request::Disconnect { node }))
    }
}

fn send_to<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut data, mut channel_id) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"SS|l", node_id, data, channel_id)?;
    let asked = call.held::<A>()?;
    let sent = match (std::str::from_utf8(bytes(node_id)), u32::try_from(channel_id)) {
        (Ok(node), Ok(channel)) => asked.try_to(&Request::SendTo { node, channel, data: bytes(data) })?,
        // An id that is not UTF-8 is nobody's.
        _ => None,
    };
    call.result.set_bool(sent.is_some());
    Ok(())
}

fn with_data<A: Asking>(call: &mut Call<'_>, request: impl for<'a> Fn(&'a [u8]) -> Request<'a>) -> Outcome {
    let mut data = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", data)?;
    let count = call.held::<A>()?.count(&request(bytes(data)))?;
    call.result.set_long(count as i64);
    Ok(())
}

fn with_node<A: Asking>(call: &mut Call<'_>, request: impl for<'a> Fn(&'a str) -> Request<'a>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let asked = call.held::<A>()?;
    let done = match std::str::from_utf8(bytes(node_id)) {
        Ok(node) => asked.try_to(&request(node))?,
        Err(_) => None,
    };
    call.result.set_bool(done.is_some());
    Ok(())
}
