//! What a process has subscribed to over the bus socket of a server, on this connection and those to come: what is to be said to the
//! engine, how far each topic has come, and what of the engine's messages is told.
//!
//! Owns the subscriptions, and who waits for the answer to one (`W`). Knows no socket; whose inbox it is, and when the connection is made
//! again, is the task's business.
//!
//! An engine answers the requests of a connection in their order, and what it sends is in order with the answers: what comes behind one is
//! published behind the position that it names, or kept. Topics go first on a new connection, so that nothing of them comes through a filter
//! before.

use super::topic_progress::{MessageOutcome, TopicProgress};
use crate::model::{FeedEvent, HostMessage, Position};
use crate::wire::bus::{FeedMessage, RemoteError, SubscriberMessage};
use crate::wire::topic::Filter;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What waits to be said to the engine, or for its answer. More than anybody can subscribe to.
pub const MAX_SAID: usize = 65_536;

pub struct Following<W> {
    list: BTreeMap<Arc<str>, FollowedFilter<W>>,
    /// To be said over this connection.
    said: VecDeque<Saying>,
    /// What has no answer yet, the oldest first.
    asked: VecDeque<(Arc<str>, u64)>,
    events: VecDeque<FeedEvent>,
    last_number: u64,
    /// The engine knows positions.
    has_positions: bool,
}

struct FollowedFilter<W> {
    is_exact: bool,
    /// Of the last request for it: answers to earlier ones are nobody's.
    number: u64,
    stands: FollowStanding,
    /// It comes back with each connection.
    was_live: bool,
    progress: TopicProgress,
    /// It begins anew with the answer.
    next: Option<TopicProgress>,
    /// Who waits for the first answer.
    waits: Option<W>,
}

/// Where a subscription stands with the engine, on this connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FollowStanding {
    Asked,
    Live,
    /// By an engine that was started anew: it is asked again.
    Refused,
}

enum Saying {
    Subscribe { filter: Arc<str>, number: u64 },
    Unsubscribe { filter: Arc<str> },
}

/// What is to be done next about what is said.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<W> {
    Message(SubscriberMessage),
    /// The engine is older than what this one asked for.
    TooOld(W),
}

/// Why a subscription is not even asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FollowRefusal {
    /// A filter has no position to go on from.
    FilterHasNoPosition,
    /// Too much has no answer yet.
    TooMuchSaid,
}

/// What a message of the engine means for who waits.
#[derive(Debug, PartialEq, Eq)]
pub enum FeedHeard<W> {
    Nothing,
    Answer(W, Result<(), RemoteError>),
    /// It does not take a subscription back.
    NotTakenBack(Arc<str>, RemoteError),
}

impl<W> Default for Following<W> {
    fn default() -> Self {
        Self {
            list: BTreeMap::new(),
            said: VecDeque::new(),
            asked: VecDeque::new(),
            events: VecDeque::new(),
            last_number: 0,
            has_positions: false,
        }
    }
}

impl<W> Following<W> {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn contains(&self, filter: &str) -> bool {
        self.list.contains_key(filter)
    }

    /// Whether any subscription stands there.
    pub fn stands(&self, there: FollowStanding) -> bool {
        self.list.values().any(|subscription| subscription.stands == there)
    }

    /// Asks for a topic or a filter; a topic begins behind `since`, also where there is a subscription already. The number is for
    /// [`Following::give_up`].
    ///
    /// # Errors
    /// [`FollowRefusal`], and nothing has changed.
    pub fn subscribe(&mut self, filter: Filter<'_>, since: Option<Position>, waits: W) -> Result<u64, FollowRefusal> {
        let is_exact = matches!(filter, Filter::Exact(_));
        if since.is_some() && !is_exact {
            return Err(FollowRefusal::FilterHasNoPosition);
        }
        if self.said.len() + self.asked.len() >= MAX_SAID {
            return Err(FollowRefusal::TooMuchSaid);
        }
        self.last_number += 1;
        let number = self.last_number;
        let name: Arc<str> = self.list.get_key_value(filter.text()).map_or_else(|| filter.text().into(), |(name, _)| name.clone());
        let subscription = self.list.entry(name.clone()).or_insert_with(|| FollowedFilter {
            is_exact,
            number,
            stands: FollowStanding::Asked,
            was_live: false,
            progress: TopicProgress::default(),
            next: None,
            waits: None,
        });
        (subscription.number, subscription.next, subscription.waits) = (number, Some(TopicProgress::behind(since)), Some(waits));
        self.said.push_back(Saying::Subscribe { filter: name, number });
        Ok(number)
    }

