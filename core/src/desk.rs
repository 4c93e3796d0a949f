//! What a request over the bus socket does.
//!
//! Owns nothing: it asks the engine what the request asks, and bounds the answers. Does not know the socket.

use crate::engine::{BusStats, Engine, Node, NodeInfo};
use crate::error::{Error, ErrorKind};
use crate::hub::dispatch::WorkerId;
use crate::net::bus::Desk;
use crate::wire::bus::{FRAME_CAP, PAGE_BYTES, Reply, Request, Welcome};
use crate::wire::metadata::Wanted;
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

/// A node or connection in an answer, beside its texts.
const RECORD_BYTES: usize = 100;

/// Room in a frame around the longest message.
const FRAME_SPARE: u32 = 1 << 20;

/// Where requests are answered, for one engine.
pub(crate) struct Counter {
    engine: Engine,
    name: String,
}

impl Counter {
    pub(crate) fn new(engine: Engine, name: String) -> Counter {
        Counter { engine, name }
    }

    fn info(&self, node: Option<Arc<Node>>) -> Reply {
        Reply::Node(node.map(|node| node.info(self.engine.now())))
    }

    fn send_many(&self, nodes: &[&str], data: &[u8]) -> Result<Reply, Error> {
        let mut reached = 0;
        let mut refusal = None;
        for node in nodes {
            match self.engine.send_to(node, data, 0) {
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
    fn page(&self, after: Option<u64>, limit: usize, look: impl Fn(&Node) -> (bool, usize), is_search: bool) -> Reply {
        let limit = limit.clamp(1, MAX_PAGE);
        let now = self.engine.now();
        let mut nodes: Vec<NodeInfo> = Vec::new();
        let (mut bytes, mut looked, mut read, mut next) = (0, 0, 0, after);
        loop {
            let step = if is_search { SEARCH_STEP } else { limit - nodes.len() };
            let (found, behind) = self.engine.page(next, step);
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
                    return Reply::Page { nodes, next: Some(self.engine.place_of(&node)) };
                }
            }
            next = behind;
            if next.is_none() || nodes.len() >= limit || bytes >= PAGE_BYTES || looked >= SEARCH_LIMIT || read >= READ_LIMIT {
                return Reply::Page { nodes, next };
            }
        }
    }

    fn connections(&self, max: usize) -> Reply {
        let mut bytes = 0;
        let mut connections = self.engine.connections(max.min(PAGE_BYTES / RECORD_BYTES));
        let fits = connections.iter().take_while(|found| {
            bytes += RECORD_BYTES + found.first_node.as_ref().map_or(0, |id| id.len());
            bytes <= PAGE_BYTES
        });
        let fits = fits.count();
        connections.truncate(fits);
        Reply::Connections(connections)
    }
}

impl Desk for Counter {
    fn answer(&self, request: &Request<'_>, is_owner: bool) -> Result<Reply, Error> {
        let engine = &self.engine;
        Ok(match request {
            Request::SendTo { node, channel, data } => done(engine.send_to(node, data, *channel))?,
            Request::SendMany { nodes, data } => self.send_many(nodes, data)?,
            Request::Broadcast { data } => Reply::Count(engine.broadcast(data)? as u64),
            Request::Disconnect { node } => done(engine.disconnect(node))?,
            Request::KeepAlive { node } => done(engine.keep_alive(node))?,
            Request::Node { id } => self.info(engine.node(id)),
            Request::NodeOfChannel { channel } => self.info(engine.node_of_channel(*channel)),
            Request::NodeOfConnection { connection } => self.info(engine.node_of_connection(*connection)),
            Request::Page { after, limit, id_pattern, ip } => {
                let is_search = id_pattern.is_some() || ip.is_some();
                self.page(*after, *limit as usize, |node| (is_named(node, *id_pattern, *ip), 0), is_search)
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
                self.page(*after, *limit as usize, look, true)
            }
            Request::SetMetadata { node, channel, members } => done(engine.set_metadata(node, *channel, members))?,
            Request::Stats => Reply::Stats(BusStats { stats: engine.stats(), timings: engine.timings() }.to_record()),
            Request::HeartbeatTimeout => Reply::Micros(engine.heartbeat_timeout().as_micros() as u64),
            Request::SetHeartbeatTimeout { .. } | Request::CloseDoor if !is_owner => {
                return Err(Error::new(ErrorKind::Io, "Only the server's own user may change how it runs"));
            }
            Request::SetHeartbeatTimeout { micros } => done(engine.set_heartbeat_timeout(Duration::from_micros(*micros)))?,
            Request::Connections { max } => self.connections(*max as usize),
            Request::CloseDoor => {
                engine.close_door();
                Reply::Done
            }
        })
    }

    fn welcome(&self, worker: WorkerId) -> Welcome {
        let stats = self.engine.stats();
        Welcome {
            name: self.name.clone(),
            package: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.engine.started_at(),
            listen: self.engine.local_addr(),
            takes_workers: self.engine.takes_workers(),
            worker,
            frame_cap: FRAME_CAP.max(self.engine.max_frame_bytes() + FRAME_SPARE),
            max_frame_bytes: self.engine.max_frame_bytes(),
            max_connections: stats.max_connections as u64,
            io_threads: stats.io_threads as u32,
            heartbeat_timeout: self.engine.heartbeat_timeout().as_micros() as u64,
        }
    }
}

fn is_named(node: &Node, id_pattern: Option<&str>, ip: Option<IpAddr>) -> bool {
    id_pattern.is_none_or(|pattern| matches(pattern, node.id())) && ip.is_none_or(|ip| node.peer().ip().to_canonical() == ip.to_canonical())
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
