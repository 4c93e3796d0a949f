//! What a client has subscribed to, on this connection and those to come: what is to be asked of the server, how far each topic has come,
//! and what of the server's messages is told.
//!
//! How far each has come is [`topic_progress`](crate::hub::topic_progress)'s business. Knows no frame and no socket; the machine sends and
//! receives.
//!
//! A server answers the requests of a connection in their order. So an answer shows that the requests before it were skipped, as a server
//! does beyond its rate limit: they are asked again. Of one filter there is one request at a time: what the host wants meanwhile is asked
//! behind the answer.

use super::pace::Pace;
use super::refusal::ClientRefusal;
use crate::hub::Now;
use crate::hub::topic_progress::{MessageOutcome, TopicProgress};
use crate::model::Position;
use crate::wire::topic::{self, Filter};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a subscription takes in memory beside its filter: its place among the others, and in the line of those that are asked for.
const SUBSCRIPTION_BYTES: usize = 160;

#[derive(Default)]
pub(super) struct TopicSet {
    /// Also those that the host does not want any more, until the server knows.
    list: BTreeMap<Arc<str>, ClientSubscription>,
    wanted: usize,
    /// All of it.
    bytes: usize,
    /// Whose turn to be asked comes, in order.
    waiting: VecDeque<Arc<str>>,
    /// What has no answer yet, the oldest first.
    sent: VecDeque<(Arc<str>, TopicRequest)>,
    pace: Pace,
    /// Of the node that subscribes, while it is registered.
    channel: Option<u32>,
}

struct ClientSubscription {
    is_wanted: bool,
    is_exact: bool,
    /// The server has it, as far as it has said.
    is_there: bool,
    state: TopicState,
    progress: TopicProgress,
    /// Something is missing and was not told.
    owes_gap: bool,
    /// The host has named another position since it was asked.
    is_outdated: bool,
    /// Nobody had subscribed to it before: what comes without having been asked for comes as it did.
    is_fresh: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum TopicState {
    /// Nothing is to be asked; without a connection, not yet.
    None,
    Waits,
    IsAsked,
}

/// What the server is asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicRequest {
    Subscribe,
    Unsubscribe,
}

/// What becomes of the server's answer to a SUBSCRIBE.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SubscribeOutcome {
    Tell {
        filter: Arc<str>,
        recovered: bool,
    },
    /// The host wants something else by now, or knows.
    Nothing,
    /// Nobody asked.
    Stranger,
}

/// What becomes of a refusal.
pub(super) enum RefusalOutcome {
    /// This subscription is not any more.
    Tell(Arc<str>),
    /// The host wants something else by now.
    Nothing,
    /// Nobody asked.
    Stranger,
}

impl TopicSet {
    /// As long as nothing is missing it goes on behind `since`. What is there already stays as it was, or begins anew at `since`.
    pub(super) fn subscribe(&mut self, filter: Filter<'_>, since: Option<Position>, max: usize) -> Result<(), ClientRefusal> {
        let is_exact = matches!(filter, Filter::Exact(_));
        if since.is_some() && !is_exact {
            return Err(ClientRefusal::FilterHasNoPosition);
        }
        let is_new = self.list.get(filter.text()).is_none_or(|known| !known.is_wanted);
        if is_new && self.wanted >= max {
            return Err(ClientRefusal::TooManySubscriptions);
        }
        if !is_new && since.is_none() {
            return Ok(());
        }
        let is_connected = self.channel.is_some();
        self.wanted += usize::from(is_new);
        let known = self.list.get_key_value(filter.text());
        let (state, is_there) = known.map_or((TopicState::None, false), |(_, known)| (known.state, known.is_there));
        let is_fresh = known.is_none_or(|(_, known)| known.is_fresh);
        let name = known.map_or_else(|| filter.text().into(), |(name, _)| name.clone());
        let subscription = ClientSubscription {
            is_wanted: true,
            is_exact,
            is_there,
            state,
            progress: TopicProgress::behind(since),
            owes_gap: false,
            is_outdated: state == TopicState::IsAsked,
            is_fresh,
        };
        // A key that is there stays the one that it is.
        if self.list.insert(name.clone(), subscription).is_none() {
            self.bytes += SUBSCRIPTION_BYTES + name.len();
        }
        if is_connected && state == TopicState::None {
            self.wait(name);
        }
        Ok(())
    }

