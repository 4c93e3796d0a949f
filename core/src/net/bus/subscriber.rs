//! A connection of a process that has subscribed to topics: filters in, publications out.
//!
//! Owns the process's feed, from its first word to its end. What waits for it, and what is dropped at the bound of that, is the hub's
//! business; here no more waits than the socket is about to take. While that takes nothing, nothing is read either. One that begins at a
//! position is answered in its place: behind what waited for the process before, in front of what is kept, which is in front of what is
//! live. Until that is written nothing more is heard.

use super::connection::{BusConnection, End};
use super::remote::remote_error;
use super::shared::{BusShared, Stage};
use crate::hub::feeds::{Fed, Followed, TopicFeed};
use crate::hub::topics::Publication;
use crate::model::Position;
use crate::wire::bus::{self as wire, FeedMessage, SubscriberMessage};
use std::rc::Rc;
use tokio::task::yield_now;

/// With so much to write nothing more is taken out of the feed, and nothing more is answered.
const OUTPUT_BYTES: usize = 64 << 10;

/// Publications that are written before others on the thread have their turn.
const TOGETHER: usize = 64;

/// Of what is kept so many bytes are read at a time: the topic's lock is held meanwhile.
const READ_BYTES: usize = 16 << 10;

/// What a process has subscribed to. Dropping it ends that.
struct SubscriberPlace {
    shared: Rc<BusShared>,
    feed: TopicFeed,
    beginning: Option<ReplayBegun>,
    has_skipped: bool,
}

/// A topic that begins at a position.
struct ReplayBegun {
    topic: String,
    /// So much of what waits goes out before it.
    waiting: usize,
    /// Offset and epoch, and whether all comes that was asked for, until it was said.
    answer: Option<((u64, u64), bool)>,
    /// Behind which offset what is kept goes on.
    replay_behind: Option<u64>,
}

/// Serves a subscriber until it hangs up, is gone, or the server has stopped.
pub(super) async fn serve(connection: &mut BusConnection) -> Result<(), End> {
    let shared = connection.shared.clone();
    let mut stage = shared.stage.subscribe();
    // Of a server that stops at this moment there is nothing to hear.
    let Ok(feed) = shared.topics.open_feed() else { return Ok(()) };
    connection.has_own_bounds = true;
    let mut place = SubscriberPlace { shared, feed, beginning: None, has_skipped: false };
    let mut taken = Vec::new();
    let death = connection.death();
    tokio::pin!(death);
    loop {
        let has_heard_all = place.hear_all(connection)?;
        place.write(connection, &mut taken);
        connection.try_flush()?;
        let has_room = connection.backlog() < OUTPUT_BYTES;
        if *stage.borrow_and_update() == Stage::Finished {
            connection.say_goodbye().await;
            return Ok(());
        }
        if !taken.is_empty() || (!has_heard_all || place.beginning.is_some()) && has_room {
            taken.clear();
            yield_now().await;
            // However much is published, it is heard as well.
            if has_room {
                connection.try_fill()?;
            }
            continue;
        }
        let turn = async { if has_room { connection.turn().await } else { connection.wait_to_write().await } };
        tokio::select! {
            turned = turn => turned?,
            () = place.feed.ready(), if has_room => {}
            () = &mut death => return Err(End::Gone),
            _ = stage.changed() => {}
        }
    }
}

impl SubscriberPlace {
    /// False when the answers to what was heard have to go out first.
    fn hear_all(&mut self, connection: &mut BusConnection) -> Result<bool, End> {
        loop {
            if connection.backlog() >= OUTPUT_BYTES || self.beginning.is_some() {
                return Ok(false);
            }
            let Some(frame) = connection.frame()? else { return Ok(true) };
            match wire::decode(&frame) {
                Ok(SubscriberMessage::Subscribe { filter }) => {
                    let answer = match self.shared.topics.follow(&mut self.feed, &filter, None) {
                        Ok(_) => FeedMessage::Subscribed { filter: &filter },
                        Err(error) => FeedMessage::Refused { filter: &filter, error: remote_error(error) },
                    };
                    wire::write_message(&mut connection.output, &answer);
                }
                Ok(SubscriberMessage::SubscribeFrom { topic, since }) => self.begin(connection, topic, since),
                Ok(SubscriberMessage::Unsubscribe { filter }) => self.shared.topics.unfollow(&mut self.feed, &filter),
                // From a process that is newer than we are.
                Err(error) => match wire::unknown_variant::<SubscriberMessage>(&frame) {
                    Some(number) if !self.has_skipped => {
                        self.has_skipped = true;
                        tracing::warn!(number, "A subscriber is newer than the engine: what it said was not understood");
                    }
                    Some(_) => {}
                    None => return Err(error.into()),
                },
            }
        }
    }

