//! What may be asked of a server, of this process or next door: one row for each pair of functions.
//!
//! Owns the functions that only ask, and how a reply becomes what C sees. The header is generated from these rows (`tests/header.rs`),
//! so their form is fixed: texts for the header, the names, the parameters behind the handle; then the request, where the results go,
//! and who writes them there. All pointers are checked before anything is asked.

use crate::arguments::{bytes, inout, invalid, out, out_if_wanted, out_slice, text};
use crate::attached::UserData;
use crate::bus::{SharedBus, heartbus_bus, heartbus_text, several};
use crate::handle::{self, Object};
use crate::nodes::{heartbus_connection, heartbus_node};
use crate::server::{Server, heartbus_server, no_such_channel, no_such_node, timeout_of};
use crate::statistics::{heartbus_stat, write_metrics, write_stats};
use crate::status::{guard, heartbus_status};
use crate::texts::with_texts;
use crate::topics::{heartbus_publication, heartbus_topic};

use heartbus_core::engine::{BusStats, ConnectionInfo, Node, NodeInfo};
use heartbus_core::error::Error;
use heartbus_core::service::{DecisionRecord, Reply, Request, Service};
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// A handle that answers. Where an engine of this process has more to say, or says it without a copy, it does.
trait Answering: Object {
    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error>;

    fn node(&self, request: &Request<'_>) -> Result<(Option<NodeInfo>, UserData), Error> {
        Ok((self.ask(request)?.node()?, UserData::NONE))
    }

    fn connections(&self, request: &Request<'_>, _capacity: usize) -> Result<Vec<ConnectionInfo>, Error> {
        self.ask(request)?.connections()
    }

    fn stats(&self, request: &Request<'_>) -> Result<BusStats, Error> {
        self.ask(request)?.stats()
    }
}

impl Answering for SharedBus {
    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        self.reply(request)
    }
}

impl Answering for Server {
    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        match request {
            // Known after the stop as well, or refused by the engine itself.
            Request::HeartbeatTimeout | Request::SetHeartbeatTimeout { .. } => self.engine.ask(request),
            _ => self.running()?.ask(request),
        }
    }

    fn node(&self, request: &Request<'_>) -> Result<(Option<NodeInfo>, UserData), Error> {
        let engine = self.running()?;
        let found = match request {
            Request::Node { id } => engine.node(id),
            Request::NodeOfChannel { channel } => engine.node_of_channel(*channel),
            Request::NodeOfConnection { connection } => engine.node_of_connection(*connection),
            _ => return Ok((self.ask(request)?.node()?, UserData::NONE)),
        };
        let user_data = |node: &Arc<Node>| self.of_nodes.lock().get(node);
        Ok((found.as_ref().map(|node| node.info(engine.now())), found.as_ref().map_or(UserData::NONE, user_data)))
    }

    fn connections(&self, _: &Request<'_>, capacity: usize) -> Result<Vec<ConnectionInfo>, Error> {
        Ok(self.running()?.connections(capacity))
    }

    fn stats(&self, _: &Request<'_>) -> Result<BusStats, Error> {
        Ok(BusStats { stats: self.engine.stats(), timings: self.engine.timings() })
    }
}

