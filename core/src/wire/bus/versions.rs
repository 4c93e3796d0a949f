//! What each minor version of the bus socket appended to the one before.
//!
//! Owns the minor version: a row more is one more. Knows names only; what they mean is said where they are defined.

/// The version of everything behind the hellos. Both sides must have the same.
pub const MAJOR: u8 = 2;

/// How often something was appended since then. The sides may differ: it is said, and the lower one counts.
pub const MINOR: u8 = (APPENDED.len() - 1) as u8;

/// By minor version, from 0 on: the messages that came with it. A row that was released stays as it is; what is appended after that
/// has a row of its own.
pub const APPENDED: &[&[&str]] = &[
    &[
        "Role::Client",
        "Role::Worker",
        "Request::SendTo",
        "Request::SendMany",
        "Request::Broadcast",
        "Request::Disconnect",
        "Request::KeepAlive",
        "Request::Node",
        "Request::NodeOfChannel",
        "Request::NodeOfConnection",
        "Request::Page",
        "Request::Stats",
        "Request::HeartbeatTimeout",
        "Request::SetHeartbeatTimeout",
        "Request::Connections",
        "Request::CloseDoor",
        "Request::SetMetadata",
        "Request::Find",
        "Reply::Done",
        "Reply::Count",
        "Reply::Node",
        "Reply::Page",
        "Reply::Stats",
        "Reply::Micros",
        "Reply::Connections",
        "WorkerMessage::Ready",
        "WorkerMessage::Subscribe",
        "WorkerMessage::Acknowledge",
        "WorkerMessage::Leave",
        "WorkerMessage::Watch",
        "WorkerMessage::Unwatch",
        "WorkerMessage::AcknowledgePart",
        "WorkerMessage::TakeLog",
        "ServerMessage::Part",
        "ServerMessage::Batch",
        "ServerMessage::Stopping",
        "ServerMessage::Finished",
        "ServerMessage::Log",
    ],
    &[
        "Request::Publish",
        "Request::BroadcastExcept",
        "Request::Subscribers",
        "Request::Topics",
        "Request::Join",
        "Request::Leave",
        "Request::Members",
        "Request::TopicsOf",
        "Reply::Publication",
        "Reply::Topics",
        "Reply::Names",
    ],
    &[
        "Role::Subscriber",
        "WorkerMessage::SubscribeTopics",
        "WorkerMessage::UnsubscribeTopics",
        "SubscriberMessage::Subscribe",
        "SubscriberMessage::Unsubscribe",
        "FeedMessage::Subscribed",
        "FeedMessage::Refused",
        "FeedMessage::Message",
        "FeedMessage::Gap",
    ],
    &[
        "Request::Decide",
        "DecisionRecord::Refuse",
        "DecisionRecord::Allow",
        "DecisionRecord::AllowWithMetadata",
        "DecisionRecord::AllowTopics",
        "DecisionRecord::AllowPublication",
        "SubscriberMessage::SubscribeFrom",
        "FeedMessage::Begun",
        "FeedMessage::Lost",
    ],
];
