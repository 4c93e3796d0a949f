//! What the host may ask of topics, and do with them.
//!
//! Owns the errors in words. What a topic is, is the hub's; who has subscribed, the I/O threads'.

use super::Engine;
use crate::error::{Error, ErrorKind};
use crate::hub::Counters;
use crate::hub::feeds::{Followed, TopicFeed};
use crate::hub::topics::{KeptPart, Origin, Position, Published, TopicRefusal};
use crate::net::bus::HostTopics;
use crate::wire::topic;
use bytes::Bytes;
use std::sync::Arc;

/// A page of a list, and what `after` is for the next one; `None` when there is none.
pub(super) type Page<T> = (Vec<T>, Option<u64>);

impl Engine {
    /// Publishes to a topic: to all who have subscribed to it, less the nodes named in `except`, and to its history where a rule says
    /// so. Says where it stands among the topic's publications, and for how many subscriptions it was queued; those of `except` are
    /// among these. It goes out behind this call.
    ///
    /// # Errors
    /// `InvalidArgument`: nothing can be published under this name. `Limit`: longer than a frame may be, too many topics, or too much
    /// that waits for subscribers. `Closed`, `WrongProcess`. Nobody gets it then.
    pub fn publish(&self, topic: &str, payload: &[u8], except: &[&str]) -> Result<Published, Error> {
        let hub = self.hub()?;
        let (payload, now) = (Bytes::copy_from_slice(payload), self.now());
        let publish = |counters: &Counters| hub.publish_from(Origin::Platform, topic, payload, except, counters, now);
        self.server().with_host_counters(publish).map_err(refused)
    }

    /// As [`Engine::broadcast`], to all nodes but some.
    ///
    /// # Errors
    /// As [`Engine::broadcast`].
    pub fn broadcast_except(&self, payload: &[u8], except: &[&str]) -> Result<usize, Error> {
        self.hub()?.broadcast_except(payload, except).map_err(super::refused)
    }

    /// How many have subscribed to a topic, by its name and through filters that match it.
    ///
    /// # Errors
    /// `InvalidArgument`: it is no topic. `Closed`, `WrongProcess`.
    pub fn subscribers(&self, topic: &str) -> Result<usize, Error> {
        let hub = self.hub()?;
        check(topic)?;
        Ok(hub.topics().subscribers(topic))
    }

    /// A page of the topics that somebody has subscribed to by name or of which something is kept: up to `limit` of them behind `after`,
    /// each with its subscribers, and what `after` is for the next page; `None` when there is none.
    ///
    /// # Errors
    /// `Closed`, `WrongProcess`.
    pub fn topics(&self, after: Option<u64>, limit: usize) -> Result<Page<(Arc<str>, usize)>, Error> {
        Ok(self.hub()?.topics().page(after, limit))
    }

    /// Puts a node into a topic: it gets the topic's messages without having asked, until it leaves or is taken out. What is published
    /// behind this call reaches it.
    ///
    /// # Errors
    /// `NotFound`: no such node. `InvalidArgument`: it is no topic. `Limit`: too many topics. `Closed`, `WrongProcess`.
    pub fn join(&self, node_id: &str, topic: &str) -> Result<(), Error> {
        self.hub()?.join(node_id, topic, self.now()).map_err(refused)
    }

    /// Lets the host hear what is published from now on to the topics that a filter matches, as [`Event::Message`]: each publication once,
    /// however many filters match it. Its inbox must be subscribed to [`EventMask::MESSAGE`]. Where it has no room nodes that publish
    /// there are not read, and other publications are refused at twice the bound. A filter that is there already stays.
    ///
    /// # Errors
    /// `InvalidArgument`: it is no filter. `Limit`: too many topics. `Closed`, `WrongProcess`.
    ///
    /// [`Event::Message`]: crate::event::Event::Message
    /// [`EventMask::MESSAGE`]: crate::event::EventMask::MESSAGE
    pub fn subscribe(&self, filter: &str) -> Result<(), Error> {
        let hub = self.hub()?;
        let mut filters = self.filters();
        if !filters.contains(filter) {
            hub.listen(filter, self.now()).map_err(refused)?;
            filters.insert(filter.into());
        }
        Ok(())
    }