/// Two functions for each row.
macro_rules! calls {
    ($(
        $(#[$text:meta])*
        *$mutability:tt $server:ident, $bus:ident($($parameter:ident: $kind:ty),*): $request:expr => $target:expr => $write:ident;
    )*) => {$(
        $(#[$text])*
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $server(server: *$mutability heartbus_server, $($parameter: $kind),*) -> heartbus_status {
            guard(|| {
                let asked = handle::get::<Server>(server)?;
                // SAFETY: the caller's texts and the places for the results, as the first page asks.
                #[allow(unused_unsafe, reason = "a row may have no pointers")]
                let (request, target) = unsafe { ($request, $target) };
                $write(&**asked, &request, target)
            })
        }

        #[doc = concat!("As ", stringify!($server), ".")]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $bus(bus: *mut heartbus_bus, $($parameter: $kind),*) -> heartbus_status {
            guard(|| {
                let asked = handle::get::<SharedBus>(bus)?;
                // SAFETY: as above.
                #[allow(unused_unsafe, reason = "as above")]
                let (request, target) = unsafe { ($request, $target) };
                $write(&**asked, &request, target)
            })
        }
    )*};
}

calls! {
    /// Sends data to a node, on its main channel when `channel_id` is 0. HEARTBUS_OK means that it is queued, not that anybody has
    /// received it: what waits is lost when the connection ends. After any error nothing is queued and nothing else has changed.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online or the channel is not its own, HEARTBUS_LIMIT when its outbox is full or
    /// the payload longer than a frame may be, HEARTBUS_INVALID_ARGUMENT when the payload is not UTF-8 and the node speaks the
    /// protocol's version 1, which cannot carry it.
    *mut heartbus_server_send, heartbus_bus_send(node_id: *const c_char, node_id_len: usize, payload: *const c_char, payload_len: usize, channel_id: i64):
        {
            let (node, data) = (text("node_id", node_id, node_id_len)?, bytes("payload", payload, payload_len)?);
            Request::SendTo { node, data, channel: u32::try_from(channel_id).map_err(|_| no_such_channel())? }
        } => () => done;

    /// Sends data to every node that is online, and says for how many it was queued in `count`, which may be NULL: for all of them,
    /// less those whose outbox is full and those whose protocol cannot carry it. It goes out behind this call, and who comes, goes, or
    /// has no room any more at that moment may fare otherwise than it was counted: `data_out` and `data_out_refused` of the statistics
    /// say what became of it. The count is 0 where more broadcasts wait than may.
    ///
    /// HEARTBUS_LIMIT when the payload is longer than a frame may be, HEARTBUS_INVALID_ARGUMENT when it is not UTF-8 and all nodes
    /// speak the protocol's version 1, which cannot carry it. Nothing was sent then.
    *mut heartbus_server_broadcast, heartbus_bus_broadcast(payload: *const c_char, payload_len: usize, count: *mut usize):
        Request::Broadcast { data: bytes("payload", payload, payload_len)? } => out_if_wanted("count", count)? => counted;

    /// Takes a node off the bus. Its connection is closed, unless it has other nodes.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online.
    *mut heartbus_server_disconnect, heartbus_bus_disconnect(node_id: *const c_char, node_id_len: usize):
        Request::Disconnect { node: text("node_id", node_id, node_id_len)? } => () => done;

    /// Says that a node is alive, as a sign of life of its own would. No heartbeat is counted.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online.
    *mut heartbus_server_keep_alive, heartbus_bus_keep_alive(node_id: *const c_char, node_id_len: usize):
        Request::KeepAlive { node: text("node_id", node_id, node_id_len)? } => () => done;

    /// Sets members of a node's metadata: `members` is the JSON text of an object. The node hears nothing of it. They stay as long as
    /// it is registered, unless it sends its own of the same name.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online, HEARTBUS_INVALID_ARGUMENT when `members` is no JSON object with members,
    /// HEARTBUS_LIMIT when the node's metadata would be longer than 65,536 bytes.
    *mut heartbus_server_set_metadata, heartbus_bus_set_metadata(node_id: *const c_char, node_id_len: usize, members: *const c_char, members_len: usize):
        {
            let (node, members) = (text("node_id", node_id, node_id_len)?, text("members", members, members_len)?);
            Request::SetMetadata { node, channel: 0, members }
        } => () => done;

    /// The heartbeat timeout in force, in seconds.
    *const heartbus_server_heartbeat_timeout, heartbus_bus_heartbeat_timeout(seconds: *mut f64):
        Request::HeartbeatTimeout => out("seconds", seconds)? => in_seconds;

    /// Changes the heartbeat timeout: for nodes that register from now on, and for the others from their next check on, which the
    /// old one decides.
    ///
    /// HEARTBUS_CONFIG for less than a millisecond or more than a year.
    *mut heartbus_server_set_heartbeat_timeout, heartbus_bus_set_heartbeat_timeout(seconds: f64):
        Request::SetHeartbeatTimeout { micros: micros_of(seconds) } => () => done;

    /// Accepts no more connections: the port is free from now on. Open ones go on until they end or the server is stopped.
    *mut heartbus_server_close_door, heartbus_bus_close_door():
        Request::CloseDoor => () => done;

    /// Looks a node up by its id. What `node` points to is valid until this thread's next lookup.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online.
    *const heartbus_server_node, heartbus_bus_node(node_id: *const c_char, node_id_len: usize, node: *mut heartbus_node):
        Request::Node { id: text("node_id", node_id, node_id_len)? } => out("node", node)? => described;

    /// Looks up the node that a channel belongs to, as heartbus_server_node.
    *const heartbus_server_node_of_channel, heartbus_bus_node_of_channel(channel_id: i64, node: *mut heartbus_node):
        Request::NodeOfChannel { channel: u32::try_from(channel_id).map_err(|_| no_such_node())? } => out("node", node)? => described;

    /// Looks up the node of a connection, of several the one that registered last, as heartbus_server_node. Looks at every node.
    *const heartbus_server_node_of_connection, heartbus_bus_node_of_connection(connection_id: u64, node: *mut heartbus_node):
        Request::NodeOfConnection { connection: connection_id } => out("node", node)? => described;

    /// Lists up to `capacity` open connections, in no particular order, and says in `count` how many. Asks the I/O threads, which
    /// takes at most half a second. What the connections point to is valid until this thread's next lookup. Over the bus
    /// socket fewer where the answer would grow long.
    *const heartbus_server_connections, heartbus_bus_connections(connections: *mut heartbus_connection, capacity: usize, count: *mut usize):
        Request::Connections { max: u32::try_from(capacity).unwrap_or(u32::MAX) }
            => (out_slice("connections", connections, capacity)?, out("count", count)?) => listed;

    /// Writes up to `capacity` numbers into the caller's array, always in the same order, and says in `count` how many there are,
    /// which may be more than fit. Counters run from the start of the server. Later versions add numbers, and keep the names of
    /// those there are. Works after the server has stopped, too.
    *const heartbus_server_stats, heartbus_bus_stats(stats: *mut heartbus_stat, capacity: usize, count: *mut usize):
        Request::Stats => (out_slice("stats", stats, capacity)?, out("count", count)?) => numbered;

    /// The server's metrics under the names of the PHP library, as the text that Prometheus reads. Valid until this thread's next
    /// lookup.
    *const heartbus_server_metrics, heartbus_bus_metrics(text: *mut *const c_char, text_len: *mut usize):
        Request::Stats => (out("text", text)?, out("text_len", text_len)?) => exported;

    /// Publishes to a topic: to all who have subscribed to it, less the nodes named in `except`, an array of `except_count` ids, and to
    /// what is kept of it, where the key `history` says so. What became of it is written to `publication`, which may be NULL; the
    /// subscriptions of `except` are counted there. It goes out behind this call; a subscriber whose outbox is full misses it alone, and so
    /// does one whose protocol cannot carry it.
    ///
    /// HEARTBUS_INVALID_ARGUMENT when nothing can be published under this name: a topic has 1 to 255 bytes of UTF-8 without control
    /// characters, no level that is + or #, and those that begin with $ belong to the server. HEARTBUS_LIMIT when the payload is longer
    /// than a frame may be, there are too many topics, or too much waits for subscribers. Nobody gets it then.
    *mut heartbus_server_publish, heartbus_bus_publish(topic: *const c_char, topic_len: usize, payload: *const c_char, payload_len: usize, except: *const heartbus_text, except_count: usize, publication: *mut heartbus_publication):
        Request::Publish {
            topic: text("topic", topic, topic_len)?,
            data: bytes("payload", payload, payload_len)?,
            except: several("except", except, except_count)?,
        } => out_if_wanted("publication", publication)? => published;

    /// As heartbus_server_broadcast, to all nodes but those named in `except`, an array of `except_count` ids.
    *mut heartbus_server_broadcast_except, heartbus_bus_broadcast_except(payload: *const c_char, payload_len: usize, except: *const heartbus_text, except_count: usize, count: *mut usize):
        Request::BroadcastExcept { data: bytes("payload", payload, payload_len)?, except: several("except", except, except_count)? }
            => out_if_wanted("count", count)? => counted;

    /// How many have subscribed to a topic, by its name and through filters that match it.
    ///
    /// HEARTBUS_INVALID_ARGUMENT when it is no topic.
    *const heartbus_server_subscribers, heartbus_bus_subscribers(topic: *const c_char, topic_len: usize, count: *mut usize):
        Request::Subscribers { topic: text("topic", topic, topic_len)? } => Some(out("count", count)?) => counted;

    /// Lists the topics that somebody has subscribed to by name or of which something is kept, in pages as heartbus_server_nodes. What
    /// they point to is valid until this thread's next lookup. A page has up to 4,000 topics, however many there is room for.
    *const heartbus_server_topics, heartbus_bus_topics(cursor: *mut u64, topics: *mut heartbus_topic, capacity: usize, count: *mut usize):
        Request::Topics { after: after(cursor)?, limit: limit(capacity)? }
            => (inout("cursor", cursor)?, out_slice("topics", topics, capacity)?, out("count", count)?) => topics_listed;

    /// Puts a node into a topic: it gets the topic's messages without having asked, until it leaves or is taken out.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online, HEARTBUS_INVALID_ARGUMENT when it is no topic, HEARTBUS_LIMIT when there are too
    /// many topics.
    *mut heartbus_server_join, heartbus_bus_join(node_id: *const c_char, node_id_len: usize, topic: *const c_char, topic_len: usize):
        Request::Join { node: text("node_id", node_id, node_id_len)?, topic: text("topic", topic, topic_len)? } => () => done;

    /// Takes a node out of a topic, or ends its subscription to a filter, whoever has made it. One that is not there is no error.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online, HEARTBUS_INVALID_ARGUMENT when it is no filter.
    *mut heartbus_server_leave, heartbus_bus_leave(node_id: *const c_char, node_id_len: usize, filter: *const c_char, filter_len: usize):
        Request::Leave { node: text("node_id", node_id, node_id_len)?, filter: text("filter", filter, filter_len)? } => () => done;

    /// Lists the ids of the nodes that are in a topic by its name, whether they have subscribed or were put there, in pages as
    /// heartbus_server_topics. Asks the I/O threads, which takes at most half a second.
    ///
    /// HEARTBUS_INVALID_ARGUMENT when it is no topic.
    *const heartbus_server_members, heartbus_bus_members(topic: *const c_char, topic_len: usize, cursor: *mut u64, node_ids: *mut heartbus_text, capacity: usize, count: *mut usize):
        Request::Members { topic: text("topic", topic, topic_len)?, after: after(cursor)?, limit: limit(capacity)? }
            => (inout("cursor", cursor)?, out_slice("node_ids", node_ids, capacity)?, out("count", count)?) => members_listed;

    /// Writes up to `capacity` topics and filters that a node has subscribed to or was put into, in no particular order, and says in
    /// `count` how many there are, which may be more than fit. What they point to is valid until this thread's next lookup. Its I/O
    /// thread is asked, as in heartbus_server_members.
    ///
    /// HEARTBUS_NOT_FOUND when no such node is online.
    *const heartbus_server_topics_of, heartbus_bus_topics_of(node_id: *const c_char, node_id_len: usize, filters: *mut heartbus_text, capacity: usize, count: *mut usize):
        Request::TopicsOf { node: text("node_id", node_id, node_id_len)? }
            => (out_slice("filters", filters, capacity)?, out("count", count)?) => names_listed;

    /// Answers a question, by its number. A HEARTBUS_EVENT_SUBSCRIBE_BEFORE or HEARTBUS_EVENT_PUBLISH_BEFORE: 1 allows what it asks for, 0 refuses
    /// it with ERROR 403. A
    /// HEARTBUS_EVENT_AUTHENTICATE: 1 registers the node, which takes its id over where that is online on another
    /// connection; 0 refuses it with ERROR 401, and closes its connection unless that has other nodes. `metadata` is the JSON text of an
    /// object, of which the members become the node's metadata from the beginning, as with heartbus_server_set_metadata; NULL with length
    /// 0: none. From any thread, at once or later.
    ///
    /// HEARTBUS_NOT_FOUND when it was answered already, or is not waited for any more. HEARTBUS_INVALID_ARGUMENT when `metadata` is no
    /// JSON object with members, or there is some and the answer is 0; HEARTBUS_LIMIT when it is longer than 65,536 bytes: it may be
    /// answered again then.
    *mut heartbus_server_decide, heartbus_bus_decide(number: u32, allows: i32, metadata: *const c_char, metadata_len: usize):
        Request::Decide { question: number, decision: decision(allows, text("metadata", metadata, metadata_len)?)? } => () => done;

    /// Answers a HEARTBUS_EVENT_SUBSCRIBE_BEFORE: it may subscribe to these `filter_count` topics and filters instead of those that it asked
    /// for. Of those it did ask for it is answered as ever, or with ERROR 403 where they are not among these; into others it is put, as by
    /// heartbus_server_join.
    ///
    /// As heartbus_server_decide; HEARTBUS_INVALID_ARGUMENT when one of them is neither a topic nor a filter, or there is none.
    *mut heartbus_server_decide_topics, heartbus_bus_decide_topics(number: u32, filters: *const heartbus_text, filter_count: usize):
        Request::Decide { question: number, decision: topics(several("filters", filters, filter_count)?)? } => () => done;

    /// Answers a HEARTBUS_EVENT_PUBLISH_BEFORE: this is published instead of what was to be. Who wanted to publish is answered as ever.
    ///
    /// As heartbus_server_decide; HEARTBUS_INVALID_ARGUMENT when nothing can be published under this name, HEARTBUS_LIMIT when the payload is
    /// longer than a frame may be.
    *mut heartbus_server_decide_publication, heartbus_bus_decide_publication(number: u32, topic: *const c_char, topic_len: usize, payload: *const c_char, payload_len: usize):
        {
            let (topic, data) = (text("topic", topic, topic_len)?, bytes("payload", payload, payload_len)?);
            Request::Decide { question: number, decision: DecisionRecord::AllowPublication { topic, data } }
        } => () => done;
}

type Target<'a, T> = &'a mut MaybeUninit<T>;
type Page<'a, T> = (&'a mut u64, &'a mut [MaybeUninit<T>], Target<'a, usize>);
type Targets<'a, T> = (&'a mut [MaybeUninit<T>], Target<'a, usize>);

