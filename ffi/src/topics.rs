//! Topics for C: what a publication became, topics in lists. The functions are rows of `calls.rs`.

use crate::event::keep;
use bumpalo::Bump;
use heartbus_core::service::{PublicationRecord, TopicRecord};
use std::ffi::c_char;

/// What became of a publication: its position in its topic, 0 and 0 where that has none, and for how many subscriptions it was
/// queued.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_publication {
    /// From 1 on, within an epoch.
    pub offset: u64,
    /// One life of the topic.
    pub epoch: u64,
    pub reach: u64,
    /// 0.
    pub reserved: [u64; 2],
}

/// A topic in a list.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_topic {
    pub topic: *const c_char,
    pub topic_len: usize,
    /// By its name, and through filters that match it.
    pub subscribers: u64,
    /// 0.
    pub reserved: [u64; 2],
}

impl heartbus_publication {
    pub(crate) fn new(record: PublicationRecord) -> Self {
        let (offset, epoch) = record.position.unwrap_or_default();
        Self { offset, epoch, reach: record.reach, reserved: [0; 2] }
    }
}

impl heartbus_topic {
    pub(crate) fn new(record: &TopicRecord, texts: &Bump) -> Self {
        let (topic, topic_len) = keep(texts, &record.name);
        Self { topic, topic_len, subscribers: record.subscribers, reserved: [0; 2] }
    }
}
