//! Letters to an I/O thread from other threads, and the question what connections it has.
//!
//! A letter is about one connection. What is to be written is bounded by that connection's outbox; of everything else there is
//! at most one letter per connection or node at a time. Of listings one waits at a time: a newer one takes the place of the
//! older, whose asker then gets what the other threads said.

use super::server::ConnectionInfo;
use crate::hub::link::{Letter, Postbox};
use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

pub(super) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    listing: Mutex<Option<Listing>>,
    waker: mio::Waker,
}

/// A question for the connections of a thread: up to `max` of them.
pub(super) struct Listing {
    pub(super) max: usize,
    pub(super) answer: SyncSender<Vec<ConnectionInfo>>,
}

impl Mailbox {
    pub(super) fn new(waker: mio::Waker) -> Mailbox {
        Mailbox { letters: Mutex::default(), listing: Mutex::default(), waker }
    }

    /// Moves all letters into `into`, which must be empty; its memory is used for the next ones.
    pub(super) fn take(&self, into: &mut VecDeque<Letter>) {
        std::mem::swap(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner), into);
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

impl Postbox for Mailbox {
    fn post(&self, letter: Letter) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = letters.is_empty();
        letters.push_back(letter);
        drop(letters);
        if was_empty {
            self.wake();
        }
    }
}