fn done(asked: &impl Answering, request: &Request<'_>, (): ()) -> Result<(), Error> {
    asked.ask(request)?.done()
}

fn counted(asked: &impl Answering, request: &Request<'_>, target: Option<Target<'_, usize>>) -> Result<(), Error> {
    let count = asked.ask(request)?.count()?;
    if let Some(target) = target {
        target.write(count);
    }
    Ok(())
}

fn in_seconds(asked: &impl Answering, request: &Request<'_>, target: Target<'_, f64>) -> Result<(), Error> {
    target.write(asked.ask(request)?.duration()?.as_secs_f64());
    Ok(())
}

fn described(asked: &impl Answering, request: &Request<'_>, target: Target<'_, heartbus_node>) -> Result<(), Error> {
    let (info, user_data) = asked.node(request)?;
    let info = info.ok_or_else(no_such_node)?;
    with_texts(|texts| target.write(heartbus_node { user_data: user_data.0, ..heartbus_node::new(&info, texts) }));
    Ok(())
}

fn listed(asked: &impl Answering, request: &Request<'_>, (targets, count): Targets<'_, heartbus_connection>) -> Result<(), Error> {
    let found = asked.connections(request, targets.len())?;
    with_texts(|texts| {
        for (target, info) in targets.iter_mut().zip(&found) {
            target.write(heartbus_connection::new(info, texts));
        }
    });
    count.write(found.len().min(targets.len()));
    Ok(())
}

