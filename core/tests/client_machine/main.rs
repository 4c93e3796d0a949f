//! The client's rules, in virtual time: every rule with what it does and what it leaves alone.

mod any_order;
mod any_order_of_many;
mod any_order_of_topics;
mod dialects;
mod life;
mod messages;
mod nodes;
mod rig;
mod topics;
