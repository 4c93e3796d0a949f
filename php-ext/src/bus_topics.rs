//! Topics that a PHP process has subscribed to over bus sockets: one connection for each socket, beside the one that questions go over, and
//! the callbacks.
//!
//! Owns whom a message is for, and whom a gap. Who gets what, and when a connection is made again, is the engine's business.

use crate::classes::position;
use crate::config::{self, Loop};
use crate::exception;
use crate::php::{Callable, Outcome, text, value};
use crate::runtime::{Runtime, Source, is_same};
use crate::subscriptions::Subscriptions;
use ext_php_rs::types::Zval;
use heartbus_core::error::Error;
use heartbus_core::event::{FeedEvent, HostMessage, Position};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::feed::Feed;
use heartbus_core::wire::topic::Filter;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// What was subscribed to over one socket.
struct BusTopics {
    path: PathBuf,
    feed: Feed,
    inbox: Arc<Inbox<FeedEvent>>,
    subscriptions: RefCell<Subscriptions>,
    /// Who is told that something is missing, by their filters.
    gaps: RefCell<BTreeMap<String, Rc<Callable>>>,
    pending: RefCell<VecDeque<FeedEvent>>,
    /// Comes before what is pending.
    untold: RefCell<Option<Untold>>,
}

/// An event of which some callbacks were told, the last of them that of this filter.
struct Untold {
    event: FeedEvent,
    behind: String,
}

thread_local! {
    /// The runtime has them, and ends them.
    static TOPICS: RefCell<Vec<Weak<BusTopics>>> = const { RefCell::new(Vec::new()) };
}

/// Those of this process and request: a forked child has others than its parent.
fn of_socket(runtime: &Runtime, path: &Path) -> Option<Rc<BusTopics>> {
    TOPICS.with_borrow_mut(|all| {
        all.retain(|topics| topics.strong_count() > 0);
        let mut own = all.iter().filter_map(Weak::upgrade);
        own.find(|topics| topics.path == path && runtime.feeds().iter().any(|feed| is_same(&**feed, &**topics)))
    })
}

fn start(runtime: &Runtime, path: &Path) -> Result<Rc<BusTopics>, Error> {
    config::settle_log();
    let inbox = Inbox::new(Feed::INBOX)?;
    let topics = Rc::new(BusTopics {
        path: path.to_owned(),
        feed: Feed::start(path, inbox.clone())?,
        inbox,
        subscriptions: RefCell::default(),
        gaps: RefCell::default(),
        pending: RefCell::default(),
        untold: RefCell::default(),
    });
    runtime.watch(topics.inbox.as_fd())?;
    runtime.add_feed(topics.clone());
    TOPICS.with_borrow_mut(|all| all.push(Rc::downgrade(&topics)));
    Ok(topics)
}

/// Returns when the engine has said that what is published from now on comes. Whatever loop there is tells it.
pub(crate) fn subscribe(
    path: &Path,
    patience: Duration,
    filter: &str,
    callback: Rc<Callable>,
    since: Option<Position>,
    gap: Option<Rc<Callable>>,
) -> Outcome {
    let runtime = Runtime::current();
    let filter = Filter::parse(filter).map_err(|bad| exception::invalid_argument(&bad.to_string()))?;
    let topics = match of_socket(&runtime, path) {
        Some(topics) => topics,
        None => start(&runtime, path).map_err(|error| exception::raise(&error))?,
    };
    if since.is_some() || !topics.subscriptions.borrow().contains(filter.text()) {
        topics.feed.subscribe(filter.text(), since, patience).map_err(|error| exception::raise(&error))?;
    }
    let replaced = topics.subscriptions.borrow_mut().insert(filter, Some(callback), None);
    let replaced_gap = match gap {
        Some(gap) => topics.gaps.borrow_mut().insert(filter.text().to_owned(), gap),
        None => topics.gaps.borrow_mut().remove(filter.text()),
    };
    drop((replaced, replaced_gap));
    if !runtime.is_looping() && !runtime.join_running_loop(Loop::Auto)? {
        runtime.join_loop_to_come(Loop::Auto)?;
    }
    Ok(())
}

