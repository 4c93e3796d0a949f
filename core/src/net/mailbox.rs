//! Calls to an I/O thread from other threads: which of its connections to look at, and whether to list them all.
//!
//! A call carries no data. What there is to do stands on the connection's [`Link`](crate::hub::Link), which rings once
//! until it is looked at, so a mailbox never holds more entries than its thread has connections. Of listings one waits at
//! a time: a newer one takes the place of the older, whose asker then gets what the other threads said.

use super::server::ConnectionInfo;
use crate::hub::link::Doorbell;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

pub(super) struct Mailbox {
    calls: Mutex<Vec<Call>>,
    listing: Mutex<Option<Listing>>,
    waker: mio::Waker,
}

#[derive(Copy, Clone)]
pub(super) struct Call {
    pub(super) slot: u32,
    /// Tells whether the slot still holds the connection that is meant.
    pub(super) connection_id: u64,
}

/// A question for the connections of a thread: up to `max` of them.
pub(super) struct Listing {
    pub(super) max: usize,
    pub(super) answer: SyncSender<Vec<ConnectionInfo>>,
}

impl Mailbox {
    pub(super) fn new(waker: mio::Waker) -> Mailbox {
        Mailbox { calls: Mutex::default(), listing: Mutex::default(), waker }
    }

    /// Moves all calls into `into`, which must be empty; its memory is used for the next ones.
    pub(super) fn take(&self, into: &mut Vec<Call>) {
        std::mem::swap(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    pub(super) fn ask(&self, listing: Listing) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing);
        self.wake();
    }

    pub(super) fn take_listing(&self) -> Option<Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            // The thread still looks within one tick.
            tracing::warn!(%error, "Cannot wake an I/O thread");
        }
    }
}

impl Doorbell for Mailbox {
    fn ring(&self, slot: u32, connection_id: u64) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = calls.is_empty();
        calls.push(Call { slot, connection_id });
        drop(calls);
        if was_empty {
            self.wake();
        }
    }
}
