//! Records: copies of what is known about nodes and connections, for whoever may not hold them themselves.

use serde::{Deserialize, Deserializer, Serialize};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

/// The metadata of all nodes that sent none.
pub(crate) static NO_METADATA: LazyLock<Arc<str>> = LazyLock::new(|| "[]".into());

/// A copy of what is known about a node. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    #[serde(deserialize_with = "text")]
    pub id: Arc<str>,
    pub peer: SocketAddr,
    pub connection_id: u64,
    pub channel_id: u32,
    pub online: bool,
    pub last_heartbeat: f64,
    pub heartbeat_count: u64,
    pub total_messages: u64,
    /// 0 before the first message.
    pub last_message: f64,
    pub created_at: f64,
    /// Bytes that wait to be written to its connection.
    pub bytes_waiting: u64,
    /// JSON text, `[]` when the node sent none.
    #[serde(deserialize_with = "metadata")]
    pub metadata: Arc<str>,
}

/// Copied once, where serde's own way for an [`Arc`] copies twice.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    <&str>::deserialize(deserializer).map(Arc::from)
}

/// Almost all nodes have none, which is kept once.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    Ok(if text == "[]" { NO_METADATA.clone() } else { text.into() })
}

/// A copy of what is known about an open connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    pub id: u64,
    pub peer: SocketAddr,
    pub nodes: usize,
    pub first_node: Option<Arc<str>>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes of a frame whose rest has not come, or that wait for the host.
    pub bytes_waiting_in: usize,
    pub bytes_waiting_out: usize,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedPeer {
    pub address: SocketAddr,
    /// Whose connection a client of Firetower's has said it is.
    pub user: Option<Arc<str>>,
}

/// A subscription that has begun or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicChange {
    pub connection_id: u64,
    pub who: ConnectedPeer,
    /// A topic or a filter.
    pub topic: Arc<str>,
    pub has_subscribed: bool,
}
