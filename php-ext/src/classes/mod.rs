//! The classes of the PHP library that need no engine, and its global functions. Their state is PHP's own: see `state`.

pub(crate) mod channel;
pub(crate) mod channel_scheduler;
pub(crate) mod config_validator;
mod connection_pool;
pub(crate) mod functions;
pub(crate) mod future;
pub(crate) mod heartbeat_monitor;
pub(crate) mod logger;
mod message_router;
mod metrics;
pub(crate) mod node_manager;
pub(crate) mod peer;
pub(crate) mod position;
mod rate_limiter;
pub(crate) mod state;
mod tcp_multiplex_client;
mod tcp_multiplex_server;
pub(crate) mod waiting;

use ext_php_rs::error::Result;

/// After `Message` and `Node`.
pub(crate) fn register() -> Result<()> {
    future::register()?;
    peer::register()?;
    position::register()?;
    channel::register()?;
    channel_scheduler::register()?;
    message_router::register()?;
    node_manager::register_class()?;
    heartbeat_monitor::register()?;
    connection_pool::register()?;
    tcp_multiplex_server::register()?;
    tcp_multiplex_client::register()?;
    config_validator::register()?;
    logger::register()?;
    metrics::register()?;
    rate_limiter::register()
}
