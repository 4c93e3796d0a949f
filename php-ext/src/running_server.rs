//! What `NodeManager`, `ChannelScheduler` and `HeartbeatMonitor` show of a server that runs: its nodes and its channels, as the engine
//! knows them at that moment.

use crate::backend::{Backend, Registration};
use crate::classes::channel;
use crate::classes::state::Table;
use crate::clock::microtime;
use crate::exception;
use crate::node;
use crate::objects::Objects;
use crate::php::{self, Outcome, map, text, value};
use crate::ranges::{self, LONGEST, SHORTEST};
use crate::statistics;
use ext_php_rs::ffi::zend_object;
use ext_php_rs::types::{ZendEmptyArray, Zval};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::service::Request;
use heartbus_core::settings::YEAR;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr;
use std::rc::{Rc, Weak};

/// A server whose nodes a manager, a scheduler and a monitor are about.
pub(crate) trait NodeServer {
    fn check_process(&self) -> Outcome;

    /// Throws where nothing of what happens is told.
    fn check_is_told(&self, call: &str) -> Outcome;

    /// The engine; none before the start.
    fn backend_if_started(&self) -> Outcome<Option<Rc<Backend>>>;

    fn objects(&self) -> &Objects;

    fn channel_queue_size(&self) -> i64;

    /// After what PHP wants to know has changed.
    fn resubscribe(&self);

    /// Lets this process have what comes on a channel, whoever else is told of the node.
    fn watch(&self, channel_id: u32);
}

thread_local! {
    /// Whose manager or scheduler an object is, by its address.
    static SERVERS: RefCell<HashMap<usize, Weak<dyn NodeServer>>> = RefCell::default();
}

/// From now on the object is about the nodes of this server. The server holds it as long as it lives itself.
pub(crate) fn show(object: &Zval, server: Weak<dyn NodeServer>) {
    if let Some(object) = object.object() {
        SERVERS.with_borrow_mut(|servers| {
            // Another object may get the address of one that went with its server.
            servers.retain(|_, server| server.strong_count() > 0);
            servers.insert(ptr::from_ref(object) as usize, server);
        });
    }
}

fn server_of(object: *const zend_object) -> Option<Rc<dyn NodeServer>> {
    SERVERS.with_borrow(|servers| servers.get(&(object as usize)).and_then(Weak::upgrade))
}

/// The server behind a manager or a scheduler; none for one that stands alone, or whose server has not started yet.
pub(crate) fn of(object: *mut zend_object) -> Outcome<Option<RunningServer>> {
    let Some(server) = server_of(object) else { return Ok(None) };
    server.check_process()?;
    Ok(server.backend_if_started()?.map(|engine| RunningServer { server, engine }))
}

/// From now on a monitor is told which nodes of its manager's server time out.
pub(crate) fn watch_timeouts(manager: &Zval, monitor: *mut zend_object) -> Outcome {
    let Some(server) = manager.object().and_then(|manager| server_of(manager)) else { return Ok(()) };
    server.check_is_told("HeartbeatMonitor::start()")?;
    server.objects().add_monitor(monitor);
    server.resubscribe();
    Ok(())
}

pub(crate) fn unwatch_timeouts(manager: &Zval, monitor: *mut zend_object) {
    let Some(server) = manager.object().and_then(|manager| server_of(manager)) else { return };
    let forgotten = server.objects().remove_monitor(monitor);
    server.resubscribe();
    drop(forgotten);
}

/// A server that has started.
pub(crate) struct RunningServer {
    server: Rc<dyn NodeServer>,
    engine: Rc<Backend>,
}

/// The answer, or the exception that says why there is none.
fn answered<T>(answer: Result<T, Error>) -> Outcome<T> {
    answer.map_err(|error| exception::raise(&error))
}

impl RunningServer {
    fn find(&self, id: &[u8]) -> Outcome<Option<Registration>> {
        std::str::from_utf8(id).map_or(Ok(None), |id| answered(self.engine.node(id)))
    }

    fn find_by_connection(&self, connection_id: i64) -> Outcome<Option<Registration>> {
        u64::try_from(connection_id).map_or(Ok(None), |id| answered(self.engine.node_of_connection(id)))
    }

    fn object(&self, node: &Registration) -> Outcome<Zval> {
        self.server.objects().node(&self.engine, node, None)
    }

    // ---- nodes ----

    pub(crate) fn has_node(&self, id: &[u8]) -> Outcome<bool> {
        Ok(self.find(id)?.is_some())
    }

    pub(crate) fn node(&self, id: &[u8]) -> Outcome<Zval> {
        self.find(id)?.map_or_else(|| Ok(Zval::null()), |node| self.object(&node))
    }

