//! Clients over real sockets, against a server that the test plays itself, and against the real one.

mod bounds;
mod life;
mod nodes;
mod rig;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod topics;
