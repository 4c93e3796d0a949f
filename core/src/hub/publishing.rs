//! What the hub does for who publishes, and for who is put into topics.
//!
//! Owns the checks, and the way of a publication to the threads. In which order they go, and to which threads, is decided in
//! [`super::topics`]; to whom there, by the thread.

use super::counters::Counters;
use super::fan_out::HubThread;
use super::feeds::{Followed, TopicFeed};
use super::firetower::{MessageId, USER_PREFIX};
use super::handed_over::FanOutShare;
use super::hub::Hub;
use super::link::{Membership, Parted};
use super::node_ref::NodeRef;
use super::now::Now;
use super::resume::Resume;
use super::topic_fan_out::TopicFanOut;
use super::topics::members::NOT_YET;
use super::topics::{
    CONNECTION_PART, FEEDS, FireKind, FireOrder, FireOrigin, HOST, KeptPart, Origin, Publication, PublicationSink, Published, Subscribed,
    TopicRefusal, subscription_bytes,
};
use crate::model::{HostMessage, Position};
use crate::wire::firetower::{FireFrame, NO_TOPIC};
use crate::wire::topic::{self, Filter};
use crate::wire::topic_frames::MAX_MESSAGE_HEAD;
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Hands one publication to the threads that want it.
struct ThreadsSink<'a> {
    hub: &'a Hub,
    threads: &'a [HubThread],
    len: usize,
    except: RefCell<Box<[NodeRef]>>,
    share: RefCell<Option<FanOutShare>>,
    fan_out: RefCell<Option<Arc<TopicFanOut>>>,
}

impl PublicationSink for ThreadsSink<'_> {
    fn has_room(&self, interest: &[(u16, u32)]) -> bool {
        let is_host = |(thread, _): &&(u16, u32)| usize::from(*thread) == HOST;
        if interest.iter().any(|entry| is_host(&entry)) && !self.hub.host_has_room(self.len, None) {
            return false;
        }
        // Nobody waits for other processes: what finds no room there is dropped.
        let of_threads = interest.iter().filter(|(thread, _)| usize::from(*thread) < FEEDS);
        let deliveries = of_threads.map(|(_, count)| *count as usize).sum();
        let share = self.hub.fan_outs().share(self.len, deliveries, self.hub.limits().outbox_bytes, self.hub.memory());
        let has_room = share.is_some();
        *self.share.borrow_mut() = share;
        has_room
    }

    fn post(&self, thread: usize, publication: &Arc<Publication>) {
        match thread {
            HOST => return self.hub.tell_message(publication),
            FEEDS if publication.origin.is_publication() => return self.hub.feeds().push(publication),
            FEEDS => return,
            _ => {}
        }
        let mut fan_out = self.fan_out.borrow_mut();
        if fan_out.is_none() {
            let Some(share) = self.share.borrow_mut().take() else { return };
            let max_frame_bytes = self.hub.limits().max_frame_bytes as usize;
            let message_id = MessageId { instance: self.hub.firetower().instance(), sequence: publication.sequence };
            let except = self.except.take();
            let made = TopicFanOut::new(publication.clone(), except, message_id, self.hub.memory(), max_frame_bytes, share);
            *fan_out = Some(Arc::new(made));
        }
        if let (Some(fan_out), Some(thread)) = (&*fan_out, self.threads.get(thread)) {
            thread.sink.post_publication(fan_out.clone());
        }
    }

    fn was_published(&self, sequence: u64, topic: &str, payload: &Bytes, origin: &Origin) {
        if let Some(manager) = self.hub.manager() {
            manager.forward(sequence, topic, payload, origin);
        }
    }
}

impl Hub {
    /// Hands a payload to all subscribers of a topic, and keeps it where a rule says so. `except`: ids of nodes that do not get it; they are
    /// in the number of those reached all the same. It goes out behind this call.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nobody gets it.
    pub fn publish(&self, name: &str, payload: Bytes, except: &[&str], counters: &Counters, now: Now) -> Result<Published, TopicRefusal> {
        self.publish_from(Origin::User, name, payload, except, counters, now)
    }

    /// The same of what is not a client's.
    ///
    /// # Errors
    /// As [`Hub::publish`].
    pub fn publish_from(
        &self,
        origin: Origin,
        name: &str,
        payload: Bytes,
        except: &[&str],
        counters: &Counters,
        now: Now,
    ) -> Result<Published, TopicRefusal> {
        let published = self.try_publish(origin, name, payload, except, now);
        match &published {
            Ok(_) => counters.published.up(),
            Err(_) => counters.publish_refused.up(),
        }
        published
    }