    fn begin(&mut self, connection: &mut BusConnection, topic: String, since: Option<(u64, u64)>) {
        let since = since.map(|(offset, epoch)| Position { offset, epoch });
        let answer = match self.shared.topics.follow(&mut self.feed, &topic, since) {
            Ok(Followed { position: Some(newest), recovered, replay_behind, waiting }) => {
                let answer = Some(((newest.offset, newest.epoch), recovered));
                self.beginning = Some(ReplayBegun { topic, waiting, answer, replay_behind });
                return;
            }
            Ok(Followed { position: None, .. }) => FeedMessage::Subscribed { filter: &topic },
            Err(error) => FeedMessage::Refused { filter: &topic, error: remote_error(error) },
        };
        wire::write_message(&mut connection.output, &answer);
    }

    /// Goes on with a topic that begins at a position, if what is in front of it is written.
    fn replay(&mut self, connection: &mut BusConnection) {
        let Some(beginning) = self.beginning.as_mut().filter(|beginning| beginning.waiting == 0) else { return };
        if let Some((newest, recovered)) = beginning.answer.take() {
            wire::write_message(&mut connection.output, &FeedMessage::Begun { topic: &beginning.topic, newest, recovered });
        }
        let Some(behind) = &mut beginning.replay_behind else {
            self.beginning = None;
            return;
        };
        let read = self.shared.topics.read_kept(&self.feed, &beginning.topic, *behind, READ_BYTES);
        if read.has_gap {
            wire::write_message(&mut connection.output, &FeedMessage::Lost { topic: &beginning.topic });
        }
        for publication in &read.publications {
            wire::write_message(&mut connection.output, &message_of(publication));
            *behind = publication.position.map_or(*behind, |position| position.offset);
        }
        self.shared.topics.count_fed(read.publications.len() as u64);
        if read.since.is_some() {
            self.beginning = None;
        }
    }

    fn write(&mut self, connection: &mut BusConnection, taken: &mut Vec<Fed>) {
        if connection.backlog() >= OUTPUT_BYTES {
            return;
        }
        let max = self.beginning.as_ref().filter(|beginning| beginning.answer.is_some()).map_or(TOGETHER, |beginning| beginning.waiting);
        let count = self.feed.take(taken, max.min(TOGETHER));
        if let Some(beginning) = self.beginning.as_mut().filter(|beginning| beginning.answer.is_some()) {
            beginning.waiting -= count;
        }
        self.write_taken(connection, taken);
        self.replay(connection);
    }

    fn write_taken(&self, connection: &mut BusConnection, taken: &[Fed]) {
        let mut messages = 0;
        for fed in taken {
            let message = match fed {
                Fed::Gap { dropped } => FeedMessage::Gap { dropped: *dropped },
                Fed::Publication(publication) => {
                    messages += 1;
                    message_of(publication)
                }
            };
            wire::write_message(&mut connection.output, &message);
        }
        if messages > 0 {
            self.shared.topics.count_fed(messages);
        }
    }
}

fn message_of(publication: &Publication) -> FeedMessage<'_> {
    FeedMessage::Message {
        topic: &publication.topic,
        payload: &publication.payload,
        position: publication.position.map(|position| (position.offset, position.epoch)),
        from: publication.origin.node().map(|id| &**id),
    }
}

impl Drop for SubscriberPlace {
    fn drop(&mut self) {
        self.shared.topics.close_feed(&mut self.feed);
    }
}
