//! Topics of a client: what its host subscribes to and publishes, and what its server says of them.
//!
//! TopicSet are those of its first node. Which there are, and how far they have come, is [`super::topic_set`]'s.

use super::reading::shorten;
use super::topic_set::{RefusalOutcome, SubscribeOutcome, TopicRequest};
use super::{ClientMachine, ClientRefusal, ClientState};
use crate::hub::Now;
use crate::hub::topic_progress::MessageOutcome;
use crate::model::{ClientEvent, Position, TopicMessage};
use crate::wire::topic::{self, Filter};
use crate::wire::topic_frames::{Message, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe, parse_error_subject};
use crate::wire::{Dialect, Frame, FrameType, code, control};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

impl ClientMachine {
    /// Subscribes to a topic or a filter, on this connection and those to come: a topic goes on behind the last message that was told. With
    /// `since` it begins behind that position, also where there is a subscription already, which otherwise stays as it is.
    /// [`ClientEvent::Subscribed`] tells the server's answer.
    ///
    /// # Errors
    /// [`ClientRefusal::BadTopic`], [`ClientRefusal::FilterHasNoPosition`], [`ClientRefusal::TooManySubscriptions`];
    /// [`ClientRefusal::NotConnected`] when the client does not come back.
    pub fn subscribe(&mut self, filter: &str, since: Option<Position>) -> Result<(), ClientRefusal> {
        if !self.comes_back() {
            return Err(ClientRefusal::NotConnected);
        }
        let filter = Filter::parse(filter).map_err(ClientRefusal::BadTopic)?;
        let channel_id = self.own_channel();
        let topics = self.topics.get_or_insert_default();
        if let Some(channel_id) = channel_id {
            topics.start(channel_id);
        }
        topics.subscribe(filter, since, self.settings.max_subscriptions)
    }

    /// Nothing more is told of a topic or filter.
    ///
    /// # Errors
    /// [`ClientRefusal::NoSuchSubscription`]
    pub fn unsubscribe(&mut self, filter: &str) -> Result<(), ClientRefusal> {
        let is_there = self.topics.as_mut().is_some_and(|topics| topics.unsubscribe(filter));
        if is_there { Ok(()) } else { Err(ClientRefusal::NoSuchSubscription) }
    }

    /// Behind which position a topic goes on after a reconnect: that of the last message that was told. `None` before the first answer, and
    /// for a filter.
    pub fn position(&self, topic: &str) -> Option<Position> {
        self.topics.as_ref()?.position(topic)
    }

    /// Queues a publication. With a number it is answered: [`ClientEvent::Published`] or [`ClientEvent::PublishRefused`] has it.
    ///
    /// # Errors
    /// As [`ClientMachine::send`], and [`ClientRefusal::BadTopic`].
    pub fn publish(&mut self, topic: &str, data: &[u8], number: Option<u32>, now: Now) -> Result<(), ClientRefusal> {
        let result = self.queue_publication(topic, data, number);
        result.inspect_err(|refusal| self.client_log.not_sent(self.id, *refusal, now))
    }

    fn queue_publication(&mut self, topic: &str, data: &[u8], number: Option<u32>) -> Result<(), ClientRefusal> {
        topic::check_name(topic).map_err(ClientRefusal::BadTopic)?;
        let (Some(channel_id), ClientState::Open(connection)) = (self.own_channel(), &self.state) else {
            return Err(ClientRefusal::NotConnected);
        };
        let mut payload = Vec::with_capacity(data.len() + topic.len() + 16);
        let publication = Publish { topic: topic.into(), id: number, data: data.into() };
        publication.encode(connection.dialect, &mut payload).map_err(|_| ClientRefusal::NotUtf8)?;
        self.queue(FrameType::PUBLISH, channel_id.into(), &payload)?;
        // So that a refusal is known as one of a publication.
        self.topics.get_or_insert_default();
        Ok(())
    }

    /// Puts the subscriptions whose turn has come into the outbox, as far as they have room.
    pub(super) fn ask_for_topics(&mut self, now: Now) {
        let (Some(topics), ClientState::Open(connection)) = (&mut self.topics, &self.state) else { return };
        topics.tick(now);
        // The other half is for data.
        while !connection.is_mute && self.outbox.len() <= self.settings.outbox_bytes / 2 {
            let Some((channel_id, filter, request, since)) = topics.next() else { return };
            let (dialect, filter, mut payload) = (connection.dialect, Cow::Borrowed(&*filter), Vec::new());
            let frame_type = match request {
                TopicRequest::Subscribe => {
                    Subscribe { filter, since }.encode(dialect, &mut payload);
                    FrameType::SUBSCRIBE
                }
                TopicRequest::Unsubscribe => {
                    Unsubscribe { filter }.encode(dialect, &mut payload);
                    FrameType::UNSUBSCRIBE
                }
            };
            self.outbox.push_control(dialect, frame_type, channel_id, &payload);
        }
    }

