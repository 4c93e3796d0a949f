//! The classes of the PHP library that need no engine, and its global functions. Their state is PHP's own: see `state`.

pub mod channel;
pub mod channel_scheduler;
pub mod config_validator;
mod connection_pool;
pub mod functions;
pub mod future;
pub mod heartbeat_monitor;
pub mod logger;
mod message_router;
mod metrics;
pub mod node_manager;
mod rate_limiter;
pub mod state;
mod tcp_multiplex_client;
mod tcp_multiplex_server;
pub mod waiting;

use ext_php_rs::error::Result;

/// After `Message` and `Node`.
pub fn register() -> Result<()> {
    future::register()?;
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