fn numbered(asked: &impl Answering, request: &Request<'_>, (targets, count): Targets<'_, heartbus_stat>) -> Result<(), Error> {
    count.write(write_stats(asked.stats(request)?.stats, targets));
    Ok(())
}

fn exported(
    asked: &impl Answering,
    request: &Request<'_>,
    (text, text_len): (Target<'_, *const c_char>, Target<'_, usize>),
) -> Result<(), Error> {
    let numbers = asked.stats(request)?;
    write_metrics(&numbers.stats, &numbers.timings, text, text_len);
    Ok(())
}

fn published(asked: &impl Answering, request: &Request<'_>, target: Option<Target<'_, heartbus_publication>>) -> Result<(), Error> {
    let record = asked.ask(request)?.publication()?;
    if let Some(target) = target {
        target.write(heartbus_publication::new(record));
    }
    Ok(())
}

fn topics_listed(asked: &impl Answering, request: &Request<'_>, (cursor, targets, count): Page<'_, heartbus_topic>) -> Result<(), Error> {
    let (topics, next) = asked.ask(request)?.topics()?;
    with_texts(|texts| {
        for (target, topic) in targets.iter_mut().zip(&topics) {
            target.write(heartbus_topic::new(topic, texts));
        }
    });
    *cursor = next.unwrap_or(0);
    count.write(topics.len().min(targets.len()));
    Ok(())
}