    /// Hands a frame to its topic's subscribers: a publication to all, anything else to gateways, and what Firetower's clients are to do
    /// to them as well. What this server has sent itself comes around to nobody twice: `None`.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nobody gets it.
    pub fn publish_frame(
        &self,
        frame: &FireFrame<'_>,
        is_from_manager: bool,
        counters: &Counters,
        now: Now,
    ) -> Result<Option<Published>, TopicRefusal> {
        if self.firetower().is_own(frame.message_id) {
            return Ok(None);
        }
        let kind = FireKind::of(frame.kind);
        let is_publication = kind == FireKind::Publish;
        let is_for_everywhere = kind == FireKind::Order(FireOrder::OfflineUser) && frame.topic == NO_TOPIC;
        let origin = FireOrigin { kind, message_id: frame.message_id.into(), source: frame.source.into(), is_from_manager };
        let (origin, payload) = (Origin::Firetower(Box::new(origin)), Bytes::copy_from_slice(frame.content));
        if is_for_everywhere {
            self.order_user(payload, origin)?;
            return Ok(Some(Published { position: None, reach: 0 }));
        }
        if is_publication {
            return self.publish_from(origin, frame.topic, payload, &[], counters, now).map(Some);
        }
        self.try_publish(origin, frame.topic, payload, &[], now).map(Some)
    }

    fn try_publish(&self, origin: Origin, name: &str, payload: Bytes, except: &[&str], now: Now) -> Result<Published, TopicRefusal> {
        topic::check_name(name)?;
        if topic::is_of_server(name) {
            return Err(TopicRefusal::OfServer);
        }
        if payload.len() + MAX_MESSAGE_HEAD > self.limits().max_frame_bytes as usize {
            return Err(TopicRefusal::TooLong);
        }
        let sink = self.sink(payload.len(), self.references(except));
        self.topics().publish_from(origin, name, payload, now, &sink)
    }

    /// Publishes to a topic of the server's own, where nobody else may.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nobody gets it.
    pub fn publish_of_server(&self, name: &str, payload: Bytes, now: Now) -> Result<Published, TopicRefusal> {
        let sink = self.sink(payload.len(), Box::default());
        self.topics().publish_from(Origin::System, name, payload, now, &sink)
    }

