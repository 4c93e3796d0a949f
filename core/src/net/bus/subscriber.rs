//! A connection of a process that has subscribed to topics: filters in, publications out.
//!
//! Owns the process's feed, from its first word to its end. What waits for it, and what is dropped at the bound of that, is the hub's
//! business; here no more waits than the socket is about to take. While that takes nothing, nothing is read either.

use super::connection::{BusConnection, End};
use super::remote::remote_error;
use super::shared::{BusShared, Stage};
use crate::hub::feeds::{Fed, TopicFeed};
use crate::wire::bus::{self as wire, FeedMessage, SubscriberMessage};
use std::rc::Rc;
use tokio::task::yield_now;

/// With so much to write nothing more is taken out of the feed, and nothing more is answered.
const OUTPUT_BYTES: usize = 64 << 10;

/// Publications that are written before others on the thread have their turn.
const TOGETHER: usize = 64;

/// What a process has subscribed to. Dropping it ends that.
struct SubscriberPlace {
    shared: Rc<BusShared>,
    feed: TopicFeed,
    has_skipped: bool,
}

/// Serves a subscriber until it hangs up, is gone, or the server has stopped.
pub(super) async fn serve(connection: &mut BusConnection) -> Result<(), End> {
    let shared = connection.shared.clone();
    let mut stage = shared.stage.subscribe();
    // Of a server that stops at this moment there is nothing to hear.
    let Ok(feed) = shared.topics.open_feed() else { return Ok(()) };
    connection.has_own_bounds = true;
    let mut place = SubscriberPlace { shared, feed, has_skipped: false };
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
        if !taken.is_empty() || !has_heard_all && has_room {
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
            if connection.backlog() >= OUTPUT_BYTES {
                return Ok(false);
            }
            let Some(frame) = connection.frame()? else { return Ok(true) };
            match wire::decode(&frame) {
                Ok(SubscriberMessage::Subscribe { filter }) => {
                    let answer = match self.shared.topics.follow(&mut self.feed, &filter) {
                        Ok(()) => FeedMessage::Subscribed { filter: &filter },
                        Err(error) => FeedMessage::Refused { filter: &filter, error: remote_error(error) },
                    };
                    wire::write_message(&mut connection.output, &answer);
                }
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

    fn write(&mut self, connection: &mut BusConnection, taken: &mut Vec<Fed>) {
        if connection.backlog() >= OUTPUT_BYTES || self.feed.take(taken, TOGETHER) == 0 {
            return;
        }
        let mut messages = 0;
        for fed in &*taken {
            let message = match fed {
                Fed::Gap { dropped } => FeedMessage::Gap { dropped: *dropped },
                Fed::Publication(publication) => {
                    messages += 1;
                    FeedMessage::Message {
                        topic: &publication.topic,
                        payload: &publication.payload,
                        position: publication.position.map(|position| (position.offset, position.epoch)),
                        from: publication.origin.node().map(|id| &**id),
                    }
                }
            };
            wire::write_message(&mut connection.output, &message);
        }
        self.shared.topics.count_fed(messages);
    }
}

impl Drop for SubscriberPlace {
    fn drop(&mut self) {
        self.shared.topics.close_feed(&mut self.feed);
    }
}