    pub(crate) fn node_by_connection(&self, connection_id: i64) -> Outcome<Zval> {
        self.find_by_connection(connection_id)?.map_or_else(|| Ok(Zval::null()), |node| self.object(&node))
    }

    /// Nodes register over their connections; one that is registered already may be registered again.
    pub(crate) fn register(&self, id: &[u8], connection_id: i64) -> Outcome {
        match self.find(id)? {
            Some(node) if node.connection_id() == connection_id as u64 => Ok(()),
            _ => Err(exception::logic_exception(
                "The nodes of a running HeartbeatServer register over their connections: NodeManager::register() cannot be called",
            )),
        }
    }

    /// Takes the node off the bus, and its connection with it unless that has other nodes.
    pub(crate) fn unregister(&self, id: &[u8]) -> Outcome<Zval> {
        let Some(node) = self.find(id)? else { return Ok(Zval::null()) };
        // It may leave by itself at this moment.
        let _ = self.engine.ask(&Request::Disconnect { node: node.id() });
        self.object(&node)
    }

    pub(crate) fn unregister_by_connection(&self, connection_id: i64) -> Outcome<Zval> {
        match self.find_by_connection(connection_id)? {
            Some(node) => self.unregister(node.id().as_bytes()),
            None => Ok(Zval::null()),
        }
    }

    pub(crate) fn keep_alive(&self, id: &[u8]) -> Outcome<bool> {
        Ok(std::str::from_utf8(id).is_ok_and(|id| self.engine.ask(&Request::KeepAlive { node: id }).is_ok()))
    }

    /// Every node by its id. The engine knows only nodes that are online.
    pub(crate) fn nodes(&self) -> Outcome<Zval> {
        let mut all = value(ZendEmptyArray);
        for node in answered(self.engine.nodes())? {
            Table::of(&mut all).set(node.id().as_bytes(), self.object(&node)?);
        }
        Ok(all)
    }

    /// Nodes by their ids, and where the next page begins; null behind the last.
    pub(crate) fn page(&self, after: Option<i64>, size: u32) -> Outcome<[Zval; 2]> {
        let (found, next) = answered(self.engine.page(after.map(|after| after as u64), size))?;
        let mut nodes = value(ZendEmptyArray);
        for node in &found {
            Table::of(&mut nodes).set(node.id().as_bytes(), self.object(node)?);
        }
        Ok([nodes, next.map_or_else(Zval::null, |next| value(next as i64))])
    }

    pub(crate) fn node_count(&self) -> Outcome<i64> {
        Ok(answered(self.engine.stats())?.nodes_online as i64)
    }

    pub(crate) fn node_stats(&self, with_nodes: bool) -> Outcome<Zval> {
        let stats = answered(self.engine.stats())?;
        let (counts, online) = (stats.counts, stats.nodes_online as i64);
        let number = |number: u64| value(number as i64);
        let left = statistics::left(&stats);
        let mut entries = vec![("total", value(online)), ("online", value(online)), ("offline", value(0i64))];
        if !with_nodes {
            entries.extend([("total_heartbeats", number(counts.heartbeats)), ("total_messages", number(counts.data_in))]);
        }
        entries.extend([
            ("total_registered", number(counts.nodes_registered)),
            ("total_unregistered", number(left)),
            ("total_timeout", number(counts.nodes_timed_out)),
        ]);
        if with_nodes {
            let nodes = answered(self.engine.nodes())?;
            let nodes: Vec<Zval> = nodes.iter().map(|node| node::describe(&self.engine.info(node))).collect();
            entries.push(("nodes", value(nodes)));
        }
        Ok(php::map_of(entries))
    }

    pub(crate) fn set_heartbeat_timeout(&self, seconds: f64) -> Outcome {
        let timeout = ranges::seconds("setHeartbeatTimeout(): timeout", seconds, SHORTEST..=LONGEST)?.min(YEAR);
        match self.engine.ask(&Request::SetHeartbeatTimeout { micros: timeout.as_micros() as u64 }) {
            // A stopped server has nobody to time out.
            Err(error) if error.kind != ErrorKind::Closed => Err(exception::raise(&error)),
            _ => Ok(()),
        }
    }

    // ---- channels ----

    /// The object of a node's channel; null for a node that left.
    fn channel_object(&self, node: &Registration) -> Outcome<Zval> {
        let objects = self.server.objects();
        if let Some(object) = objects.channel_of(node) {
            return Ok(php::object(object));
        }
        let info = self.engine.info(node);
        let channel = objects.new_channel(node, &info, self.server.channel_queue_size())?;
        self.server.resubscribe();
        self.server.watch(info.channel_id);
        // One that leaves from here on is told of.
        let is_online = answered(self.engine.is_online(node))?;
        Ok(if is_online { channel } else { Zval::null() })
    }

