//! A worker's connection: events out, acknowledgements in.
//!
//! Owns the worker's place in the dispatch, from its first word to its end. Which events it gets is decided there; what may
//! wait here is bounded by the batches that it may have in hand.

use super::connection::{BusConnection, End};
use super::dispatcher::Dispatcher;
use super::shared::{BusShared, Stage};
use crate::event::EventMask;
use crate::hub::batch::BatchWriter;
use crate::hub::dispatch::WorkerId;
use crate::wire::bus::{self as wire, DecodeError, ServerMessage, WorkerMessage};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// With so much to write no more batches are fetched.
const OUTPUT_BYTES: usize = 256 << 10;

/// How often the rest of what a dead worker has said is read. More than a socket's queue holds; who writes on and on while
/// it reads nothing is not dead.
const LAST_READS: usize = 256;

/// A worker's place. Dropping it gives everything that is not acknowledged to the others.
struct WorkerPlace {
    shared: Rc<BusShared>,
    dispatcher: Arc<Dispatcher>,
    worker: WorkerId,
    state: Standing,
    has_refused_watch: bool,
    has_refused_topic: bool,
    has_skipped: bool,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Standing {
    Attached,
    Joined,
    Leaving,
    /// It left before it was ready.
    Gone,
}

/// Serves a worker until it left, is gone, or the server has stopped.
pub(super) async fn serve(connection: &mut BusConnection, dispatcher: Arc<Dispatcher>) -> Result<(), End> {
    let shared = connection.shared.clone();
    let worker = shared.next_worker.get();
    shared.next_worker.set(worker + 1);
    connection.has_own_bounds = true;
    let wake = Rc::new(Notify::new());
    shared.workers.borrow_mut().insert(worker, wake.clone());
    let mut place = WorkerPlace {
        shared: shared.clone(),
        dispatcher,
        worker,
        state: Standing::Attached,
        has_refused_watch: false,
        has_refused_topic: false,
        has_skipped: false,
    };
    let end = attend(connection, &mut place, &wake).await;
    if matches!(end, Err(End::Gone | End::Lost(_))) {
        // It may be the writing that failed: what it has acknowledged before it died still counts.
        for _ in 0..LAST_READS {
            if !connection.try_fill().unwrap_or(false) || place.hear_all(connection).is_err() {
                break;
            }
        }
    }
    end
}

async fn attend(connection: &mut BusConnection, place: &mut WorkerPlace, wake: &Notify) -> Result<(), End> {
    let WorkerPlace { shared, worker, .. } = place;
    let (shared, worker) = (shared.clone(), *worker);
    let mut stage = shared.stage.subscribe();
    let mut was_told = false;
    let mut batches = BatchWriter::new(connection.version);
    let death = connection.death();
    tokio::pin!(death);
    wire::write_welcome(&mut connection.output, connection.version, &(shared.introduce)(worker));
    loop {
        place.hear_all(connection)?;
        // First, so that what was written makes room for the next batch.
        connection.try_flush()?;
        while connection.backlog() < OUTPUT_BYTES
            && let Some(batch) = place.dispatcher.with(|dispatch| dispatch.next_batch(worker))
        {
            batches.write(&mut connection.output, &batch, shared.clock.now());
        }
        while connection.backlog() < OUTPUT_BYTES
            && let Some(line) = shared.log.next(worker)
        {
            wire::write_log(&mut connection.output, &line);
        }
        shared.progress.notify_one();
        let now = *stage.borrow_and_update();
        if now != Stage::Open && !was_told {
            was_told = true;
            wire::write_server_message(&mut connection.output, ServerMessage::Stopping);
        }
        if now == Stage::Finished || place.is_done() {
            wire::write_server_message(&mut connection.output, ServerMessage::Finished);
            connection.say_goodbye().await;
            return Ok(());
        }
        tokio::select! {
            turned = connection.turn() => turned?,
            () = &mut death => return Err(End::Gone),
            () = wake.notified() => {}
            _ = stage.changed() => {}
        }
    }
}

impl WorkerPlace {
    fn hear_all(&mut self, connection: &mut BusConnection) -> Result<(), End> {
        while let Some(frame) = connection.frame()? {
            match wire::decode(&frame) {
                Ok(message) => self.hear(message)?,
                // From a worker that is newer than we are: it expects no answer, and does without.
                Err(error) => match wire::unknown_variant::<WorkerMessage>(&frame) {
                    Some(number) => self.skip(number),
                    None => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn hear(&mut self, word: WorkerMessage) -> Result<(), DecodeError> {
        let worker = self.worker;
        let mask = |mask: u32| EventMask(mask & (EventMask::ALL | EventMask::DECISIONS).0);
        match (word, self.state) {
            (WorkerMessage::Ready { mask: bits }, Standing::Attached) => {
                self.state = Standing::Joined;
                self.dispatcher.with(|dispatch| dispatch.join(worker, mask(bits)));
            }
            (WorkerMessage::Ready { .. }, _) => return Err(DecodeError("it was ready twice")),
            (WorkerMessage::Leave, Standing::Attached | Standing::Gone) => self.state = Standing::Gone,
            (WorkerMessage::Leave, _) => {
                self.state = Standing::Leaving;
                self.shared.log.remove_taker(worker);
                self.dispatcher.with(|dispatch| dispatch.leave(worker));
            }
            (_, Standing::Attached | Standing::Gone) => return Err(DecodeError("it spoke before it was ready")),
            (WorkerMessage::Subscribe { mask: bits }, _) => self.dispatcher.with(|dispatch| dispatch.subscribe(worker, mask(bits))),
            (WorkerMessage::Acknowledge { batch }, _) => {
                // Dropped here, not under the lock.
                let done = self.dispatcher.with(|dispatch| dispatch.acknowledge(worker, batch));
                if done.is_none() {
                    return Err(DecodeError("it acknowledged a batch out of turn"));
                }
            }
            (WorkerMessage::AcknowledgePart { batch, done, begun }, _) => {
                let (done, begun) = (done as usize, begun as usize);
                if !self.dispatcher.with(|dispatch| dispatch.acknowledge_part(worker, batch, done, begun)) {
                    return Err(DecodeError("it acknowledged a part of no batch of its own"));
                }
            }
            (WorkerMessage::Watch { channel }, _) => {
                if !self.dispatcher.with(|dispatch| dispatch.watch(worker, channel)) && !self.has_refused_watch {
                    // Told once: what it watches already is enough to fill its queue.
                    self.has_refused_watch = true;
                    tracing::warn!(worker, channel, "A worker watches no more channels");
                }
            }
            (WorkerMessage::SubscribeTopics { filter }, _) => self.listen(&filter),
            (WorkerMessage::UnsubscribeTopics { filter }, _) => {
                if self.dispatcher.with(|dispatch| dispatch.end_listening(worker, &filter)) {
                    self.shared.topics.end_listening(&filter);
                }
            }
            (WorkerMessage::TakeLog, Standing::Leaving) => {}
            (WorkerMessage::TakeLog, _) => self.shared.log.add_taker(worker),
            (WorkerMessage::Unwatch { channel }, _) => self.dispatcher.with(|dispatch| dispatch.unwatch(worker, channel)),
        }
        Ok(())
    }

    fn listen(&mut self, filter: &str) {
        let worker = self.worker;
        // First, so that nothing that is counted for it is not for it.
        if !self.dispatcher.with(|dispatch| dispatch.listen(worker, filter)) {
            return;
        }
        if let Err(error) = self.shared.topics.listen(filter) {
            self.dispatcher.with(|dispatch| dispatch.end_listening(worker, filter));
            if !self.has_refused_topic {
                self.has_refused_topic = true;
                tracing::warn!(worker, filter, %error, "A worker cannot subscribe to topics");
            }
        }
    }

    fn skip(&mut self, number: u32) {
        if !self.has_skipped {
            self.has_skipped = true;
            tracing::warn!(worker = self.worker, number, "A worker is newer than the engine: what it said was not understood");
        }
    }

    fn is_done(&self) -> bool {
        match self.state {
            Standing::Attached | Standing::Joined => false,
            Standing::Leaving => self.dispatcher.with(|dispatch| dispatch.has_drained(self.worker)),
            Standing::Gone => true,
        }
    }
}

impl Drop for WorkerPlace {
    fn drop(&mut self) {
        self.shared.log.remove_taker(self.worker);
        self.shared.workers.borrow_mut().remove(&self.worker);
        let filters = self.dispatcher.with(|dispatch| {
            let filters = dispatch.take_filters(self.worker);
            dispatch.remove(self.worker);
            filters
        });
        filters.iter().for_each(|filter| self.shared.topics.end_listening(filter));
        self.shared.progress.notify_one();
    }
}