/// False when there is no such subscription.
pub(crate) fn unsubscribe(path: &Path, filter: &str) -> Outcome<bool> {
    let runtime = Runtime::current();
    let Some(topics) = of_socket(&runtime, path) else { return Ok(false) };
    let removed = topics.subscriptions.borrow_mut().remove(filter);
    let was_there = removed.is_some();
    let gap = topics.gaps.borrow_mut().remove(filter);
    if was_there {
        topics.feed.unsubscribe(filter).map_err(|error| exception::raise(&error))?;
    }
    drop((removed, gap));
    if was_there && !runtime.is_looping() {
        // It may have been what a loop of others ran for: that sees it at our next visit.
        runtime.wake_loop();
    }
    Ok(was_there)
}

impl BusTopics {
    /// The next whose filter matches, behind another one.
    fn next(&self, event: &FeedEvent, behind: Option<&str>) -> Option<(String, Rc<Callable>)> {
        match event {
            FeedEvent::Message(message) => self.subscriptions.borrow().next(&message.topic, behind),
            FeedEvent::Missed { filter: Some(filter), .. } => {
                let gaps = self.gaps.borrow();
                let callback = gaps.get(&**filter).filter(|_| behind.is_none())?;
                Some((filter.to_string(), callback.clone()))
            }
            FeedEvent::Missed { filter: None, .. } => {
                let gaps = self.gaps.borrow();
                let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
                gaps.range::<str, _>((from, Bound::Unbounded)).next().map(|(filter, callback)| (filter.clone(), callback.clone()))
            }
        }
    }

    /// Tells one of those that it is for. Others wait for their turn: a callback may throw or suspend.
    fn tell(&self, runtime: &Runtime, event: FeedEvent, behind: Option<&str>) -> Outcome<bool> {
        let Some((filter, callback)) = self.next(&event, behind) else { return Ok(false) };
        let has_more = self.next(&event, Some(&filter)).is_some();
        let untold = has_more.then(|| Untold { event: event.clone(), behind: filter.clone() });
        if untold.is_some() {
            *self.untold.borrow_mut() = untold;
            runtime.wake_loop();
        }
        match event {
            FeedEvent::Message(message) => {
                let HostMessage { topic, payload, position, from } = &*message;
                let from = from.as_ref().map_or_else(Zval::null, |id| text(&**id));
                let position = position.map_or_else(|| Ok(Zval::null()), position::position)?;
                callback.call([text(&**topic), text(payload), from, position])?;
            }
            FeedEvent::Missed { count, .. } => {
                let count = count.map_or_else(Zval::null, |count| value(count as i64));
                callback.call([count, text(filter)])?;
            }
        }
        Ok(true)
    }
}

impl Source for BusTopics {
    fn pending(&self) -> usize {
        self.pending.borrow().len() + usize::from(self.untold.borrow().is_some())
    }

    fn refill(&self, max: usize) -> Outcome {
        self.inbox.drain(&mut self.pending.borrow_mut(), max);
        Ok(())
    }

    fn tell_next(&self, runtime: &Runtime) -> Outcome<bool> {
        let untold = self.untold.borrow_mut().take();
        if let Some(Untold { event, behind }) = untold {
            return self.tell(runtime, event, Some(&behind));
        }
        let event = self.pending.borrow_mut().pop_front();
        event.map_or(Ok(false), |event| self.tell(runtime, event, None))
    }

    fn is_idle(&self) -> bool {
        self.subscriptions.borrow().is_empty()
    }

    /// The process is told nothing more.
    fn shut_down(&self) {
        self.feed.stop();
        let dropped = (self.subscriptions.take(), self.gaps.take(), self.untold.take(), self.pending.take());
        drop(dropped);
    }
}
