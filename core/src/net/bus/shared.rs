//! What the connections of the bus thread share.
//!
//! Owns nothing that does anything: who listens and ends is above it ([`super`]), each connection beside it.

use super::dispatcher::Dispatcher;
use super::log::LogPost;
use crate::error::Error;
use crate::hub::Memory;
use crate::hub::connection_log::ConnectionLog;
use crate::hub::dispatch::WorkerId;
use crate::hub::feeds::{Followed, TopicFeed};
use crate::hub::topics::KeptPart;
use crate::model::Position;
use crate::net::Clock;
use crate::service::Service;
use crate::wire::bus::Welcome;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a caller may take to say who it is.
pub(super) const HELLO_TIME: Duration = Duration::from_secs(5);

/// How long whoever is told to go may take to read that.
pub(super) const GOODBYE_TIME: Duration = Duration::from_millis(100);

/// What the engine says of itself to a client (0) or a worker.
pub(crate) type Introduce = Box<dyn Fn(WorkerId) -> Welcome + Send>;

/// Lets workers, and processes that only subscribe, hear topics.
pub(crate) trait HostTopics: Send {
    /// # Errors
    /// It is no filter, or there are too many.
    fn listen(&self, filter: &str) -> Result<(), Error>;

    fn end_listening(&self, filter: &str);

    /// # Errors
    /// Nothing is published any more.
    fn open_feed(&self) -> Result<TopicFeed, Error>;

    /// # Errors
    /// As [`HostTopics::listen`].
    fn follow(&self, feed: &mut TopicFeed, filter: &str, since: Option<Position>) -> Result<Followed, Error>;

    /// A part of what is kept for a subscription that is not live yet; it is when there is no more.
    fn read_kept(&self, feed: &TopicFeed, topic: &str, behind: u64, most_bytes: usize) -> KeptPart;

    fn unfollow(&self, feed: &mut TopicFeed, filter: &str);

    fn close_feed(&self, feed: &mut TopicFeed);

    /// So many publications were written.
    fn count_fed(&self, messages: u64);
}

/// Where the thread stands. It only goes forward.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Stage {
    Open,
    /// The server is stopping, its clients are being told.
    Stopping,
    /// No more events come. Workers tell what is left.
    Finishing,
    /// Everybody says goodbye.
    Finished,
}

/// What the sessions of the thread share.
pub(super) struct BusShared {
    pub(super) service: Arc<dyn Service>,
    pub(super) introduce: Introduce,
    pub(super) dispatcher: Option<Arc<Dispatcher>>,
    pub(super) topics: Box<dyn HostTopics>,
    pub(super) allows_group: bool,
    /// The user that the server runs as.
    pub(super) owner: u32,
    pub(super) frame_cap: u32,
    pub(super) clock: Clock,
    pub(super) connection_log: RefCell<ConnectionLog>,
    pub(super) callers: Arc<AtomicUsize>,
    /// How many there may be.
    pub(super) places: usize,
    pub(super) stage: Arc<watch::Sender<Stage>>,
    pub(super) log: Arc<LogPost>,
    pub(super) memory: Arc<Memory>,
    pub(super) next_worker: Cell<WorkerId>,
    /// How to wake a worker's session.
    pub(super) workers: RefCell<HashMap<WorkerId, Rc<Notify>>>,
    /// A worker has acknowledged something, found nothing more to send, or is gone.
    pub(super) progress: Notify,
}

pub(super) fn move_to(stage: &watch::Sender<Stage>, next: Stage) {
    stage.send_if_modified(|stage| {
        let is_later = next > *stage;
        if is_later {
            *stage = next;
        }
        is_later
    });
}