    /// Ends a subscription of the host; false where there is none.
    ///
    /// # Errors
    /// `Closed`, `WrongProcess`.
    pub fn unsubscribe(&self, filter: &str) -> Result<bool, Error> {
        let hub = self.hub()?;
        let is_there = self.filters().remove(filter);
        if is_there {
            hub.end_listening(filter, self.now());
        }
        Ok(is_there)
    }

    /// Ends a subscription of a node, to a topic or a filter, whoever has made it. One that is not there is no error.
    ///
    /// # Errors
    /// `NotFound`: no such node. `InvalidArgument`: it is no filter. `Closed`, `WrongProcess`.
    pub fn leave(&self, node_id: &str, filter: &str) -> Result<(), Error> {
        self.hub()?.part(node_id, filter).map_err(refused)
    }

    /// A page of the nodes that are in a topic by its name, whether they have subscribed or were put there: up to `limit` behind `after`,
    /// and what `after` is for the next page. The I/O threads are asked, which takes half a second at most.
    ///
    /// # Errors
    /// `InvalidArgument`: it is no topic. `Closed`, `WrongProcess`.
    pub fn members(&self, topic: &str, after: Option<u64>, limit: usize) -> Result<Page<Arc<str>>, Error> {
        self.hub()?;
        check(topic)?;
        Ok(self.server().members(topic, after, limit))
    }

    /// Topics and filters that a node has subscribed to or was put into, in no particular order. Its I/O thread is asked, as in
    /// [`Engine::members`].
    ///
    /// # Errors
    /// `NotFound`: no such node. `Closed`, `WrongProcess`.
    pub fn topics_of(&self, node_id: &str) -> Result<Vec<String>, Error> {
        let node = self.hub()?.node(node_id).ok_or_else(|| refused(TopicRefusal::NoSuchNode))?;
        Ok(self.server().topics_of(&node))
    }
}

/// For workers and other processes, each of which has subscriptions of its own.
impl HostTopics for Engine {
    fn listen(&self, filter: &str) -> Result<(), Error> {
        self.hub()?.listen(filter, self.now()).map_err(refused)
    }

    fn end_listening(&self, filter: &str) {
        self.server().shared.hub.end_listening(filter, self.now());
    }

    fn open_feed(&self) -> Result<TopicFeed, Error> {
        Ok(self.hub()?.open_feed())
    }

    fn follow(&self, feed: &mut TopicFeed, filter: &str, since: Option<Position>) -> Result<Followed, Error> {
        self.hub()?.follow(feed, filter, since, self.now()).map_err(refused)
    }

    fn read_kept(&self, feed: &TopicFeed, topic: &str, behind: u64, most_bytes: usize) -> KeptPart {
        self.server().shared.hub.read_kept_for(feed, topic, behind, most_bytes)
    }

    fn unfollow(&self, feed: &mut TopicFeed, filter: &str) {
        self.server().shared.hub.unfollow(feed, filter, self.now());
    }

    fn close_feed(&self, feed: &mut TopicFeed) {
        self.server().shared.hub.close_feed(feed, self.now());
    }

    fn count_fed(&self, messages: u64) {
        self.server().with_host_counters(|counters| counters.bus_messages_out.add(messages));
    }
}

fn check(name: &str) -> Result<(), Error> {
    topic::check_name(name).map_err(|bad| refused(bad.into()))
}

fn refused(refusal: TopicRefusal) -> Error {
    let kind = match refusal {
        TopicRefusal::Bad(_) | TopicRefusal::FilterHasNoPosition | TopicRefusal::OfServer => ErrorKind::InvalidArgument,
        TopicRefusal::TooManyTopics
        | TopicRefusal::TooManyLevels
        | TopicRefusal::ServerFull
        | TopicRefusal::TooManySubscriptions
        | TopicRefusal::TooManyDecisions
        | TopicRefusal::Refused
        | TopicRefusal::TooLong => ErrorKind::Limit,
        TopicRefusal::NoSuchNode => return super::refused(crate::hub::Refusal::NoSuchNode),
    };
    Error::new(kind, refusal.to_string())
}
