//! Turns of bounded work, and silence that is judged after a look at the socket only: sessions on a thread that is slow, stopped
//! and late, in virtual time.

mod any_order;
#[path = "../support/bus.rs"]
mod bus;
mod rig;
mod rules;
