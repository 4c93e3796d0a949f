//! Methods that only ask a server: one line declares each for both classes, `HeartbeatServer` and `Heartbus\\Bus`.
//!
//! Owns how PHP's arguments become a request. What becomes of a refusal is the class's own affair.

use crate::arguments;
use crate::asking::Asking;
use crate::declare::Declare;
use crate::php::{Call, Outcome, bytes};
use crate::topics::{DeclareTopics, node_ids, texts};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::Zval;
use heartbus_core::service::Request;
use std::ptr;

pub(crate) trait DeclareCalls: Sized {
    fn declare_calls<A: Asking>(self) -> Self;
}

impl DeclareCalls for ClassBuilder {
    fn declare_calls<A: Asking>(self) -> Self {
        self.declare("sendTo(string $nodeId, string $data, int $channelId = 0): bool", send_to::<A>)
            .declare("broadcast(string $data, array $except = []): int", broadcast::<A>)
            .declare("disconnect(string $nodeId): bool", |call| with_node::<A>(call, |node| Request::Disconnect { node }))
            .declare_topics::<A>()
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

fn broadcast<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let (mut data, mut except) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|a", data, except)?;
    let asked = call.held::<A>()?;
    let except = node_ids(except, || format!("{}::broadcast(): Argument #2 ($except)", A::NAME))?;
    let data = bytes(data);
    let count = match &texts(&except)[..] {
        // What engines of every version know.
        [] => asked.count(&Request::Broadcast { data })?,
        except => asked.count(&Request::BroadcastExcept { data, except: except.to_vec() })?,
    };
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
