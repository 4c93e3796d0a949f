//! The engine as a [`Service`]: what each request does.
//!
//! Owns nothing: it bounds the answers, and leaves the rest to the engine. Does not know who asks, or whether he may.

use super::{BusStats, Engine, Node, NodeInfo, Published};
use crate::error::{Error, ErrorKind};
use crate::model::Decision;
use crate::service::{Reply, Request, Service};
use crate::wire::bus::{DecisionRecord, PAGE_BYTES, PublicationRecord, TopicRecord};
use crate::wire::metadata::Wanted;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Nodes on one page.
const MAX_PAGE: usize = 10_000;

/// Nodes fetched at once while those wanted are looked for, and nodes looked at for one page.
const SEARCH_STEP: usize = 512;
const SEARCH_LIMIT: usize = 10_000;

/// Bytes of metadata that are read for one page.
const READ_LIMIT: usize = 16 << 20;

/// Topics or ids on one page: 255 bytes each are about as much as a page of nodes.
const MAX_NAMES: usize = 4_000;

/// Topics of one node in an answer: many times what a connection may subscribe to by default.
const MAX_TOPICS_OF: usize = 32_000;

/// A node or connection in an answer, beside its texts.
const RECORD_BYTES: usize = 100;

impl Service for Engine {
    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        Ok(match request {
            Request::SendTo { node, channel, data } => done(self.send_to(node, data, *channel))?,
            Request::SendMany { nodes, data } => self.reply_send_many(nodes, data)?,
            Request::Broadcast { data } => Reply::Count(self.broadcast(data)? as u64),
            Request::Disconnect { node } => done(self.disconnect(node))?,
            Request::KeepAlive { node } => done(self.keep_alive(node))?,
            Request::Node { id } => self.reply_with(self.node(id)),
            Request::NodeOfChannel { channel } => self.reply_with(self.node_of_channel(*channel)),
            Request::NodeOfConnection { connection } => self.reply_with(self.node_of_connection(*connection)),
            Request::Page { after, limit, id_pattern, ip } => {
                let is_search = id_pattern.is_some() || ip.is_some();
                self.reply_page(*after, *limit as usize, |node| (is_named(node, *id_pattern, *ip), 0), is_search)
            }
            Request::Find { after, limit, id_pattern, ip, metadata } => {
                let no_filter =
                    |_| Error::new(ErrorKind::InvalidArgument, "The metadata to look for must be a JSON object of 1 to 16 scalars");
                let wanted = Wanted::parse(metadata).map_err(no_filter)?;
                let look = |node: &Node| {
                    if !is_named(node, *id_pattern, *ip) {
                        return (false, 0);
                    }
                    let text = node.metadata();
                    (wanted.matches(&text), text.len())
                };
                self.reply_page(*after, *limit as usize, look, true)
            }
            Request::SetMetadata { node, channel, members } => done(self.set_metadata(node, *channel, members))?,
            Request::Stats => Reply::Stats(BusStats { stats: self.stats(), timings: self.timings() }.to_record()),
            Request::HeartbeatTimeout => Reply::Micros(self.heartbeat_timeout().as_micros() as u64),
            Request::SetHeartbeatTimeout { micros } => done(self.set_heartbeat_timeout(Duration::from_micros(*micros)))?,
            Request::Connections { max } => self.reply_connections(*max as usize),
            Request::CloseDoor => {
                self.close_door();
                Reply::Done
            }
            Request::Publish { topic, data, except } => {
                let Published { position, reach } = self.publish(topic, data, except)?;
                let position = position.map(|position| (position.offset, position.epoch));
                Reply::Publication(PublicationRecord { position, reach: reach as u64 })
            }
            Request::BroadcastExcept { data, except } => Reply::Count(self.broadcast_except(data, except)? as u64),
            Request::Subscribers { topic } => Reply::Count(self.subscribers(topic)? as u64),
            Request::Topics { after, limit } => {
                let (topics, next) = self.topics(*after, (*limit as usize).clamp(1, MAX_NAMES))?;
                let record = |(name, count): (Arc<str>, usize)| TopicRecord { name: name.to_string(), subscribers: count as u64 };
                Reply::Topics { topics: topics.into_iter().map(record).collect(), next }
            }
            Request::Join { node, topic } => done(self.join(node, topic))?,
            Request::Leave { node, filter } => done(self.leave(node, filter))?,
            Request::Members { topic, after, limit } => {
                let (nodes, next) = self.members(topic, *after, (*limit as usize).clamp(1, MAX_NAMES))?;
                Reply::Names { names: nodes.iter().map(ToString::to_string).collect(), next }
            }
            Request::TopicsOf { node } => {
                let mut names = self.topics_of(node)?;
                names.truncate(MAX_TOPICS_OF);
                Reply::Names { names, next: None }
            }
            Request::Decide { question, decision } => done(self.decide(*question, decision_of(decision)))?,
        })
    }
}

