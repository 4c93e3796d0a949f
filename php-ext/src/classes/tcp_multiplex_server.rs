//! `PfinalClub\AsyncioHeartbeat\Server\TcpMultiplexServer`: channels that belong to Workerman's connections.

use super::channel_scheduler;
use super::state::{Field, bytes, catch_exception, items, property, require_instance, to_string};
use crate::arguments;
use crate::declare::Declare;
use crate::message;
use crate::php::{Call, Outcome, invoke, map, string, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;

const CONNECTION: &std::ffi::CStr = c"Workerman\\Connection\\TcpConnection";

const SCHEDULER: Field = Field::new(0, c"scheduler");
const CONNECTION_CHANNELS: Field = Field::new(1, c"connectionChannels");

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Server\TcpMultiplexServer")
        .declare("__construct()", construct)
        .declare(r"createChannel(Workerman\Connection\TcpConnection $connection, string $nodeId): int", create_channel)
        .declare(r"getScheduler(): PfinalClub\AsyncioHeartbeat\Channel\ChannelScheduler", get_scheduler)
        .declare(
            r"sendToChannel(int $channelId, PfinalClub\AsyncioHeartbeat\Protocol\Message $message, Workerman\Connection\TcpConnection $connection): bool",
            send_to_channel,
        )
        .declare("closeConnectionChannels(int $connectionId): void", close_connection_channels)
        .declare("getConnectionChannelCount(int $connectionId): int", get_connection_channel_count)
        .declare("getStats(): array", get_stats)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            SCHEDULER.declare(class, channel_scheduler::NAME, None);
            CONNECTION_CHANNELS.declare(class, "array", Some(value(ZendEmptyArray)));
        })
        .register()
}

fn construct(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    SCHEDULER.set(call.this(), channel_scheduler::create()?);
    Ok(())
}

fn create_channel(call: &mut Call<'_>) -> Outcome {
    let (mut connection, mut node_id) = (ptr::null_mut::<Zval>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"zS", connection, node_id)?;
    let connection = require_instance(connection, 1, CONNECTION)?;
    let this = call.this();
    let channel = invoke(&SCHEDULER.object(this)?, c"createchannel", [string(node_id)])?;
    let connection_id = property(&connection, "id")?;
    let id = property(&channel, "id")?;
    let key = to_string(&connection_id)?;
    let channels = CONNECTION_CHANNELS.table(this).open(bytes(&key));
    channels.set_index(id.long().unwrap_or_default(), channel);
    *call.result = id;
    Ok(())
}

fn get_scheduler(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = SCHEDULER.object(call.this())?;
    Ok(())
}

fn send_to_channel(call: &mut Call<'_>) -> Outcome {
    let (mut id, mut message, class, mut connection) = (0i64, ptr::null_mut::<Zval>(), message::class(), ptr::null_mut::<Zval>());
    call.parse(c"lOz", [(&raw mut id).cast(), (&raw mut message).cast(), class.cast(), (&raw mut connection).cast()])?;
    let connection = require_instance(connection, 3, CONNECTION)?;
    // SAFETY: an argument of this call.
    let message = unsafe { (*message).dereference() };
    let sent = invoke(message, c"encode", []).and_then(|frame| invoke(&connection, c"send", [frame]));
    let sent = catch_exception(sent)?;
    call.result.set_bool(sent.is_some());
    Ok(())
}

fn close_connection_channels(call: &mut Call<'_>) -> Outcome {
    let mut connection_id = 0i64;
    arguments!(call, c"l", connection_id)?;
    let this = call.this();
    let Some(channels) = CONNECTION_CHANNELS.table(this).get_index(connection_id) else { return Ok(()) };
    let scheduler = SCHEDULER.object(this)?;
    for channel in items(&channels) {
        invoke(&scheduler, c"closechannel", [property(channel, "id")?])?;
    }
    CONNECTION_CHANNELS.table(this).remove_index(connection_id);
    Ok(())
}

fn get_connection_channel_count(call: &mut Call<'_>) -> Outcome {
    let mut connection_id = 0i64;
    arguments!(call, c"l", connection_id)?;
    let channels = CONNECTION_CHANNELS.table(call.this()).get_index(connection_id);
    call.result.set_long(channels.map_or(0, |channels| items(&channels).count() as i64));
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let scheduler_stats = invoke(&SCHEDULER.object(this)?, c"getstats", [])?;
    let connections = CONNECTION_CHANNELS.table(this).len();
    *call.result = map([("connections_with_channels", value(connections)), ("scheduler_stats", scheduler_stats)]);
    Ok(())
}