    pub(crate) fn channel(&self, id: i64) -> Outcome<Zval> {
        let node = u32::try_from(id).map_or(Ok(None), |id| answered(self.engine.node_of_channel(id)))?;
        node.map_or_else(|| Ok(Zval::null()), |node| self.channel_object(&node))
    }

    /// A node's channel comes with the node: there is one already.
    pub(crate) fn create_channel(&self, node_id: &[u8], max_queue_size: i64) -> Outcome<Zval> {
        let channel = match self.find(node_id)? {
            Some(node) => self.channel_object(&node)?,
            None => Zval::null(),
        };
        let Some(object) = channel.object() else {
            let node_id = String::from_utf8_lossy(node_id);
            return Err(exception::raise(&Error::new(ErrorKind::NotFound, format!("Node {node_id} is not connected: it has no channel"))));
        };
        channel::set_max_queue_size(ptr::from_ref(object).cast_mut(), max_queue_size);
        Ok(channel)
    }

    fn channels_of(&self, nodes: impl IntoIterator<Item = Registration>) -> Outcome<Zval> {
        let mut all = value(ZendEmptyArray);
        for node in nodes {
            let channel = self.channel_object(&node)?;
            if channel.is_object() {
                Table::of(&mut all).set_index(i64::from(node.channel_id()), channel);
            }
        }
        Ok(all)
    }

    pub(crate) fn node_channels(&self, node_id: &[u8]) -> Outcome<Zval> {
        self.channels_of(self.find(node_id)?)
    }

    pub(crate) fn channels(&self) -> Outcome<Zval> {
        self.channels_of(answered(self.engine.nodes())?)
    }

    pub(crate) fn channel_count(&self) -> Outcome<i64> {
        Ok(answered(self.engine.stats())?.channels_active as i64)
    }

    /// Closes what PHP has of a channel, and forgets it: whoever asks for the channel of a node that is still there gets
    /// another object.
    pub(crate) fn close_channel(&self, id: i64) -> Outcome {
        let entry = u32::try_from(id).ok().and_then(|id| self.server.objects().take_channel(id));
        let Some(object) = entry.as_ref().and_then(Zval::object) else { return Ok(()) };
        self.server.resubscribe();
        channel::shut(ptr::from_ref(object).cast_mut())
    }

    pub(crate) fn close_node_channels(&self, node_id: &[u8]) -> Outcome {
        self.find(node_id)?.map_or(Ok(()), |node| self.close_channel(node.channel_id().into()))
    }

    /// Forgets closed channels that PHP still holds.
    pub(crate) fn cleanup(&self) -> i64 {
        let cleaned = self.server.objects().forget_closed();
        self.server.resubscribe();
        cleaned as i64
    }

    pub(crate) fn channel_stats(&self) -> Outcome<Zval> {
        let stats = answered(self.engine.stats())?;
        let counts = stats.counts;
        let left = statistics::left(&stats);
        let (now, objects) = (microtime(), self.server.objects());
        let mut channels = Vec::new();
        for node in answered(self.engine.nodes())? {
            channels.push(match objects.channel_of(&node) {
                Some(object) => channel::stats(object)?,
                // Nobody has asked for it: no object is made to look at it.
                None => {
                    let info = self.engine.info(&node);
                    map([
                        ("id", value(i64::from(info.channel_id))),
                        ("node_id", text(&*info.id)),
                        ("closed", value(false)),
                        ("send_queue_size", value(0i64)),
                        ("recv_queue_size", value(0i64)),
                        ("waiting_futures", value(0i64)),
                        ("send_count", value(0i64)),
                        ("recv_count", value(0i64)),
                        ("created_at", value(info.created_at)),
                        ("lifetime", value(now - info.created_at)),
                    ])
                }
            });
        }
        Ok(map([
            ("active_channels", value(stats.channels_active as i64)),
            ("active_nodes", value(stats.nodes_online as i64)),
            ("total_created", value(counts.nodes_registered as i64)),
            ("total_closed", value(left as i64)),
            ("channels", value(channels)),
        ]))
    }

    pub(crate) fn channel_summary(&self) -> Outcome<Zval> {
        let stats = answered(self.engine.stats())?;
        Ok(map([
            ("active_channels", value(stats.channels_active as i64)),
            ("active_nodes", value(stats.nodes_online as i64)),
            // The engine writes at once: what a slow node keeps waiting is in its outbox, counted in bytes.
            ("total_send_queue", value(0i64)),
            ("total_recv_queue", value(self.server.objects().queued())),
            ("total_send_count", value(stats.counts.data_out as i64)),
            ("total_recv_count", value(stats.counts.data_in as i64)),
        ]))
    }
}
