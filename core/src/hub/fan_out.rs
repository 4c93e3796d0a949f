//! One payload for many nodes: encoded once in each dialect that is wanted, and handed to each thread once.
//!
//! Owns the bodies, and the bound on what has been handed over and not gone out to all who are meant. Does not know whose connections
//! these are: each thread walks its own.

use super::counters::Counters;
use super::frame::{Body, QueuedFrame};
use super::handed_over::{FanOutShare, HandedOver};
use super::link::Link;
use super::memory::Memory;
use super::node::Node;
use super::node_ref::NodeRef;
use super::refusal::Refusal;
use super::topic_fan_out::TopicFanOut;
use crate::wire::{Dialect, FrameType};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Takes what is for many of a thread's connections, in the order of posting, which is one order with that of commands.
pub trait FanOutSink: Send + Sync {
    fn post_fan_out(&self, fan_out: Arc<FanOut>);

    fn post_publication(&self, fan_out: Arc<TopicFanOut>);
}

/// A thread that has connections.
pub struct HubThread {
    pub sink: Arc<dyn FanOutSink>,
    pub counters: Arc<Counters>,
}

/// A payload on its way to the threads.
pub struct FanOut {
    /// Made when somebody is found who wants it, unless it was known that there is one.
    v1: OnceLock<Result<Body, Refusal>>,
    /// Always there unless v1's is.
    v2: Option<Body>,
    memory: Arc<Memory>,
    max_frame_bytes: usize,
    /// Nodes that do not get it, in order.
    except: Box<[NodeRef]>,
    waiting: Option<FanOutShare>,
}

impl FanOut {
    /// `speaks_v1`, `speaks_v2`: whether nodes are known to be there that do. The payload must be no longer than a frame may be.
    pub(super) fn new(payload: &[u8], speaks_v1: bool, speaks_v2: bool, max_frame_bytes: usize, memory: &Arc<Memory>) -> Self {
        let v1 = OnceLock::new();
        if speaks_v1 {
            v1.get_or_init(|| encode_v1(payload, max_frame_bytes, memory));
        }
        let is_enough = matches!(v1.get(), Some(Ok(_))) && !speaks_v2;
        let v2 = if is_enough { None } else { Body::encode(Dialect::V2, payload, memory).ok() };
        Self { v1, v2, memory: memory.clone(), max_frame_bytes, except: Box::default(), waiting: None }
    }

    /// Without these nodes, which are in order.
    pub(super) fn except(mut self, nodes: Box<[NodeRef]>) -> Self {
        self.except = nodes;
        self
    }

    #[cfg(test)]
    pub(crate) fn for_test(payload: &[u8], memory: &Arc<Memory>) -> Self {
        Self::new(payload, true, true, 1 << 20, memory)
    }

    /// Why those who speak v1 do not get it, where it is known that there are some.
    pub(super) fn v1_refusal(&self) -> Option<Refusal> {
        self.v1.get().and_then(|body| body.as_ref().err().copied())
    }

    /// As a frame for a node's main channel; `None`: its dialect cannot carry it, or it is left out.
    pub fn frame(&self, node: &Node) -> Option<QueuedFrame> {
        if !self.except.is_empty() && self.except.binary_search(&node.reference()).is_ok() {
            return None;
        }
        let (dialect, body) = self.body(node.link())?;
        Some(QueuedFrame::new(dialect, FrameType::DATA, node.channel_id(), body.clone()).within(node.link().framing()))
    }

    fn body(&self, link: &Link) -> Option<(Dialect, &Body)> {
        let v2 = self.v2.as_ref().map(|body| (Dialect::V2, body));
        if link.dialect() == Dialect::V2 && v2.is_some() {
            return v2;
        }
        // Whoever has spoken v2 only since still reads v1.
        match self.v1.get_or_init(|| encode_v1(self.v2.as_deref().unwrap_or_default(), self.max_frame_bytes, &self.memory)) {
            Ok(body) => Some((Dialect::V1, body)),
            Err(Refusal::NotUtf8) if link.will_speak_v2() => v2,
            Err(_) => None,
        }
    }
}

/// It is short enough whatever the channels of its receivers are.
fn encode_v1(payload: &[u8], max_frame_bytes: usize, memory: &Arc<Memory>) -> Result<Body, Refusal> {
    let body = Body::encode(Dialect::V1, payload, memory)?;
    let longest = QueuedFrame::new(Dialect::V1, FrameType::DATA, u32::MAX, body.clone());
    if longest.counted_len() > max_frame_bytes { Err(Refusal::TooLong) } else { Ok(body) }
}

