//! Heartbus: one engine that keeps a million nodes connected, knows within a tenth of a second which of them are
//! alive, and moves messages between them and the applications that own them.
//!
//! Layers, top to bottom; imports go down only:
//!
//! - [`engine`], [`bus`], [`service`], [`inbox`], [`event`], [`error`], [`log`], [`metrics`], [`process`], [`descriptor`], [`text`]: the face that every binding uses
//! - [`net`]: sockets, threads and clocks (tokio and mio live here and nowhere below)
//! - [`hub`]: what the bus knows. Pure: the time is passed in
//! - [`wire`]: bytes to frames and back. Pure
//! - [`settings`]: one table of everything that can be set. Plain values, as [`error`] and [`model`]: events, reasons, records
#![forbid(unsafe_code)]

pub mod bus;
pub mod descriptor;
pub mod engine;
pub mod error;
pub mod event;
pub mod hub;
pub mod inbox;
pub mod log;
pub mod metrics;
pub mod model;
pub mod net;
pub mod process;
pub mod service;
pub mod settings;
mod stats;
pub mod text;
pub mod wire;