fn members_listed(asked: &impl Answering, request: &Request<'_>, (cursor, targets, count): Page<'_, heartbus_text>) -> Result<(), Error> {
    let (names, next) = asked.ask(request)?.names()?;
    write_names(&names, targets);
    *cursor = next.unwrap_or(0);
    count.write(names.len().min(targets.len()));
    Ok(())
}

fn names_listed(asked: &impl Answering, request: &Request<'_>, (targets, count): Targets<'_, heartbus_text>) -> Result<(), Error> {
    let (names, _) = asked.ask(request)?.names()?;
    write_names(&names, targets);
    count.write(names.len());
    Ok(())
}

fn write_names(names: &[String], targets: &mut [MaybeUninit<heartbus_text>]) {
    with_texts(|texts| {
        for (target, name) in targets.iter_mut().zip(names) {
            target.write(heartbus_text::new(name, texts));
        }
    });
}

/// # Safety
/// As [`inout`].
unsafe fn after(cursor: *mut u64) -> Result<Option<u64>, Error> {
    // SAFETY: the same promise.
    Ok(Some(*unsafe { inout("cursor", cursor) }?).filter(|after| *after != 0))
}

fn limit(capacity: usize) -> Result<u32, Error> {
    if capacity == 0 { Err(invalid("capacity is 0")) } else { Ok(u32::try_from(capacity).unwrap_or(u32::MAX)) }
}

fn topics(filters: Vec<&str>) -> Result<DecisionRecord<'_>, Error> {
    if filters.is_empty() { Err(invalid("filter_count is 0")) } else { Ok(DecisionRecord::AllowTopics(filters)) }
}

fn decision(allows: i32, metadata: &str) -> Result<DecisionRecord<'_>, Error> {
    match (allows != 0, metadata.is_empty()) {
        (true, true) => Ok(DecisionRecord::Allow),
        (true, false) => Ok(DecisionRecord::AllowWithMetadata(metadata)),
        (false, true) => Ok(DecisionRecord::Refuse),
        (false, false) => Err(invalid("metadata is for nodes that may register")),
    }
}

fn micros_of(seconds: f64) -> u64 {
    u64::try_from(timeout_of(seconds).as_micros()).unwrap_or(u64::MAX)
}