impl Engine {
    fn reply_with(&self, node: Option<Arc<Node>>) -> Reply {
        Reply::Node(node.map(|node| node.info(self.now())))
    }

    fn reply_send_many(&self, nodes: &[&str], data: &[u8]) -> Result<Reply, Error> {
        let mut reached = 0;
        let mut refusal = None;
        for node in nodes {
            match self.send_to(node, data, 0) {
                Ok(()) => reached += 1,
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            // The fault of the data, or of the server: it would befall every node.
            Some(error) if reached == 0 && error.kind != ErrorKind::Limit => Err(error),
            _ => Ok(Reply::Count(reached)),
        }
    }

    /// `look` says whether a node is wanted, and how many bytes it took to see that.
    fn reply_page(&self, after: Option<u64>, limit: usize, look: impl Fn(&Node) -> (bool, usize), is_search: bool) -> Reply {
        let limit = limit.clamp(1, MAX_PAGE);
        let now = self.now();
        let mut nodes: Vec<NodeInfo> = Vec::new();
        let (mut bytes, mut looked, mut read, mut next) = (0, 0, 0, after);
        loop {
            let step = if is_search { SEARCH_STEP } else { limit - nodes.len() };
            let (found, behind) = self.page(next, step);
            let mut found = found.into_iter().peekable();
            while let Some(node) = found.next() {
                looked += 1;
                let (is_wanted, cost) = look(&node);
                read += cost;
                if is_wanted {
                    let info = node.info(now);
                    bytes += RECORD_BYTES + info.id.len() + info.metadata.len();
                    nodes.push(info);
                }
                let is_full = nodes.len() >= limit || bytes >= PAGE_BYTES || looked >= SEARCH_LIMIT || read >= READ_LIMIT;
                if is_full && found.peek().is_some() {
                    return Reply::Page { nodes, next: Some(self.place_of(&node)) };
                }
            }
            next = behind;
            if next.is_none() || nodes.len() >= limit || bytes >= PAGE_BYTES || looked >= SEARCH_LIMIT || read >= READ_LIMIT {
                return Reply::Page { nodes, next };
            }
        }
    }

    fn reply_connections(&self, max: usize) -> Reply {
        let mut bytes = 0;
        let mut connections = self.connections(max.min(PAGE_BYTES / RECORD_BYTES));
        let fits = connections.iter().take_while(|found| {
            bytes += RECORD_BYTES + found.first_node.as_ref().map_or(0, |id| id.len());
            bytes <= PAGE_BYTES
        });
        let fits = fits.count();
        connections.truncate(fits);
        Reply::Connections(connections)
    }
}

fn is_named(node: &Node, id_pattern: Option<&str>, ip: Option<IpAddr>) -> bool {
    id_pattern.is_none_or(|pattern| matches(pattern, node.id())) && ip.is_none_or(|ip| node.peer().ip().to_canonical() == ip.to_canonical())
}

fn decision_of(record: &DecisionRecord<'_>) -> Decision {
    match record {
        DecisionRecord::Refuse => Decision::Refuse,
        DecisionRecord::Allow => Decision::Allow,
        DecisionRecord::AllowWithMetadata(members) => Decision::AllowWithMetadata((*members).to_owned()),
        DecisionRecord::AllowPublication { topic, data } => {
            Decision::AllowPublication { topic: (*topic).to_owned(), payload: Bytes::copy_from_slice(data) }
        }
        DecisionRecord::AllowTopics(filters) => Decision::AllowTopics(filters.iter().map(|filter| (*filter).to_owned()).collect()),
    }
}

fn done(result: Result<(), Error>) -> Result<Reply, Error> {
    result.map(|()| Reply::Done)
}

/// `*` stands for any text, `?` for one character, everything else for itself.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to go on when what follows the last star does not fit: one character of the text later.
    let mut retry = None;
    loop {
        match (pattern.next(), text.clone().next()) {
            (None, None) => return true,
            (Some('*'), _) => retry = Some((pattern.clone(), text.clone())),
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => drop(text.next()),
            _ => {
                let Some((after_star, skipped)) = &mut retry else { return false };
                if skipped.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                text = skipped.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_its_stars_and_question_marks_stand_for() {
        let fitting =
            [("", ""), ("a", "a"), ("*", ""), ("*", "abc"), ("a*", "a"), ("a*c", "abbc"), ("?", "é"), ("*b?", "abbx"), ("**", "x")];
        for (pattern, text) in fitting {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", ""), ("?", ""), ("a*c", "ab"), ("*b", "abc"), ("a?", "a"), ("[a]", "a"), ("A", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let (pattern, text) = ("a*".repeat(120) + "b", "a".repeat(255));
        assert!(!matches(&pattern, &text));
    }
}
