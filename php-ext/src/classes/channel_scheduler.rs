//! `PfinalClub\AsyncioHeartbeat\Channel\ChannelScheduler`: the channels of an application, by their ids and by their nodes.

use super::channel;
use super::state::{Field, Table, bytes, items};
use crate::arguments;
use crate::config::DEFAULT_QUEUE_SIZE;
use crate::declare::Declare;
use crate::php::{self, Call, Outcome, Thrown, invoke, map, string, value};
use crate::running_server;
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Channel\ChannelScheduler";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const CHANNELS: Field = Field::new(0, c"channels");
const NODE_CHANNELS: Field = Field::new(1, c"nodeChannels");
const NEXT_CHANNEL_ID: Field = Field::new(2, c"nextChannelId");
const TOTAL_CREATED: Field = Field::new(3, c"totalChannelsCreated");
const TOTAL_CLOSED: Field = Field::new(4, c"totalChannelsClosed");

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare(r"createChannel(string $nodeId, int $maxQueueSize = 1000): PfinalClub\AsyncioHeartbeat\Channel\Channel", create_channel)
        .declare(r"getChannel(int $channelId): ?PfinalClub\AsyncioHeartbeat\Channel\Channel", get_channel)
        .declare("getNodeChannels(string $nodeId): array", get_node_channels)
        .declare(r"getNodeMainChannel(string $nodeId): ?PfinalClub\AsyncioHeartbeat\Channel\Channel", get_node_main_channel)
        .declare("closeChannel(int $channelId): void", close_channel)
        .declare("closeNodeChannels(string $nodeId): void", close_node_channels)
        .declare("hasNodeChannels(string $nodeId): bool", has_node_channels)
        .declare("getAllChannels(): array", get_all_channels)
        .declare("getActiveChannelCount(): int", get_active_channel_count)
        .declare("getActiveNodeCount(): int", get_active_node_count)
        .declare("cleanup(): int", cleanup)
        .declare("getStats(): array", get_stats)
        .declare("getStatsSummary(): array", get_stats_summary)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            CHANNELS.declare(class, "array", Some(value(ZendEmptyArray)));
            NODE_CHANNELS.declare(class, "array", Some(value(ZendEmptyArray)));
            NEXT_CHANNEL_ID.declare(class, "int", Some(value(1i64)));
            TOTAL_CREATED.declare(class, "int", Some(value(0i64)));
            TOTAL_CLOSED.declare(class, "int", Some(value(0i64)));
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

pub(crate) fn class() -> *mut zend_class_entry {
    CLASS.load(Ordering::Relaxed)
}

pub(crate) fn create() -> Outcome<Zval> {
    let mut scheduler = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut scheduler, class()) };
    if scheduler.is_object() { Ok(scheduler) } else { Err(Thrown) }
}

fn create_channel(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut max_queue_size) = (ptr::null_mut::<zend_string>(), DEFAULT_QUEUE_SIZE);
    arguments!(call, c"S|l", node_id, max_queue_size)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.create_channel(php::bytes(node_id), max_queue_size)?;
        return Ok(());
    }
    let id = NEXT_CHANNEL_ID.int(this);
    NEXT_CHANNEL_ID.add(this, 1);
    let channel = channel::create(id, string(node_id), max_queue_size)?;
    CHANNELS.table(this).set_index(id, channel.shallow_clone());
    NODE_CHANNELS.table(this).open(php::bytes(node_id)).set_index(id, channel.shallow_clone());
    TOTAL_CREATED.add(this, 1);
    *call.result = channel;
    Ok(())
}

fn get_channel(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let this = call.this();
    *call.result = match running_server::of(this)? {
        Some(live) => live.channel(id)?,
        None => CHANNELS.table(this).get_index(id).unwrap_or_else(Zval::null),
    };
    Ok(())
}

fn get_node_channels(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let this = call.this();
    *call.result = match running_server::of(this)? {
        Some(live) => live.node_channels(php::bytes(node_id))?,
        None => of_node(this, php::bytes(node_id)).unwrap_or_else(|| value(ZendEmptyArray)),
    };
    Ok(())
}

fn of_node(scheduler: *mut zend_object, node_id: &[u8]) -> Option<Zval> {
    NODE_CHANNELS.table(scheduler).get(node_id).filter(Zval::is_array)
}

fn get_node_main_channel(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let channels = invoke(&php::object(call.this()), c"getnodechannels", [string(node_id)])?;
    *call.result = items(&channels).next().map_or_else(Zval::null, Zval::shallow_clone);
    Ok(())
}