    /// Nobody waits for the answer any more. What was not there before ends; what was goes on.
    pub fn give_up(&mut self, filter: &str, number: u64) {
        if let Some(subscription) = self.list.get_mut(filter).filter(|subscription| subscription.number == number) {
            subscription.waits = None;
            if !subscription.was_live {
                self.unsubscribe(filter);
            }
        }
    }

    /// False when there is no such subscription.
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        let Some((filter, _)) = self.list.remove_entry(filter) else { return false };
        self.said.push_back(Saying::Unsubscribe { filter });
        true
    }

    /// There is a connection: all that was subscribed to is said anew.
    pub fn start(&mut self, has_positions: bool) {
        self.has_positions = has_positions;
        (self.said, self.asked) = Default::default();
        for is_exact in [true, false] {
            for (filter, subscription) in self.list.iter_mut().filter(|(_, subscription)| subscription.is_exact == is_exact) {
                subscription.stands = FollowStanding::Asked;
                self.said.push_back(Saying::Subscribe { filter: filter.clone(), number: subscription.number });
            }
        }
    }

    /// There is none any more. With `is_known`, that there is no other, those who wait for an answer get that one, and what was not there
    /// before ends; otherwise they wait for the next connection.
    pub fn stop(&mut self, is_known: bool) -> Vec<W> {
        (self.said, self.asked) = Default::default();
        let mut told = Vec::new();
        self.list.retain(|_, subscription| {
            subscription.stands = FollowStanding::Asked;
            subscription.progress.pause();
            let Some(waits) = subscription.waits.take_if(|_| is_known) else { return true };
            told.push(waits);
            subscription.next = None;
            subscription.was_live
        });
        told
    }

    /// Those that were refused are asked for again.
    pub fn ask_again(&mut self) {
        for (filter, subscription) in self.list.iter_mut().filter(|(_, subscription)| subscription.stands == FollowStanding::Refused) {
            subscription.stands = FollowStanding::Asked;
            self.said.push_back(Saying::Subscribe { filter: filter.clone(), number: subscription.number });
        }
    }

    pub fn next_said(&mut self) -> Option<Said<W>> {
        loop {
            let (filter, number) = match self.said.pop_front()? {
                Saying::Subscribe { filter, number } => (filter, number),
                Saying::Unsubscribe { filter } => return Some(Said::Message(SubscriberMessage::Unsubscribe { filter: (*filter).into() })),
            };
            // Otherwise it has been ended, or asked for once more, in the meantime.
            let Some(subscription) = self.list.get_mut(&filter).filter(|subscription| subscription.number == number) else { continue };
            let since = subscription.next.as_ref().unwrap_or(&subscription.progress).position();
            if !self.has_positions && since.is_some() && subscription.waits.is_some() {
                subscription.next = None;
                let waits = subscription.waits.take();
                match (subscription.was_live, subscription.stands) {
                    (false, _) => drop(self.list.remove(&filter)),
                    (true, FollowStanding::Asked) => self.said.push_front(Saying::Subscribe { filter, number }),
                    (true, _) => {}
                }
                return waits.map(Said::TooOld);
            }
            self.asked.push_back((filter.clone(), number));
            return Some(Said::Message(if subscription.is_exact && self.has_positions {
                let since = since.map(|Position { offset, epoch }| (offset, epoch));
                SubscriberMessage::SubscribeFrom { topic: (*filter).into(), since }
            } else {
                SubscriberMessage::Subscribe { filter: (*filter).into() }
            }));
        }
    }

    /// The next event for the host.
    pub fn event(&mut self) -> Option<FeedEvent> {
        self.events.pop_front()
    }

    /// The host has no room for it yet.
    pub fn put_back(&mut self, event: FeedEvent) {
        self.events.push_front(event);
    }

    pub fn hear(&mut self, message: FeedMessage<'_>) -> FeedHeard<W> {
        match message {
            FeedMessage::Message { topic, payload, position, from } => {
                let position = position.map(|(offset, epoch)| Position { offset, epoch });
                self.receive(topic, payload, position, from);
                FeedHeard::Nothing
            }
            FeedMessage::Gap { dropped } => {
                // It may be of any of them.
                self.list.values_mut().for_each(|subscription| subscription.progress.may_jump());
                self.events.push_back(FeedEvent::Missed { count: Some(dropped), filter: None });
                FeedHeard::Nothing
            }
            FeedMessage::Lost { topic } => {
                if let Some(subscription) = self.list.get_mut(topic) {
                    subscription.progress.may_jump();
                    self.events.push_back(missed(topic.into()));
                }
                FeedHeard::Nothing
            }
            FeedMessage::Begun { topic, newest: (offset, epoch), recovered } => {
                self.is_begun(topic, Some((Position { offset, epoch }, recovered)))
            }
            FeedMessage::Subscribed { filter } => self.is_begun(filter, None),
            FeedMessage::Refused { filter, error } => self.is_refused(filter, error),
        }
    }

    fn receive(&mut self, topic: &str, payload: &[u8], position: Option<Position>, from: Option<&str>) {
        let known = self.list.get_key_value(topic).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| topic.into());
        let outcome = match (self.list.get_mut(topic), position) {
            // It comes again with what is kept, or is told as missing.
            (Some(known), Some(_)) if known.stands == FollowStanding::Asked && known.progress.position().is_some() => MessageOutcome::Drop,
            // Through a filter, before the topic itself has begun.
            (Some(known), Some(_)) if !known.was_live => MessageOutcome::Tell,
            (Some(known), Some(position)) => known.progress.receive(position),
            _ => MessageOutcome::Tell,
        };
        match outcome {
            MessageOutcome::Drop => return,
            MessageOutcome::Tell => {}
            MessageOutcome::TellGap => self.events.push_back(missed(name.clone())),
        }
        let message = HostMessage { topic: name, payload: Bytes::copy_from_slice(payload), position, from: from.map(Arc::from) };
        self.events.push_back(FeedEvent::Message(Arc::new(message)));
    }

    /// What this is an answer to; `None`: to something that is not wanted any more.
    fn take_asked(&mut self, filter: &str) -> Option<(Arc<str>, &mut FollowedFilter<W>)> {
        let place = self.asked.iter().position(|(asked, _)| **asked == *filter)?;
        let (filter, number) = self.asked.drain(..=place).next_back()?;
        let subscription = self.list.get_mut(&filter).filter(|subscription| subscription.number == number)?;
        Some((filter, subscription))
    }

    /// `at`: where the topic stands, and whether all comes that was asked for; `None` for a filter, and from an engine that knows no positions.
    fn is_begun(&mut self, filter: &str, at: Option<(Position, bool)>) -> FeedHeard<W> {
        let Some((filter, subscription)) = self.take_asked(filter) else { return FeedHeard::Nothing };
        let is_anew = subscription.next.is_some();
        let goes_on = !is_anew && subscription.progress.position().is_some();
        if let Some(next) = subscription.next.take() {
            subscription.progress = next;
        }
        let is_whole = match at {
            Some((newest, recovered)) => subscription.progress.begin(newest, recovered) && (is_anew || goes_on),
            None => {
                subscription.progress = TopicProgress::default();
                is_anew
            }
        };
        (subscription.stands, subscription.was_live) = (FollowStanding::Live, true);
        let waits = subscription.waits.take();
        if !is_whole {
            self.events.push_back(missed(filter));
        }
        waits.map_or(FeedHeard::Nothing, |waits| FeedHeard::Answer(waits, Ok(())))
    }

    fn is_refused(&mut self, filter: &str, error: RemoteError) -> FeedHeard<W> {
        let Some((filter, subscription)) = self.take_asked(filter) else { return FeedHeard::Nothing };
        match subscription.waits.take() {
            // It goes on as it was.
            Some(waits) if subscription.was_live => {
                subscription.next = None;
                if subscription.stands == FollowStanding::Asked {
                    subscription.stands = FollowStanding::Refused;
                }
                FeedHeard::Answer(waits, Err(error))
            }
            Some(waits) => {
                self.list.remove(&filter);
                FeedHeard::Answer(waits, Err(error))
            }
            None => {
                subscription.stands = FollowStanding::Refused;
                FeedHeard::NotTakenBack(filter, error)
            }
        }
    }
}

/// Nobody knows how much of it.
fn missed(filter: Arc<str>) -> FeedEvent {
    FeedEvent::Missed { count: None, filter: Some(filter) }
}
