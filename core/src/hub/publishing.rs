//! What the hub does for who publishes, and for who is put into topics.
//!
//! Owns the checks, and the way of a publication to the threads. In which order they go, and to which threads, is decided in
//! [`super::topics`]; to whom there, by the thread.

use super::counters::Counters;
use super::fan_out::HubThread;
use super::handed_over::FanOutShare;
use super::hub::Hub;
use super::link::Membership;
use super::node_ref::NodeRef;
use super::now::Now;
use super::topic_fan_out::TopicFanOut;
use super::topics::{Publication, PublicationSink, Published, TopicRefusal};
use crate::wire::topic::{self, Filter};
use crate::wire::topic_frames::MAX_MESSAGE_HEAD;
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;

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
        let deliveries = interest.iter().map(|(_, count)| *count as usize).sum();
        let share = self.hub.fan_outs().share(self.len, deliveries, self.hub.limits().outbox_bytes, self.hub.memory());
        let has_room = share.is_some();
        *self.share.borrow_mut() = share;
        has_room
    }

    fn post(&self, thread: usize, publication: &Arc<Publication>) {
        let mut fan_out = self.fan_out.borrow_mut();
        if fan_out.is_none() {
            let Some(share) = self.share.borrow_mut().take() else { return };
            let max_frame_bytes = self.hub.limits().max_frame_bytes as usize;
            let made = TopicFanOut::new(publication.clone(), self.except.take(), self.hub.memory(), max_frame_bytes, share);
            *fan_out = Some(Arc::new(made));
        }
        if let (Some(fan_out), Some(thread)) = (&*fan_out, self.threads.get(thread)) {
            thread.sink.post_publication(fan_out.clone());
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
        let published = self.try_publish(name, payload, except, now);
        match &published {
            Ok(_) => counters.published.up(),
            Err(_) => counters.publish_refused.up(),
        }
        published
    }

    fn try_publish(&self, name: &str, payload: Bytes, except: &[&str], now: Now) -> Result<Published, TopicRefusal> {
        topic::check_name(name)?;
        if topic::is_of_server(name) {
            return Err(TopicRefusal::OfServer);
        }
        if payload.len() + MAX_MESSAGE_HEAD > self.limits().max_frame_bytes as usize {
            return Err(TopicRefusal::TooLong);
        }
        let sink = ThreadsSink {
            hub: self,
            threads: self.threads(),
            len: payload.len(),
            except: RefCell::new(self.references(except)),
            share: RefCell::default(),
            fan_out: RefCell::default(),
        };
        self.topics().publish(name, payload, now, &sink)
    }

    /// Subscribes a node to a topic without its asking; it stays so until it leaves, or is taken out again. What is published behind this
    /// call reaches it.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn join(&self, node: &str, name: &str, now: Now) -> Result<(), TopicRefusal> {
        topic::check_name(name)?;
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
