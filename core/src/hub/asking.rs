//! What the host is asked to decide, and what it answers.
//!
//! Owns the checks of an answer. Which questions are open is [`Decisions`]'; who waits, and what becomes of it, the sessions' business.
//!
//! [`Decisions`]: super::decisions::Decisions

use super::decisions::NoAnswer;
use super::event::Event;
use super::hub::Hub;
use super::refusal::Refusal;
use super::resume::Resume;
use crate::model::{Decision, EventMask};
use crate::wire::metadata::{MAX_METADATA_LEN, keys};
use crate::wire::topic::{Filter, check_name, is_of_server};
use std::sync::Arc;

impl Hub {
    /// Whether the host is to be asked before something of this kind happens.
    #[inline]
    pub(super) fn asks(&self, kind: EventMask) -> bool {
        self.host().wants(kind)
    }

    /// Asks the host alone: observers have nothing to decide.
    ///
    /// # Errors
    /// The event itself, where the host has no room for it: whoever asks stops reading, and asks again once it is resumed.
    pub(super) fn ask(&self, question: Event, producer: Arc<dyn Resume>) -> Result<(), Event> {
        let bytes = question.payload_len();
        self.host().push_data(question, bytes, producer)
    }

    /// The host's answer to a question.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQuestion`], which is counted; [`Refusal::NotMetadata`], [`Refusal::MetadataTooLong`], [`Refusal::NotFilters`], [`Refusal::NotTopic`], [`Refusal::TooLong`],
    /// [`Refusal::OtherQuestion`]: the question stays open.
    pub fn decide(&self, question: u32, decision: Decision) -> Result<(), Refusal> {
        match &decision {
            Decision::AllowWithMetadata(members) => {
                keys(members).map_err(|_| Refusal::NotMetadata)?;
                if members.len() > MAX_METADATA_LEN {
                    return Err(Refusal::MetadataTooLong);
                }
            }
            Decision::AllowTopics(filters) if filters.iter().any(|filter| Filter::parse(filter).is_err()) => {
                return Err(Refusal::NotFilters);
            }
            Decision::AllowPublication { topic, payload } => {
                if check_name(topic).is_err() || is_of_server(topic) {
                    return Err(Refusal::NotTopic);
                }
                if payload.len() > self.limits().max_frame_bytes as usize {
                    return Err(Refusal::TooLong);
                }
            }
            Decision::Refuse | Decision::Allow | Decision::AllowTopics(_) => {}
        }
        self.decisions().answer(question, decision).map_err(|none| match none {
            NoAnswer::NoSuchQuestion => Refusal::NoSuchQuestion,
            NoAnswer::OfOtherKind => Refusal::OtherQuestion,
        })
    }
}