/// What was handed to the threads and is not done with.
#[derive(Default)]
pub(super) struct FanOuts {
    waiting: HandedOver,
    /// Whoever posts holds it: all threads get them in one order.
    order: Mutex<()>,
}

impl FanOuts {
    /// Hands it to all threads; false where too much waits. `deliveries`: how many that may be. `outbox_bytes`: the bound of one
    /// connection.
    pub(super) fn post(&self, mut fan_out: FanOut, len: usize, deliveries: usize, outbox_bytes: usize, threads: &[HubThread]) -> bool {
        let _order = self.lock();
        fan_out.waiting = self.share(len, deliveries, outbox_bytes, &fan_out.memory);
        if fan_out.waiting.is_none() {
            return false;
        }
        let fan_out = Arc::new(fan_out);
        for thread in threads {
            thread.sink.post_fan_out(fan_out.clone());
        }
        true
    }

    /// Room for something that is handed to threads, on the terms of [`FanOuts::post`]; `None` where too much waits.
    pub(super) fn share(&self, len: usize, deliveries: usize, outbox_bytes: usize, memory: &Memory) -> Option<FanOutShare> {
        self.waiting.share(len, deliveries, outbox_bytes, memory)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::handed_over::{FIXED_BYTES, MAX_WAITING};
    use super::super::link::BURST;
    use super::*;

    #[derive(Default)]
    struct Posted(Mutex<Vec<Arc<FanOut>>>);

    impl FanOutSink for Posted {
        fn post_fan_out(&self, fan_out: Arc<FanOut>) {
            self.0.lock().unwrap().push(fan_out);
        }

        fn post_publication(&self, _: Arc<TopicFanOut>) {}
    }

    fn threads() -> (Arc<Posted>, Vec<HubThread>) {
        let posted = Arc::new(Posted::default());
        let thread = || HubThread { sink: posted.clone(), counters: Arc::default() };
        (posted.clone(), vec![thread(), thread()])
    }

    #[test]
    fn a_payload_is_encoded_in_the_dialects_that_somebody_speaks_and_counted_until_all_threads_are_done() {
        let memory = Arc::new(Memory::new(1 << 20));
        let text = [b'x'; 1000];
        let counted = |speaks_v1, speaks_v2| {
            let fan_out = FanOut::new(&text, speaks_v1, speaks_v2, 1 << 20, &memory);
            assert!(fan_out.v1_refusal().is_none());
            memory.total()
        };
        let (one, other, both) = (counted(true, false), counted(false, true), counted(true, true));
        assert!((1000..1100).contains(&one) && (1000..1100).contains(&other), "{one} {other}");
        assert_eq!(both, one + other);
        assert_eq!(memory.total(), 0);
    }

    #[test]
    fn what_v1_cannot_carry_is_known_before_it_is_handed_over() {
        let memory = Arc::new(Memory::new(1 << 20));
        let refusal = |payload: &[u8]| FanOut::new(payload, true, false, 100, &memory).v1_refusal();
        assert_eq!([refusal(b"\xff"), refusal(&[1; 90]), refusal(b"x")], [Some(Refusal::NotUtf8), Some(Refusal::TooLong), None]);
    }

    #[test]
    fn more_deliveries_or_bytes_than_may_wait_are_refused_until_the_last_thread_is_done() {
        const OUTBOX: usize = 1000;
        let memory = Arc::new(Memory::new(usize::MAX));
        let (fan_outs, (posted, threads)) = (FanOuts::default(), threads());
        let post = |len: usize, deliveries| fan_outs.post(FanOut::for_test(&vec![b'x'; len], &memory), len, deliveries, OUTBOX, &threads);
        assert!(post(1, 2 * MAX_WAITING), "one alone always goes");
        assert!(!post(1, 1));
        posted.0.lock().unwrap().pop();
        assert!(!post(1, 1), "one thread is not done");
        posted.0.lock().unwrap().clear();
        assert!(post(BURST * OUTBOX - 2 * FIXED_BYTES, 1) && post(0, 1) && !post(0, 1));
        posted.0.lock().unwrap().clear();
        assert!(post(0, MAX_WAITING - 1) && post(0, 1) && !post(0, 1));
        assert_eq!(posted.0.lock().unwrap().len(), 4, "each thread has each of them");
    }

    #[test]
    fn where_too_much_is_kept_for_all_together_one_goes_at_a_time() {
        let memory = Arc::new(Memory::new(10));
        let (fan_outs, (posted, threads)) = (FanOuts::default(), threads());
        let post = || fan_outs.post(FanOut::for_test(&[b'x'; 100], &memory), 100, 1, 1 << 20, &threads);
        assert!(post() && !post());
        posted.0.lock().unwrap().clear();
        assert!(post());
    }
}