    /// A frame of topics from the server.
    pub(super) fn apply_topic_frame(&mut self, frame: &Frame<'_>, dialect: Dialect) -> Option<ClientEvent> {
        let bytes = frame.payload.bytes();
        match frame.frame_type {
            FrameType::MESSAGE => {
                let Some(message) = Message::decode(dialect, &bytes).ok().filter(|message| is_name(&message.topic)) else {
                    return self.refuse_frame();
                };
                self.apply_message(frame.channel_id, message)
            }
            FrameType::SUBSCRIBE => {
                let Some(reply) = SubscribeReply::decode(dialect, &bytes).ok().filter(|reply| is_name(&reply.filter)) else {
                    return self.refuse_frame();
                };
                self.apply_subscribe_reply(&reply)
            }
            FrameType::UNSUBSCRIBE => {
                let (Ok(reply), Some(topics)) = (Unsubscribe::decode(dialect, &bytes), &mut self.topics) else {
                    return self.refuse_frame();
                };
                topics.unsubscribed(&reply.filter);
                None
            }
            _ => match PublishReply::decode(dialect, &bytes) {
                Ok(PublishReply { id, position, reach }) => Some(ClientEvent::Published { number: id, position, reach }),
                Err(_) => self.refuse_frame(),
            },
        }
    }

    fn apply_message(&mut self, channel_id: i64, message: Message<'_>) -> Option<ClientEvent> {
        let Message { topic, position, data } = message;
        let (delivery, name) = match &mut self.topics {
            Some(topics) => topics.receive(channel_id, &topic, position),
            // The server has put the node into this topic.
            None => (MessageOutcome::Tell, None),
        };
        if delivery == MessageOutcome::Drop {
            return None;
        }
        let topic = name.unwrap_or_else(|| (*topic).into());
        let payload = match data {
            Cow::Borrowed(data) => Bytes::copy_from_slice(data),
            Cow::Owned(data) => data.into(),
        };
        let node_id = self.node_of(channel_id);
        let gap = (delivery == MessageOutcome::TellGap).then(|| missing(topic.clone()));
        let message = ClientEvent::Message(Box::new(TopicMessage { topic, position, payload, channel_id, node_id }));
        if gap.is_some() {
            self.events.push_back(message);
            return gap;
        }
        Some(message)
    }

    fn apply_subscribe_reply(&mut self, reply: &SubscribeReply<'_>) -> Option<ClientEvent> {
        let Some(topics) = &mut self.topics else { return self.refuse_frame() };
        let answer = topics.subscribed(&reply.filter, reply.position, reply.recovered);
        match (answer, &self.state) {
            (SubscribeOutcome::Tell { filter, recovered }, _) => {
                Some(ClientEvent::Subscribed { filter, position: reply.position, recovered })
            }
            (SubscribeOutcome::Nothing, _) => None,
            // It was asked for twice, because the first request seemed to be skipped, and only that one was refused. A server that says
            // such things of its own accord may do so without end, and read nothing.
            (SubscribeOutcome::Stranger, ClientState::Open(connection)) if self.outbox.len() <= self.settings.outbox_bytes / 2 => {
                let (dialect, mut payload) = (connection.dialect, Vec::new());
                Unsubscribe { filter: (*reply.filter).into() }.encode(dialect, &mut payload);
                if let Some(channel_id) = self.own_channel() {
                    self.outbox.push_control(dialect, FrameType::UNSUBSCRIBE, channel_id, &payload);
                }
                None
            }
            (SubscribeOutcome::Stranger, _) => self.refuse_frame(),
        }
    }

    fn refuse_frame(&mut self) -> Option<ClientEvent> {
        self.frames_refused += 1;
        None
    }

    /// An ERROR that is about a topic; `None` when it is about something else.
    pub(super) fn apply_topic_error(&mut self, raw: &[u8], now: Now) -> Option<Option<ClientEvent>> {
        let topics = self.topics.as_mut()?;
        let error = control::parse_error(raw)?;
        let (topic, number) = parse_error_subject(raw);
        let Some(topic) = topic else {
            if error.code == i64::from(code::RATE_LIMITED) {
                topics.rate_limited();
            }
            return None;
        };
        let message = shorten(error.message);
        // Of what is refused so, subscriptions are nothing.
        let is_publication = number.is_some() || error.code == i64::from(code::RATE_LIMITED) || message == code::TOO_LONG_TEXT;
        let refused = if is_publication { RefusalOutcome::Stranger } else { topics.refused(&topic) };
        self.client_log.server_error(self.id, &message, error.code, now);
        Some(match refused {
            RefusalOutcome::Tell(filter) => Some(ClientEvent::SubscribeRefused { filter, code: error.code, message }),
            RefusalOutcome::Nothing => None,
            RefusalOutcome::Stranger => Some(ClientEvent::PublishRefused { topic, number, code: error.code, message }),
        })
    }

    /// What the host had no room for is not told at the end of a connection: as far as topics can, it comes again with the next one.
    pub(super) fn take_back(&mut self) {
        let Some(topics) = &mut self.topics else { return };
        let is_of_topic = |event: &ClientEvent| {
            matches!(event, ClientEvent::Message(_) | ClientEvent::Subscribed { .. } | ClientEvent::SubscribeRefused { .. })
        };
        let (behind, others): (Vec<_>, Vec<_>) = self.events.drain(..).partition(is_of_topic);
        self.events.extend(others);
        let of_topics: Vec<_> = self.stalled.take().into_iter().chain(behind).collect();
        for event in of_topics.into_iter().rev() {
            match event {
                ClientEvent::Message(message) => topics.take_back(&message.topic, message.position),
                ClientEvent::Subscribed { filter, recovered: false, .. } => topics.owe_gap(&filter),
                ClientEvent::SubscribeRefused { filter, .. } => topics.ask_again(&filter),
                _ => {}
            }
        }
    }
}

fn missing(filter: Arc<str>) -> ClientEvent {
    ClientEvent::Subscribed { filter, position: None, recovered: false }
}

/// Whatever a server says: of longer names nothing is kept.
fn is_name(name: &str) -> bool {
    (1..=topic::MAX_LEN).contains(&name.len())
}
