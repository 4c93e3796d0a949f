//! A publication on its way to threads: encoded once in each form that is wanted, when the first subscriber is found who wants it.
//!
//! Owns the bodies. To whom it goes is decided by each thread.

use super::firetower::MessageId;
use super::frame::{Body, QueuedFrame};
use super::handed_over::FanOutShare;
use super::memory::Memory;
use super::node_ref::NodeRef;
use super::refusal::Refusal;
use super::topics::Publication;
use crate::wire::firetower::FireFrame;
use crate::wire::topic_frames::Message;
use crate::wire::{Dialect, FrameType, Framing};
use std::sync::{Arc, OnceLock};

/// A publication on its way to the subscribers of threads.
pub struct TopicFanOut {
    publication: Arc<Publication>,
    /// Nodes that do not get it, in order.
    except: Box<[NodeRef]>,
    v1: OnceLock<Result<Body, Refusal>>,
    v2: OnceLock<Body>,
    json: OnceLock<Result<Body, Refusal>>,
    /// The payload alone, which is a text.
    text: OnceLock<Option<Body>>,
    /// For Firetower's gateways.
    fire: OnceLock<Option<Body>>,
    /// What it is called among them, where it came without.
    message_id: MessageId,
    memory: Arc<Memory>,
    max_frame_bytes: usize,
    _share: FanOutShare,
}

impl TopicFanOut {
    /// `share`: what it takes of the room for what waits. `except` is in order.
    pub(super) fn new(
        publication: Arc<Publication>,
        except: Box<[NodeRef]>,
        message_id: MessageId,
        memory: &Arc<Memory>,
        max_frame_bytes: usize,
        share: FanOutShare,
    ) -> Self {
        Self {
            publication,
            except,
            v1: OnceLock::new(),
            v2: OnceLock::new(),
            json: OnceLock::new(),
            text: OnceLock::new(),
            fire: OnceLock::new(),
            message_id,
            memory: memory.clone(),
            max_frame_bytes,
            _share: share,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(topic: &str, sequence: u64, memory: &Arc<Memory>) -> Self {
        let (position, payload, origin) = (None, "x".into(), super::topics::Origin::default());
        let publication = Publication { topic: topic.into(), position, sequence, payload, origin };
        let share = super::handed_over::HandedOver::default().share(1, 1, 1 << 20, memory).expect("nothing waits");
        Self::new(Arc::new(publication), Box::default(), MessageId { instance: 1, sequence }, memory, 1 << 20, share)
    }

    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Whether a node is one of those who do not get it.
    pub fn leaves_out(&self, node: NodeRef) -> bool {
        !self.except.is_empty() && self.except.binary_search(&node).is_ok()
    }

    /// As a frame for a channel; `None`: the dialect cannot carry it.
    pub fn frame(&self, dialect: Dialect, channel_id: u32) -> Option<QueuedFrame> {
        let body = match dialect {
            Dialect::V1 => self.v1.get_or_init(|| self.encode_v1()).as_ref().ok()?,
            Dialect::V2 => self.v2.get_or_init(|| self.encode_v2()),
        };
        Some(QueuedFrame::new(dialect, FrameType::MESSAGE, channel_id, body.clone()))
    }

    /// As a frame that is spelled as JSON.
    pub fn json_frame(&self, channel_id: u32) -> Option<QueuedFrame> {
        let body = self.json.get_or_init(|| {
            // Its head begins the object.
            let object = payload(Dialect::V1, &self.publication)?;
            Ok(Body::encode(Dialect::V2, &object[1..], &self.memory)?)
        });
        let body = body.as_ref().ok()?.clone();
        Some(QueuedFrame::new(Dialect::V1, FrameType::MESSAGE, channel_id, body).within(Framing::Json))
    }

    /// As Firetower's clients get it; `None`: it is no text.
    pub fn text_frame(&self) -> Option<QueuedFrame> {
        let body = self.text.get_or_init(|| {
            let payload = simdutf8::basic::from_utf8(&self.publication.payload).ok()?;
            Body::encode(Dialect::V2, payload.as_bytes(), &self.memory).ok()
        });
        Some(QueuedFrame::new(Dialect::V1, FrameType::MESSAGE, 0, body.clone()?).within(Framing::Firetower))
    }

    /// As Firetower's gateways get it; `None`: its topic cannot stand in a frame of theirs.
    pub fn fire_frame(&self) -> Option<QueuedFrame> {
        let body = self.fire.get_or_init(|| {
            let Publication { topic, payload, origin, .. } = &*self.publication;
            let own = self.message_id.to_string();
            let mut frame = Vec::with_capacity(128 + payload.len());
            FireFrame {
                kind: origin.kind().as_str(),
                message_id: origin.message_id().unwrap_or(&own),
                source: origin.source(),
                topic,
                content: payload,
            }
            .write(&mut frame)
            .ok()?;
            Body::encode(Dialect::V2, &frame, &self.memory).ok()
        });
        Some(QueuedFrame::new(Dialect::V1, FrameType::MESSAGE, 0, body.clone()?).within(Framing::FireHeader))
    }

    fn encode_v1(&self) -> Result<Body, Refusal> {
        let body = Body::encode(Dialect::V1, &payload(Dialect::V1, &self.publication)?, &self.memory)?;
        let longest = QueuedFrame::new(Dialect::V1, FrameType::MESSAGE, u32::MAX, body.clone());
        if longest.counted_len() > self.max_frame_bytes { Err(Refusal::TooLong) } else { Ok(body) }
    }

    fn encode_v2(&self) -> Body {
        let payload = payload(Dialect::V2, &self.publication).unwrap_or_default();
        Body::encode(Dialect::V2, &payload, &self.memory).unwrap_or_else(|_| unreachable!("v2 carries any bytes"))
    }
}

/// A MESSAGE's payload.
pub(super) fn payload(dialect: Dialect, publication: &Publication) -> Result<Vec<u8>, Refusal> {
    let Publication { topic, position, payload, .. } = publication;
    let mut out = Vec::new();
    Message { topic: (&**topic).into(), position: *position, data: (&**payload).into() }.encode(dialect, &mut out)?;
    Ok(out)
}
