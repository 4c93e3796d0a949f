//! A publication, and where it stands among those of its topic; several of them, as they are read again.

pub use crate::model::Position;
use crate::wire::firetower;
use bytes::Bytes;
use std::sync::Arc;

/// A publication on its way to a thread's subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub topic: Arc<str>,
    /// `None` where the topic has no life of its own: it reaches those whose filter matches, and nothing is kept.
    pub position: Option<Position>,
    /// Counts the publications of all topics: whoever has subscribed at a higher number, or this one, does not get it.
    pub sequence: u64,
    pub payload: Bytes,
    pub origin: Origin,
}

/// Whose a publication is: Firetower's frames say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A client's of this server.
    #[default]
    User,
    /// The same, and of this node.
    Node(Arc<str>),
    /// The program's around it.
    Platform,
    /// The server's own.
    System,
    /// It came in a frame of Firetower's.
    Firetower(Box<FireOrigin>),
}

/// What such a frame says beside topic and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FireOrigin {
    pub kind: FireKind,
    pub message_id: Box<str>,
    pub source: Box<str>,
    /// It came from the manager that this server is a gateway of.
    pub is_from_manager: bool,
}

/// What a frame of Firetower's that is handed to subscribers asks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FireKind {
    Publish,
    /// To be followed by clients, and by gateways for theirs.
    Order(FireOrder),
    /// Nobody knows but gateways, perhaps.
    Other(Box<str>),
}

/// What Firetower's clients are told to do without a word.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FireOrder {
    /// Everybody leaves the topic,
    OfflineTopic,
    /// or the user that is named does;
    OfflineTopicByUser,
    /// the connections of this user are closed.
    OfflineUser,
}

impl FireKind {
    pub fn of(kind: &str) -> Self {
        match kind {
            firetower::PUBLISH => Self::Publish,
            firetower::OFFLINE_TOPIC => Self::Order(FireOrder::OfflineTopic),
            firetower::OFFLINE_TOPIC_BY_USER => Self::Order(FireOrder::OfflineTopicByUser),
            firetower::OFFLINE_USER => Self::Order(FireOrder::OfflineUser),
            other => Self::Other(other.into()),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Publish => firetower::PUBLISH,
            Self::Order(FireOrder::OfflineTopic) => firetower::OFFLINE_TOPIC,
            Self::Order(FireOrder::OfflineTopicByUser) => firetower::OFFLINE_TOPIC_BY_USER,
            Self::Order(FireOrder::OfflineUser) => firetower::OFFLINE_USER,
            Self::Other(other) => other,
        }
    }
}

impl Origin {
    /// Whether it is a publication, which all subscribers get and of which something may be kept.
    pub fn is_publication(&self) -> bool {
        self.kind() == &FireKind::Publish
    }

    pub fn kind(&self) -> &FireKind {
        if let Self::Firetower(origin) = self { &origin.kind } else { &FireKind::Publish }
    }

    pub fn source(&self) -> &str {
        match self {
            Self::User | Self::Node(_) => firetower::USER,
            Self::Platform => firetower::PLATFORM,
            Self::System => firetower::SYSTEM,
            Self::Firetower(origin) => &origin.source,
        }
    }

    /// The node that has published it.
    pub fn node(&self) -> Option<&Arc<str>> {
        if let Self::Node(id) = self { Some(id) } else { None }
    }

    /// As it came with it.
    pub fn message_id(&self) -> Option<&str> {
        if let Self::Firetower(origin) = self { Some(&origin.message_id) } else { None }
    }

    /// What it takes in memory of its own.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Firetower(origin) => {
                let kind = if let FireKind::Other(kind) = &origin.kind { kind.len() } else { 0 };
                size_of::<FireOrigin>() + kind + origin.message_id.len() + origin.source.len()
            }
            Self::User | Self::Node(_) | Self::Platform | Self::System => 0,
        }
    }

    pub fn is_from_manager(&self) -> bool {
        matches!(self, Self::Firetower(origin) if origin.is_from_manager)
    }
}

/// A part of what is kept of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptPart {
    pub publications: Vec<Publication>,
    /// The first of them is not the one that comes next: what was in between is not kept any more.
    pub has_gap: bool,
    /// There is no more: who has read this goes on with what has a higher number.
    pub since: Option<u64>,
}
