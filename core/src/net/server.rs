//! A running server: how its I/O threads are started and stopped, and asked for what each of them counts or has.
//!
//! Owns the threads. What they share is [`super::shared`]'s.

use super::door::Spoken;
use super::io::{IoThread, Polling};
use super::mailbox::{Listing, Mailbox, TopicQuestion};
use super::relief::Relief;
use super::shared::ServerShared;
use super::{listen, spawn_thread};
use crate::descriptor;
use crate::error::{Error, ErrorKind};
use crate::hub::fan_out::HubThread;
use crate::hub::topics::members::Subscriber;
use crate::hub::{Counters, Counts, Host, Hub, Node, NodeRef, Timings};
use crate::model::ConnectionInfo;
use crate::settings::{ProtocolDoor, ServerConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a listing waits for the threads: they look within a tick, unless they are very busy.
const LISTING_TIME: Duration = Duration::from_millis(500);

/// Slots of connections as they stand in the place of a page: more than a process has descriptors.
const MAX_SLOT: u32 = 0x00ff_ffff;

/// The running threads of a server.
pub(crate) struct Server {
    pub(crate) shared: Arc<ServerShared>,
    pub(crate) local_addr: SocketAddr,
    /// Where WebSockets come in, if they do at a door of their own.
    pub(crate) websocket_addr: Option<SocketAddr>,
    /// The same of Firetower's gateways.
    pub(crate) firetower_addr: Option<SocketAddr>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    pub(crate) fn start(config: &ServerConfig, host: Arc<dyn Host>) -> Result<Self, Error> {
        config.validate()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if config.io_threads == 0 { cores } else { config.io_threads.min(cores) };
        let listeners = listen::bind(&config.host, config.port, threads)?;
        let bind = |door: &ProtocolDoor| door.address().map_or(Ok(Vec::new()), |(host, port)| listen::bind(host, port, threads));
        let (websockets, gateways) = (bind(&config.websocket)?, bind(&config.firetower)?);
        let cannot_start = |error: io::Error| Error::new(ErrorKind::Io, format!("Cannot start the server: {error}"));
        let local_addr = listeners[0].local_addr().map_err(cannot_start)?;
        let address = |listeners: &[std::net::TcpListener]| listeners.first().map(std::net::TcpListener::local_addr).transpose();
        let websocket_addr = address(&websockets).map_err(cannot_start)?;
        let firetower_addr = address(&gateways).map_err(cannot_start)?;
        let hub = Hub::new(config.clone(), host);
        let polls = descriptor::lifted(|| (0..threads).map(|_| Polling::new()).collect::<io::Result<Vec<_>>>()).map_err(cannot_start)?;
        let apart = |(thread, Polling { poll, registry, waker })| {
            let mailbox = Mailbox::new(thread, waker, hub.memory().clone());
            ((poll, registry), Arc::new(mailbox))
        };
        let (polls, mailboxes): (Vec<_>, Vec<_>) = polls.into_iter().enumerate().map(apart).unzip();
        let shared = Arc::new(ServerShared::new(config, hub, Relief::new(mailboxes.clone()), threads));
        let hub_threads = mailboxes.iter().zip(&shared.counters);
        let hub_threads = hub_threads.map(|(mailbox, counters)| HubThread { sink: mailbox.clone(), counters: counters.clone() });
        shared.hub.set_threads(hub_threads.collect());
        tracing::info!(host = config.host, port = local_addr.port(), workers = threads, protocol = "tcp", "HeartbeatServer starting");
        let mut server = Self { shared, local_addr, websocket_addr, firetower_addr, mailboxes, threads: Mutex::default() };
        let (mut websockets, mut gateways) = (websockets.into_iter(), gateways.into_iter());
        for (index, (listener, (poll, registry))) in listeners.into_iter().zip(polls).enumerate() {
            let listener = (listener, Spoken::Bus);
            let websockets = websockets.next().map(|listener| (listener, Spoken::WebSocket));
            let gateways = gateways.next().map(|listener| (listener, Spoken::Firetower));
            let listeners = std::iter::once(listener).chain(websockets).chain(gateways);
            if let Err(error) = server.start_thread(index, listeners, poll, registry, cannot_start) {
                server.stop();
                return Err(error);
            }
        }
        Ok(server)
    }

    fn start_thread(
        &mut self,
        index: usize,
        listeners: impl Iterator<Item = (std::net::TcpListener, Spoken)>,
        poll: mio::Poll,
        registry: mio::Registry,
        cannot_start: impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let listeners = listeners.map(|(listener, spoken)| (mio::net::TcpListener::from_std(listener), spoken)).collect();
        let io = IoThread::new(index, self.shared.clone(), registry, self.mailboxes[index].clone(), listeners).map_err(&cannot_start)?;
        let thread = spawn_thread(format!("heartbus-io-{index}"), move || io.run(poll))?;
        self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    pub(crate) fn io_threads(&self) -> usize {
        self.mailboxes.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts()
    }

    pub(crate) fn timings(&self) -> Timings {
        let mut sum = Timings::default();
        for counters in &self.shared.counters {
            counters.message_durations.add_to(&mut sum.messages);
            counters.heartbeat_durations.add_to(&mut sum.heartbeats);
        }
        sum
    }

    /// Up to `max` open connections over all threads, in no particular order. A thread that does not answer in time is
    /// left out.
    pub(crate) fn connections(&self, max: usize) -> Vec<ConnectionInfo> {
        let (answer, answers) = sync_channel(self.mailboxes.len());
        for mailbox in &self.mailboxes {
            mailbox.ask(Listing { max, answer: answer.clone() });
        }
        drop(answer);
        let deadline = Instant::now() + LISTING_TIME;
        let mut found = Vec::new();
        while let Ok(more) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            found.extend(more);
        }
        found.truncate(max);
        found
    }

    /// A page of the nodes that have subscribed to a topic by its name, on one thread after the other; `after` is what came with the page
    /// before. Ends early where a thread does not answer in time.
    pub(crate) fn members(&self, topic: &str, after: Option<u64>, limit: usize) -> (Vec<Arc<str>>, Option<u64>) {
        let (mut thread, mut behind) = after.map_or((0, None), |after| {
            let (slot, node) = ((after >> 32) as u32 & MAX_SLOT, NodeRef::of_main_channel(after as u32));
            ((after >> 56) as usize, Some(Subscriber { slot, node }))
        });
        let mut found = Vec::new();
        while let Some(mailbox) = self.mailboxes.get(thread) {
            let (answer, answers) = sync_channel(1);
            let limit = limit - found.len();
            mailbox.ask_of_topics(TopicQuestion::Members { topic: topic.into(), behind, limit, answer });
            let page = answers.recv_timeout(LISTING_TIME).unwrap_or_default();
            found.extend(page.nodes);
            if let Some(last) = page.next {
                let after = (thread as u64) << 56 | u64::from(last.slot & MAX_SLOT) << 32 | u64::from(last.node.number());
                return (found, Some(after));
            }
            (thread, behind) = (thread + 1, None);
        }
        (found, None)
    }

    /// What a node has subscribed to or was put into; none where its thread does not answer in time.
    pub(crate) fn topics_of(&self, node: &Node) -> Vec<String> {
        let link = node.link();
        let (answer, answers) = sync_channel(1);
        let question = TopicQuestion::TopicsOf { slot: link.slot(), connection_id: link.connection_id(), node: node.reference(), answer };
        let Some(mailbox) = self.mailboxes.get(link.thread()) else { return Vec::new() };
        mailbox.ask_of_topics(question);
        answers.recv_timeout(LISTING_TIME).unwrap_or_default()
    }

    /// Lends the counters for what is done on the host's threads.
    pub(crate) fn with_host_counters<T>(&self, work: impl FnOnce(&Counters) -> T) -> T {
        work(&self.shared.host_counters())
    }

    /// Listens no longer; open connections go on.
    pub(crate) fn close_door(&self) {
        self.shared.closed.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    /// Tells every client, writes what waits, closes, and waits for the threads. The second call finds nothing to do.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("An I/O thread had panicked");
            }
        }
        self.shared.hub.end_observers();
        crate::log::tell_left_out(true);
    }
}