    fn sink(&self, len: usize, except: Box<[NodeRef]>) -> ThreadsSink<'_> {
        ThreadsSink {
            hub: self,
            threads: self.threads(),
            len,
            except: RefCell::new(except),
            share: RefCell::default(),
            fan_out: RefCell::default(),
        }
    }

    /// Hands an order of Firetower's about a user, who is its payload, to all threads: whichever topics that user has.
    ///
    /// # Errors
    /// [`TopicRefusal::ServerFull`].
    fn order_user(&self, user: Bytes, origin: Origin) -> Result<(), TopicRefusal> {
        let sink = self.sink(user.len(), Box::default());
        let threads = 0..self.threads().len();
        let interest: Vec<_> = threads.clone().map(|thread| (thread as u16, 1)).collect();
        if !sink.has_room(&interest) {
            return Err(TopicRefusal::ServerFull);
        }
        let topic = format!("{USER_PREFIX}{}", String::from_utf8_lossy(&user)).into();
        let sequence = self.topics().draw_number();
        let publication = Arc::new(Publication { topic, position: None, sequence, payload: user, origin });
        threads.for_each(|thread| sink.post(thread, &publication));
        Ok(())
    }

    /// Lets the host hear what is published from now on to the topics that a filter matches: each publication once, however many filters
    /// match it. To be ended as often as it was begun.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn listen(&self, filter: &str, now: Now) -> Result<(), TopicRefusal> {
        self.topics().subscribe(HOST, Filter::parse(filter)?, None, now)?;
        self.listening().fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Ends what [`Hub::listen`] has begun.
    pub fn end_listening(&self, filter: &str, now: Now) {
        self.listening().fetch_sub(1, Ordering::SeqCst);
        self.topics().unsubscribe(HOST, Filter::known(filter), now);
    }

    /// A node has subscribed to something, or no longer. Told where somebody wants to hear it of that topic.
    pub fn note_member(&self, filter: &str, node: &Arc<str>, has_joined: bool) {
        if self.tells_members_of(filter) {
            self.attendance().note(filter, node, has_joined);
        }
    }

    /// A node's subscription has ended. One that has come back meanwhile, by another connection, may have subscribed there already, and has
    /// not left then.
    pub(super) fn note_parted(&self, filter: &Arc<str>, id: &Arc<str>, node: NodeRef) {
        if !self.tells_members_of(filter) {
            return;
        }
        match self.node(id).filter(|newer| newer.reference() != node) {
            Some(newer) => {
                newer.link().tell_parted(Parted { node: newer.reference(), id: id.clone(), topic: filter.clone() });
            }
            None => self.attendance().note(filter, id, false),
        }
    }

    fn tells_members_of(&self, filter: &str) -> bool {
        let is_wanted = |name: String| self.topics().is_wanted(&name);
        self.topics().are_members_wanted() && topic::check_name(filter).is_ok() && topic::of_members(filter).is_some_and(is_wanted)
    }

    /// Somebody who gets what is published to what it follows, from a bounded queue: another process.
    pub fn open_feed(&self) -> TopicFeed {
        self.feeds().open()
    }

    /// Lets a feed have what is published from now on to the topics that a filter matches: each publication once, however many filters
    /// match it. With `since` a topic begins behind that position: what is kept is to be read by [`Hub::read_kept_for`] first. A topic
    /// that is there already begins anew; a filter stays.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn follow(&self, feed: &mut TopicFeed, filter: &str, since: Option<Position>, now: Now) -> Result<Followed, TopicRefusal> {
        let filter = Filter::parse(filter)?;
        let is_known = feed.filters.contains(filter.text());
        if is_known && since.is_none() && matches!(filter, Filter::Wild(_)) {
            return Ok(Followed { position: None, recovered: true, replay_behind: None, waiting: 0 });
        }
        let bytes = feed.filters.iter().map(|filter| subscription_bytes(Filter::known(filter))).sum::<usize>() + subscription_bytes(filter);
        let has_room = || feed.filters.len() < self.limits().max_subscriptions && self.topics().has_share(bytes, CONNECTION_PART);
        if !is_known && !has_room() {
            return Err(TopicRefusal::TooManySubscriptions);
        }
        let mut waiting = 0;
        let subscribed = self.topics().subscribe_and(FEEDS, filter, since, now, |begun| {
            waiting = feed.enter(filter, if begun.replay_behind.is_some() { NOT_YET } else { begun.since });
        })?;
        if is_known {
            // Not before: a topic that nobody wants and of which nothing is kept is another one in its next life.
            self.topics().unsubscribe(FEEDS, filter, now);
        }
        let Subscribed { position, recovered, replay_behind, .. } = subscribed;
        Ok(Followed { position, recovered, replay_behind, waiting })
    }

    /// A part of what is kept for a feed, as [`Topics::read_kept`](super::topics::Topics::read_kept). When there is no more it is live.
    pub fn read_kept_for(&self, feed: &TopicFeed, name: &str, behind: u64, most_bytes: usize) -> KeptPart {
        self.topics().read_kept_and(name, behind, most_bytes, |since| feed.go_live(Filter::known(name), since))
    }

    /// Ends what [`Hub::follow`] has begun; false when it has not.
    pub fn unfollow(&self, feed: &mut TopicFeed, filter: &str, now: Now) -> bool {
        let filter = Filter::known(filter);
        let was_there = feed.remove(filter);
        if was_there {
            self.topics().unsubscribe(FEEDS, filter, now);
        }
        was_there
    }

    /// Ends all that a feed follows.
    pub fn close_feed(&self, feed: &mut TopicFeed, now: Now) {
        let filters: Vec<Box<str>> = feed.filters.iter().cloned().collect();
        filters.iter().for_each(|filter| {
            self.unfollow(feed, filter, now);
        });
    }

    /// Whether who would publish has to wait, because the host hears that topic and has no room. What is no topic reaches nobody.
    pub fn is_host_full(&self, name: &str, len: usize, producer: impl FnOnce() -> Arc<dyn Resume>) -> bool {
        self.listening().load(Ordering::Relaxed) > 0
            && topic::check_name(name).is_ok()
            && self.topics().is_heard_by_host(name)
            && !self.host_has_room(len, Some(producer()))
    }

    /// With the lock of its topic held, so that the host sees the order that all see.
    fn tell_message(&self, publication: &Publication) {
        if publication.origin.is_publication() {
            self.push_message(|| HostMessage {
                topic: publication.topic.clone(),
                payload: publication.payload.clone(),
                position: publication.position,
                from: publication.origin.node().cloned(),
            });
        }
    }

    /// Subscribes a node to a topic without its asking; it stays so until it leaves, or is taken out again. What is published behind this
    /// call reaches it.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn join(&self, node: &str, name: &str, now: Now) -> Result<(), TopicRefusal> {
        topic::check_name(name)?;
        if topic::is_of_server(name) && !topic::is_of_presence(name) {
            return Err(TopicRefusal::OfServer);
        }
        let node = self.node(node).ok_or(TopicRefusal::NoSuchNode)?;
        let link = node.link();
        let subscribed = self.topics().subscribe(link.thread(), Filter::Exact(name), None, now)?;
        link.join(Membership { node: node.reference(), filter: name.into(), since: subscribed.since });
        Ok(())
    }

    /// Takes a node out of a topic, whoever has subscribed it.
    ///
    /// # Errors
    /// [`TopicRefusal::NoSuchNode`]; [`TopicRefusal::Bad`].
    pub fn part(&self, node: &str, filter: &str) -> Result<(), TopicRefusal> {
        Filter::parse(filter)?;
        let node = self.node(node).ok_or(TopicRefusal::NoSuchNode)?;
        node.link().part(Membership { node: node.reference(), filter: filter.into(), since: 0 });
        Ok(())
    }
}
