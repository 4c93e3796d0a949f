//! `PfinalClub\AsyncioHeartbeat\Client\TcpMultiplexClient`: channels by ids that the application gives.

use super::channel;
use super::state::Field;
use crate::arguments;
use crate::config::DEFAULT_QUEUE_SIZE;
use crate::declare::Declare;
use crate::php::{Call, Outcome, string, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;

const CHANNELS: Field = Field::new(0, c"channels");

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Client\TcpMultiplexClient")
        .declare(r"createChannel(int $channelId, string $nodeId): PfinalClub\AsyncioHeartbeat\Channel\Channel", create_channel)
        .declare(r"getChannel(int $channelId): ?PfinalClub\AsyncioHeartbeat\Channel\Channel", get_channel)
        .declare("closeChannel(int $channelId): void", close_channel)
        .declare("closeAll(): void", close_all)
        .declare("getAllChannels(): array", get_all_channels)
        .declare("getChannelCount(): int", get_channel_count)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            CHANNELS.declare(class, "array", Some(value(ZendEmptyArray)));
        })
        .register()
}

fn create_channel(call: &mut Call<'_>) -> Outcome {
    let (mut id, mut node_id) = (0i64, ptr::null_mut::<zend_string>());
    arguments!(call, c"lS", id, node_id)?;
    let channel = channel::create(id, string(node_id), DEFAULT_QUEUE_SIZE)?;
    CHANNELS.table(call.this()).set_index(id, channel.shallow_clone());
    *call.result = channel;
    Ok(())
}

fn get_channel(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    *call.result = CHANNELS.table(call.this()).get_index(id).unwrap_or_else(Zval::null);
    Ok(())
}

fn close_channel(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let this = call.this();
    let channel = CHANNELS.table(this).get_index(id);
    if let Some(channel) = channel.as_ref().and_then(channel::of) {
        channel::shut(channel)?;
        CHANNELS.table(this).remove_index(id);
    }
    Ok(())
}

fn close_all(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    for channel in CHANNELS.table(this).values().iter().filter_map(channel::of) {
        channel::shut(channel)?;
    }
    CHANNELS.set(this, value(ZendEmptyArray));
    Ok(())
}

fn get_all_channels(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = CHANNELS.table(call.this()).snapshot();
    Ok(())
}

fn get_channel_count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let count = CHANNELS.table(call.this()).len();
    call.result.set_long(count);
    Ok(())
}