fn close_channel(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        return live.close_channel(id);
    }
    let channel = CHANNELS.table(this).get_index(id);
    if let Some(channel) = channel.as_ref().and_then(channel::of) {
        channel::shut(channel)?;
        // Whoever waited for it may have closed it here as well.
        if CHANNELS.table(this).get_index(id).is_some() {
            forget(this, id, channel)?;
            TOTAL_CLOSED.add(this, 1);
        }
    }
    Ok(())
}

fn forget(scheduler: *mut zend_object, id: i64, channel: *mut zend_object) -> Outcome {
    let node_id = channel::node_id(channel)?;
    CHANNELS.table(scheduler).remove_index(id);
    let nodes: Table = NODE_CHANNELS.table(scheduler);
    if nodes.get(bytes(&node_id)).is_some() {
        nodes.open(bytes(&node_id)).remove_index(id);
        if nodes.open(bytes(&node_id)).is_empty() {
            nodes.remove(bytes(&node_id));
        }
    }
    Ok(())
}

fn close_node_channels(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        return live.close_node_channels(php::bytes(node_id));
    }
    let Some(channels) = of_node(this, php::bytes(node_id)) else { return Ok(()) };
    for channel in items(&channels).filter_map(channel::of) {
        channel::shut(channel)?;
        let id = channel::id(channel)?;
        if CHANNELS.table(this).get_index(id).is_some() {
            forget(this, id, channel)?;
            TOTAL_CLOSED.add(this, 1);
        }
    }
    Ok(())
}

fn has_node_channels(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        call.result.set_bool(live.has_node(php::bytes(node_id))?);
        return Ok(());
    }
    let found = of_node(this, php::bytes(node_id));
    call.result.set_bool(found.as_ref().is_some_and(|channels| items(channels).next().is_some()));
    Ok(())
}

fn get_all_channels(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = match running_server::of(this)? {
        Some(live) => live.channels()?,
        None => CHANNELS.table(this).snapshot(),
    };
    Ok(())
}

fn get_active_channel_count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let count = running_server::of(this)?.map_or_else(|| Ok(CHANNELS.table(this).len()), |live| live.channel_count())?;
    call.result.set_long(count);
    Ok(())
}

fn get_active_node_count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let count = running_server::of(this)?.map_or_else(|| Ok(NODE_CHANNELS.table(this).len()), |live| live.node_count())?;
    call.result.set_long(count);
    Ok(())
}

fn cleanup(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        call.result.set_long(live.cleanup());
        return Ok(());
    }
    let mut cleaned = 0;
    for channel in CHANNELS.table(this).values() {
        if let Some(channel) = channel::of(&channel).filter(|channel| channel::closed(*channel)) {
            forget(this, channel::id(channel)?, channel)?;
            cleaned += 1;
        }
    }
    call.result.set_long(cleaned);
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = match running_server::of(this)? {
        Some(live) => live.channel_stats()?,
        None => stats(this)?,
    };
    Ok(())
}

fn stats(scheduler: *mut zend_object) -> Outcome<Zval> {
    let channels = CHANNELS.table(scheduler).values();
    let channels: Outcome<Vec<_>> = channels.iter().filter_map(channel::of).map(channel::stats).collect();
    Ok(map([
        ("active_channels", value(CHANNELS.table(scheduler).len())),
        ("active_nodes", value(NODE_CHANNELS.table(scheduler).len())),
        ("total_created", value(TOTAL_CREATED.int(scheduler))),
        ("total_closed", value(TOTAL_CLOSED.int(scheduler))),
        ("channels", value(channels?)),
    ]))
}

fn get_stats_summary(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.channel_summary()?;
        return Ok(());
    }
    let mut totals = [0i64; 4];
    for channel in CHANNELS.table(this).values().iter().filter_map(channel::of) {
        for (total, more) in totals.iter_mut().zip(channel::totals(channel)) {
            *total = total.wrapping_add(more);
        }
    }
    *call.result = map([
        ("active_channels", value(CHANNELS.table(this).len())),
        ("active_nodes", value(NODE_CHANNELS.table(this).len())),
        ("total_send_queue", value(totals[0])),
        ("total_recv_queue", value(totals[1])),
        ("total_send_count", value(totals[2])),
        ("total_recv_count", value(totals[3])),
    ]);
    Ok(())
}
