//! A worker's connection: events out, acknowledgements in.
//!
//! Owns the worker's place in the dispatch, from its first word to its end. Which events it gets is decided there; what may
//! wait here is bounded by the batches that it may have in hand.

use super::dispatcher::Dispatcher;
use super::session::{Caller, End};
use super::{Hall, Stage};
use crate::event::EventMask;
use crate::hub::batch::BatchWriter;
use crate::hub::dispatch::WorkerId;
use crate::wire::bus::{self as wire, Broken, News, Word};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// With so much to write no more batches are fetched.
const OUTPUT_BYTES: usize = 256 << 10;

/// How often the rest of what a dead worker has said is read. More than a socket's queue holds; who writes on and on while
/// it reads nothing is not dead.
const LAST_READS: usize = 256;

/// A worker's place. Dropping it gives everything that is not acknowledged to the others.
struct Place {
    hall: Rc<Hall>,
    dispatcher: Arc<Dispatcher>,
    worker: WorkerId,
    state: State,
    has_refused_watch: bool,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum State {
    Attached,
    Joined,
    Leaving,
    /// It left before it was ready.
    Gone,
}

/// Serves a worker until it left, is gone, or the server has stopped.
pub(super) async fn serve(caller: &mut Caller, dispatcher: Arc<Dispatcher>) -> Result<(), End> {
    let hall = caller.hall.clone();
    let worker = hall.next_worker.get();
    hall.next_worker.set(worker + 1);
    caller.is_worker = true;
    let wake = Rc::new(Notify::new());
    hall.workers.borrow_mut().insert(worker, wake.clone());
    let mut place = Place { hall: hall.clone(), dispatcher, worker, state: State::Attached, has_refused_watch: false };
    let end = attend(caller, &mut place, &wake).await;
    if matches!(end, Err(End::Gone | End::Lost(_))) {
        // It may be the writing that failed: what it has acknowledged before it died still counts.
        for _ in 0..LAST_READS {
            if !caller.try_fill().unwrap_or(false) || place.hear_all(caller).is_err() {
                break;
            }
        }
    }
    end
}

async fn attend(caller: &mut Caller, place: &mut Place, wake: &Notify) -> Result<(), End> {
    let Place { hall, worker, .. } = place;
    let (hall, worker) = (hall.clone(), *worker);
    let mut stage = hall.stage.subscribe();
    let mut was_told = false;
    let mut batches = BatchWriter::default();
    // Its connection lives on in processes that it forked; it does not.
    let process = caller.process();
    let death = async {
        match &process {
            Some(process) => drop(process.readable().await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(death);
    wire::write_welcome(&mut caller.output, &hall.desk.welcome(worker));
    loop {
        place.hear_all(caller)?;
        // First, so that what was written makes room for the next batch.
        caller.try_flush()?;
        while caller.backlog() < OUTPUT_BYTES
            && let Some(batch) = place.dispatcher.with(|dispatch| dispatch.next_batch(worker))
        {
            batches.write(&mut caller.output, &batch, hall.clock.now());
        }
        while caller.backlog() < OUTPUT_BYTES
            && let Some(line) = hall.log.next(worker)
        {
            wire::write_log(&mut caller.output, &line);
        }
        hall.progress.notify_one();
        let now = *stage.borrow_and_update();
        if now != Stage::Open && !was_told {
            was_told = true;
            wire::write_news(&mut caller.output, News::Stopping);
        }
        if now == Stage::Finished || place.is_done() {
            wire::write_news(&mut caller.output, News::Finished);
            caller.say_goodbye().await;
            return Ok(());
        }
        tokio::select! {
            turned = caller.turn() => turned?,
            () = &mut death => return Err(End::Gone),
            () = wake.notified() => {}
            _ = stage.changed() => {}
        }
    }
}

impl Place {
    fn hear_all(&mut self, caller: &mut Caller) -> Result<(), End> {
        while let Some(frame) = caller.frame()? {
            self.hear(wire::decode(&frame)?)?;
        }
        Ok(())
    }

    fn hear(&mut self, word: Word) -> Result<(), Broken> {
        let worker = self.worker;
        let mask = |mask: u32| EventMask(mask & EventMask::ALL.0 & !EventMask::CLIENT.0);
        match (word, self.state) {
            (Word::Ready { mask: bits }, State::Attached) => {
                self.state = State::Joined;
                self.dispatcher.with(|dispatch| dispatch.join(worker, mask(bits)));
            }
            (Word::Ready { .. }, _) => return Err(Broken("it was ready twice")),
            (Word::Leave, State::Attached | State::Gone) => self.state = State::Gone,
            (Word::Leave, _) => {
                self.state = State::Leaving;
                self.hall.log.remove_taker(worker);
                self.dispatcher.with(|dispatch| dispatch.leave(worker));
            }
            (_, State::Attached | State::Gone) => return Err(Broken("it spoke before it was ready")),
            (Word::Subscribe { mask: bits }, _) => self.dispatcher.with(|dispatch| dispatch.subscribe(worker, mask(bits))),
            (Word::Acknowledge { batch }, _) => {
                // Dropped here, not under the lock.
                let done = self.dispatcher.with(|dispatch| dispatch.acknowledge(worker, batch));
                if done.is_none() {
                    return Err(Broken("it acknowledged a batch out of turn"));
                }
            }
            (Word::AcknowledgePart { batch, done, begun }, _) => {
                let (done, begun) = (done as usize, begun as usize);
                if !self.dispatcher.with(|dispatch| dispatch.acknowledge_part(worker, batch, done, begun)) {
                    return Err(Broken("it acknowledged a part of no batch of its own"));
                }
            }
            (Word::Watch { channel }, _) => {
                if !self.dispatcher.with(|dispatch| dispatch.watch(worker, channel)) && !self.has_refused_watch {
                    // Told once: what it watches already is enough to fill its queue.
                    self.has_refused_watch = true;
                    tracing::warn!(worker, channel, "A worker watches no more channels");
                }
            }
            (Word::TakeLog, State::Leaving) => {}
            (Word::TakeLog, _) => self.hall.log.add_taker(worker),
            (Word::Unwatch { channel }, _) => self.dispatcher.with(|dispatch| dispatch.unwatch(worker, channel)),
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        match self.state {
            State::Attached | State::Joined => false,
            State::Leaving => self.dispatcher.with(|dispatch| dispatch.has_drained(self.worker)),
            State::Gone => true,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hall.log.remove_taker(self.worker);
        self.hall.workers.borrow_mut().remove(&self.worker);
        self.dispatcher.with(|dispatch| dispatch.remove(self.worker));
        self.hall.progress.notify_one();
    }
}
