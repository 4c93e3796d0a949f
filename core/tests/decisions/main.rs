//! What the host decides before it happens, without sockets or clocks: who waits for it, in which order, and for how long.

#[path = "../support/bus.rs"]
mod bus;
mod registration;
mod rig;
mod topics;
