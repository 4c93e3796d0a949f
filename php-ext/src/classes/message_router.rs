//! `PfinalClub\AsyncioHeartbeat\Channel\MessageRouter`: brings messages to channels, or to handlers of their types.

use super::channel_scheduler;
use super::state::{self, Field, bytes, catch_exception, items};
use crate::arguments;
use crate::declare::Declare;
use crate::message::{self, Fields};
use crate::php::{self, Call, Callable, Outcome, invoke, map, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;

const ROUTES: Field = Field::new(0, c"routes");
const HANDLERS: Field = Field::new(1, c"handlers");
const TOTAL_ROUTED: Field = Field::new(2, c"totalRouted");
const TOTAL_FAILED: Field = Field::new(3, c"totalFailed");
const SCHEDULER: Field = Field::new(4, c"scheduler");

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Channel\MessageRouter")
        .declare(r"__construct(PfinalClub\AsyncioHeartbeat\Channel\ChannelScheduler $scheduler)", construct)
        .declare(r"route(PfinalClub\AsyncioHeartbeat\Protocol\Message $message): bool", route)
        .declare(r"broadcast(string $nodeId, PfinalClub\AsyncioHeartbeat\Protocol\Message $message): int", broadcast)
        .declare(r"broadcastAll(PfinalClub\AsyncioHeartbeat\Protocol\Message $message): int", broadcast_all)
        .declare("registerHandler(int $messageType, callable $handler): void", register_handler)
        .declare("unregisterHandler(int $messageType): void", unregister_handler)
        .declare("addRoute(string $pattern, int $channelId): void", add_route)
        .declare("removeRoute(string $pattern): void", remove_route)
        .declare("matchRoute(string $key): ?int", match_route)
        .declare("getStats(): array", get_stats)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            ROUTES.declare(class, "array", Some(value(ZendEmptyArray)));
            HANDLERS.declare(class, "array", Some(value(ZendEmptyArray)));
            TOTAL_ROUTED.declare(class, "int", Some(value(0i64)));
            TOTAL_FAILED.declare(class, "int", Some(value(0i64)));
            SCHEDULER.declare(class, channel_scheduler::NAME, None);
        })
        .register()
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut scheduler, class) = (ptr::null_mut::<Zval>(), channel_scheduler::class());
    call.parse(c"O", [(&raw mut scheduler).cast(), class.cast()])?;
    // SAFETY: an argument of this call.
    SCHEDULER.set(call.this(), unsafe { (*scheduler).dereference() }.shallow_clone());
    Ok(())
}

fn route(call: &mut Call<'_>) -> Outcome {
    let (mut message, class) = (ptr::null_mut::<Zval>(), message::class());
    call.parse(c"O", [(&raw mut message).cast(), class.cast()])?;
    // SAFETY: an argument of this call.
    let message = unsafe { (*message).dereference() };
    let this = call.this();
    let routed = catch_exception(arrives(this, message))?.unwrap_or(false);
    if routed {
        TOTAL_ROUTED.add(this, 1);
    } else {
        TOTAL_FAILED.add(this, 1);
    }
    call.result.set_bool(routed);
    Ok(())
}

fn arrives(router: *mut zend_object, message: &Zval) -> Outcome<bool> {
    let Fields { kind, payload, channel_id } = fields(message)?;
    if channel_id > 0 {
        let channel = invoke(&SCHEDULER.object(router)?, c"getchannel", [value(channel_id)])?;
        if channel.is_object() && !invoke(&channel, c"isclosed", [])?.is_true() {
            return put(&channel, payload);
        }
    }
    match HANDLERS.table(router).get_index(kind) {
        Some(handler) => php::call(&handler, [message.shallow_clone()]).map(|_| true),
        None => Ok(false),
    }
}

fn fields(message: &Zval) -> Outcome<Fields> {
    Fields::of(message.object().map_or(ptr::null_mut(), |object| ptr::from_ref(object).cast_mut()))
}

/// A full queue drops its oldest.
fn put(channel: &Zval, payload: Zval) -> Outcome<bool> {
    Ok(invoke(channel, c"tryputrecv", [payload, value(true)])?.is_true())
}

fn broadcast(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut message, class) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>(), message::class());
    call.parse(c"SO", [(&raw mut node_id).cast(), (&raw mut message).cast(), class.cast()])?;
    let scheduler = SCHEDULER.object(call.this())?;
    let channels = invoke(&scheduler, c"getnodechannels", [php::string(node_id)])?;
    // SAFETY: an argument of this call.
    put_into_all(call, &channels, unsafe { (*message).dereference() })
}

fn broadcast_all(call: &mut Call<'_>) -> Outcome {
    let (mut message, class) = (ptr::null_mut::<Zval>(), message::class());
    call.parse(c"O", [(&raw mut message).cast(), class.cast()])?;
    let scheduler = SCHEDULER.object(call.this())?;
    let channels = invoke(&scheduler, c"getallchannels", [])?;
    // SAFETY: an argument of this call.
    put_into_all(call, &channels, unsafe { (*message).dereference() })
}

fn put_into_all(call: &mut Call<'_>, channels: &Zval, message: &Zval) -> Outcome {
    let mut count = 0;
    for channel in items(channels).filter(|channel| channel.is_object()) {
        if invoke(channel, c"isclosed", [])?.is_true() {
            continue;
        }
        let payload = fields(message)?.payload;
        count += i64::from(catch_exception(put(channel, payload))? == Some(true));
    }
    TOTAL_ROUTED.add(call.this(), count);
    call.result.set_long(count);
    Ok(())
}

fn register_handler(call: &mut Call<'_>) -> Outcome {
    let (mut kind, mut handler) = (0i64, ptr::null_mut::<Zval>());
    arguments!(call, c"lz", kind, handler)?;
    let handler = Callable::new(handler, 2)?.zval().shallow_clone();
    HANDLERS.table(call.this()).set_index(kind, handler);
    Ok(())
}

fn unregister_handler(call: &mut Call<'_>) -> Outcome {
    let mut kind = 0i64;
    arguments!(call, c"l", kind)?;
    HANDLERS.table(call.this()).remove_index(kind);
    Ok(())
}

fn add_route(call: &mut Call<'_>) -> Outcome {
    let (mut pattern, mut channel_id) = (ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"Sl", pattern, channel_id)?;
    ROUTES.table(call.this()).set(php::bytes(pattern), value(channel_id));
    Ok(())
}

fn remove_route(call: &mut Call<'_>) -> Outcome {
    let mut pattern = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", pattern)?;
    ROUTES.table(call.this()).remove(php::bytes(pattern));
    Ok(())
}

/// The channel of the first pattern that fits, in the order in which they were added.
fn match_route(call: &mut Call<'_>) -> Outcome {
    let mut key = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", key)?;
    let key = state::c_string(php::bytes(key));
    let routes = ROUTES.table(call.this());
    let fits = |pattern: &[u8]| {
        let pattern = state::c_string(pattern);
        // SAFETY: both texts end with a NUL.
        unsafe { libc::fnmatch(pattern.as_ptr(), key.as_ptr(), 0) == 0 }
    };
    for (pattern, channel_id) in routes.entries() {
        if fits(bytes(&state::to_string(&pattern)?)) {
            *call.result = channel_id;
            break;
        }
    }
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = map([
        ("total_routed", value(TOTAL_ROUTED.int(this))),
        ("total_failed", value(TOTAL_FAILED.int(this))),
        ("handlers_count", value(HANDLERS.table(this).len())),
        ("routes_count", value(ROUTES.table(this).len())),
    ]);
    Ok(())
}
