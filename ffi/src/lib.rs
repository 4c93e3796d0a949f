//! The C ABI of Heartbus. Owns what a C program sees: names, handles, memory rules, status codes. Decides nothing that
//! the engine decides, and knows no other binding.
//!
//! Conventions are on the first page of the header, in `cbindgen.toml`. Every function runs inside [`status::guard`],
//! which turns errors and panics into a status; every pointer that comes from C passes through [`arguments`], every handle
//! through [`handle`].
#![allow(non_camel_case_types, reason = "the names are those of the C header")]
#![allow(clippy::missing_safety_doc, reason = "what callers must keep is on the header's first page, once for all functions")]

mod arguments;
mod attached;
mod bus;
mod bus_feed;
mod bus_topics;
mod calls;
mod client_topics;
mod clients;
mod code;
mod config;
mod event;
mod handle;
mod log;
mod nodes;
mod process;
mod queue;
mod server;
mod statistics;
mod status;
mod texts;
mod topics;
mod user_data;
mod version;