    /// False when there is no such subscription. Nothing more is told of it.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> bool {
        let Some((name, known)) = self.list.get_key_value(filter).filter(|(_, known)| known.is_wanted) else { return false };
        let (name, state, is_there) = (name.clone(), known.state, known.is_there);
        self.wanted -= 1;
        if let Some(known) = self.list.get_mut(&name) {
            known.is_wanted = false;
        }
        match state {
            TopicState::None if is_there => self.wait(name),
            TopicState::Waits if is_there => {}
            TopicState::None | TopicState::Waits => self.forget(&name),
            TopicState::IsAsked => {}
        }
        true
    }

    pub(super) fn is_wanted(&self, filter: &str) -> bool {
        self.list.get(filter).is_some_and(|known| known.is_wanted)
    }

    /// Behind which position a topic would go on.
    pub(super) fn position(&self, filter: &str) -> Option<Position> {
        self.list.get(filter).filter(|known| known.is_wanted)?.progress.position()
    }

    pub(super) fn len(&self) -> usize {
        self.wanted
    }

    /// What they take in memory.
    pub(super) fn kept(&self) -> usize {
        self.bytes
    }

    /// The node that subscribes is registered. Topics go first: what is kept of them would come behind what filters bring otherwise.
    pub(super) fn start(&mut self, channel_id: u32) {
        if self.channel.replace(channel_id) == Some(channel_id) {
            return;
        }
        self.end_all();
        let in_order = |is_exact| move |(_, known): &(&Arc<str>, &ClientSubscription)| known.is_exact == is_exact;
        self.waiting.extend(self.list.iter().filter(in_order(true)).map(|(name, _)| name.clone()));
        self.waiting.extend(self.list.iter().filter(in_order(false)).map(|(name, _)| name.clone()));
        self.list.values_mut().for_each(|known| known.state = TopicState::Waits);
    }

    /// It is not any more, and the server has forgotten what it had subscribed to.
    pub(super) fn stop(&mut self) {
        if self.channel.take().is_some() {
            self.end_all();
        }
    }

    fn end_all(&mut self) {
        (self.waiting, self.sent, self.pace) = Default::default();
        let bytes = &mut self.bytes;
        self.list.retain(|name, known| {
            if known.is_wanted {
                // Whatever comes through a filter meanwhile has no place at which it would be missed.
                known.owes_gap |= known.is_there && !known.is_exact;
                (known.is_there, known.is_outdated, known.state) = (false, false, TopicState::None);
                known.progress.pause();
            } else {
                *bytes -= SUBSCRIPTION_BYTES + name.len();
            }
            known.is_wanted
        });
    }

    /// What is to be asked now, on which channel, and behind which position.
    pub(super) fn next(&mut self) -> Option<(u32, Arc<str>, TopicRequest, Option<Position>)> {
        let channel_id = self.channel.filter(|_| self.pace.may_ask(self.sent.len()))?;
        while let Some(name) = self.waiting.pop_front() {
            if waits(&self.list, &name)
                && let Some(known) = self.list.get_mut(&name)
            {
                let request = if known.is_wanted { TopicRequest::Subscribe } else { TopicRequest::Unsubscribe };
                known.state = TopicState::IsAsked;
                let since = known.progress.position();
                self.sent.push_back((name.clone(), request));
                return Some((channel_id, name, request, since));
            }
        }
        // An emptied queue would keep its memory.
        self.waiting = VecDeque::new();
        None
    }

    /// The answer to a SUBSCRIBE, or what a server says of its own accord: that it has lost something while it went on with what was kept.
    pub(super) fn subscribed(&mut self, filter: &str, position: Option<Position>, recovered: bool) -> SubscribeOutcome {
        let is_exact = matches!(Filter::known(filter), Filter::Exact(_));
        if is_exact && position.is_none() && !recovered {
            let name = self.list.get_key_value(filter).map(|(name, _)| name.clone());
            return match (name, self.list.get_mut(filter)) {
                (Some(filter), Some(known)) if known.is_wanted && known.is_there && known.state == TopicState::None => {
                    known.progress.may_jump();
                    SubscribeOutcome::Tell { filter, recovered }
                }
                _ => SubscribeOutcome::Nothing,
            };
        }
        let Some(name) = self.take_sent(filter, |request| request == TopicRequest::Subscribe).map(|(name, _)| name) else {
            return if self.is_wanted(filter) { SubscribeOutcome::Nothing } else { SubscribeOutcome::Stranger };
        };
        let Some(known) = self.list.get_mut(&name) else { return SubscribeOutcome::Nothing };
        (known.is_there, known.state) = (true, TopicState::None);
        if !known.is_wanted || std::mem::take(&mut known.is_outdated) {
            self.wait(name);
            return SubscribeOutcome::Nothing;
        }
        let recovered = match position {
            Some(position) => {
                known.is_fresh = false;
                known.progress.begin(position, recovered)
            }
            None => recovered,
        };
        let recovered = recovered && !std::mem::take(&mut known.owes_gap);
        SubscribeOutcome::Tell { filter: name, recovered }
    }

    /// The answer to an UNSUBSCRIBE.
    pub(super) fn unsubscribed(&mut self, filter: &str) {
        if let Some((name, _)) = self.take_sent(filter, |request| request == TopicRequest::Unsubscribe) {
            self.is_gone(name);
        }
    }

    /// The server refused something about this filter. Where nothing is without an answer, it was asked for twice, because the first request
    /// seemed to be skipped: the later answer counts.
    pub(super) fn refused(&mut self, filter: &str) -> RefusalOutcome {
        let request = self.take_sent(filter, |_| true).map(|(_, request)| request);
        let Some((name, known)) = self.list.get_key_value(filter) else { return RefusalOutcome::Stranger };
        let name = name.clone();
        let is_its_end = match request {
            Some(TopicRequest::Subscribe) => known.is_wanted && !known.is_outdated,
            Some(TopicRequest::Unsubscribe) => false,
            // Without a node nothing is asked for: what was on its way when it was lost is no answer to a subscription.
            None if self.channel.is_none() || known.state != TopicState::None => return RefusalOutcome::Nothing,
            None => known.is_wanted,
        };
        if !is_its_end {
            self.is_gone(name);
            return RefusalOutcome::Nothing;
        }
        self.wanted -= 1;
        self.forget(&name);
        RefusalOutcome::Tell(name)
    }

    /// That it was refused was to be told and is not: it is asked for again.
    pub(super) fn ask_again(&mut self, filter: &str) {
        if !self.is_wanted(filter) && self.subscribe(Filter::known(filter), None, usize::MAX).is_ok() {
            self.owe_gap(filter);
        }
    }

    /// The server skipped something that was too much for it.
    pub(super) fn rate_limited(&mut self) {
        if !self.sent.is_empty() {
            self.pace.rate_limited();
        }
    }

    /// Goes on after a pause: what has no answer by then was skipped.
    pub(super) fn tick(&mut self, now: Now) {
        if self.pace.tick(now) {
            let skipped = std::mem::take(&mut self.sent);
            skipped.into_iter().for_each(|(name, _)| self.wait_again(name));
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.pace.deadline()
    }

    /// A message has come on a channel: what becomes of it, and the name of its topic where there is one already.
    pub(super) fn receive(&mut self, channel_id: i64, topic: &str, position: Option<Position>) -> (MessageOutcome, Option<Arc<str>>) {
        if self.channel.is_none_or(|own| i64::from(own) != channel_id) {
            return (MessageOutcome::Tell, None);
        }
        let name = self.list.get_key_value(topic).map(|(name, _)| name.clone());
        let Some(known) = self.list.get_mut(topic) else { return (MessageOutcome::Tell, None) };
        let delivery = match (known.is_wanted, known.is_there && known.state == TopicState::None, position) {
            (true, true, Some(position)) => known.progress.receive(position),
            (true, true, None) => MessageOutcome::Tell,
            // It comes again with what is kept, or is told as missing.
            (true, false, _) if known.progress.position().is_some() => MessageOutcome::Drop,
            (true, false, _) if known.is_fresh => MessageOutcome::Tell,
            _ if self.has_filter_for(topic) => MessageOutcome::Tell,
            _ => MessageOutcome::Drop,
        };
        (delivery, name)
    }

    fn has_filter_for(&self, topic: &str) -> bool {
        let mut filters = self.list.iter().filter(|(_, known)| !known.is_exact && known.is_wanted && known.is_there);
        filters.any(|(filter, _)| topic::matches(filter, topic))
    }

    /// A message was to be told and is not: it has to come again.
    pub(super) fn take_back(&mut self, topic: &str, position: Option<Position>) {
        if let (Some(known), Some(position)) = (self.list.get_mut(topic), position) {
            known.progress.take_back(position);
        }
    }

    /// That something is missing was to be told and is not: it is, with the next answer.
    pub(super) fn owe_gap(&mut self, filter: &str) {
        if let Some(known) = self.list.get_mut(filter) {
            known.owes_gap = true;
        }
    }

    fn take_sent(&mut self, filter: &str, is_it: impl Fn(TopicRequest) -> bool) -> Option<(Arc<str>, TopicRequest)> {
        let place = self.sent.iter().position(|(name, request)| **name == *filter && is_it(*request))?;
        let skipped: Vec<_> = self.sent.drain(..place).collect();
        skipped.into_iter().for_each(|(name, _)| self.wait_again(name));
        self.pace.answered();
        self.sent.pop_front()
    }

    /// The server has it not any more, or never had it.
    fn is_gone(&mut self, name: Arc<str>) {
        let Some(known) = self.list.get_mut(&name) else { return };
        (known.is_there, known.is_outdated, known.state) = (false, false, TopicState::None);
        if known.is_wanted { self.wait(name) } else { self.forget(&name) }
    }

    fn wait(&mut self, name: Arc<str>) {
        if let Some(known) = self.list.get_mut(&name) {
            known.state = TopicState::Waits;
            // Names that come and go in turn must not make it grow without end.
            if self.waiting.len() > 2 * self.list.len() {
                self.waiting.retain(|name| waits(&self.list, name));
            }
            self.waiting.push_back(name);
        }
    }

    fn wait_again(&mut self, name: Arc<str>) {
        let Some(known) = self.list.get_mut(&name) else { return };
        known.is_outdated = false;
        if known.is_wanted || known.is_there { self.wait(name) } else { self.forget(&name) }
    }

    fn forget(&mut self, name: &str) {
        if let Some((name, _)) = self.list.remove_entry(name) {
            self.bytes -= SUBSCRIPTION_BYTES + name.len();
        }
    }
}

/// It may have been forgotten since it was put into the line, and be there again.
fn waits(list: &BTreeMap<Arc<str>, ClientSubscription>, name: &Arc<str>) -> bool {
    list.get_key_value(name).is_some_and(|(known_name, known)| Arc::ptr_eq(known_name, name) && known.state == TopicState::Waits)
}
