//! The connection to the manager of Firetower's that this server is a gateway of: a task on the engine's runtime.
//!
//! Owns the sockets, and when they are connected again. What is sent there is [`crate::hub::manager`]'s business, what becomes of what comes
//! from there the hub's.

mod grpc;

use super::client::dial::connect;
use super::resolve::Resolver;
use super::runtime::{Runtime, RuntimeTask};
use super::shared::ServerShared;
use super::survive;
use crate::error::Error;
use crate::hub::client::backoff;
use crate::hub::firetower::SERVER_PREFIX;
use crate::hub::manager::{Announced, Announcement, AnnouncementId, ManagerLink, RefusedAnnouncement};
use crate::hub::resume::Resume;
use crate::settings::ServerConfig;
use crate::wire::firetower::{self, FireFrame, FireFront, HEADER_LEN};
use crate::wire::topic;
use grpc::TopicService;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Base of the time before it is connected again, in microseconds.
const RECONNECT_TIME_US: u64 = 1_000_000;
/// A connection that has held for so long is no attempt any more.
const STEADY: Duration = Duration::from_secs(10);
/// Before it is begun anew after a fault of our own.
const FAULT_PAUSE: Duration = Duration::from_secs(1);
/// Before something is announced again that was refused; twice as long each time, up to the longest.
const FIRST_REPAIR: Duration = Duration::from_secs(1);
const LONGEST_REPAIR: Duration = Duration::from_secs(60);
/// A manager sends a heartbeat every ten seconds; one that has sent nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// A manager that takes nothing for so long, or answers no call, is as good as gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Topics that are looked at together.
const PAGE: usize = 1000;
const READ_BYTES: usize = 64 * 1024;
const WRITE_BYTES: usize = 64 * 1024;

/// The running task. It ends with [`ManagerTask::stop`].
pub(crate) struct ManagerTask {
    stop: Arc<Notify>,
    running: Mutex<Option<(RuntimeTask, Runtime)>>,
}

/// Where it is.
#[derive(Clone)]
struct ManagerPlace {
    host: String,
    port: u16,
}

impl ManagerPlace {
    fn of((host, port): (&str, u16)) -> Self {
        Self { host: host.to_owned(), port }
    }
}

struct Gateway {
    shared: Arc<ServerShared>,
    link: Arc<ManagerLink>,
    /// Something waits in the link.
    woken: Arc<Notify>,
    frames: ManagerPlace,
    grpc: Option<ManagerPlace>,
    resolver: Resolver,
    room: Arc<HostRoom>,
}

/// Hears that the host has room again.
#[derive(Default)]
struct HostRoom(Notify);

impl Resume for HostRoom {
    fn resume(&self) {
        self.0.notify_one();
    }
}

impl ManagerTask {
    /// Connects from now on; `None`: the server is nobody's gateway.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Io`] when the system has no descriptor or thread left.
    pub(crate) fn start(config: &ServerConfig, shared: Arc<ServerShared>) -> Result<Option<Self>, Error> {
        // It was validated.
        let Ok(Some(addresses)) = config.manager() else { return Ok(None) };
        let (woken, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let hub = &shared.hub;
        let wakes = woken.clone();
        let wake = move || wakes.notify_one();
        let link = Arc::new(ManagerLink::new(hub.firetower().instance(), config.outbox_bytes, hub.memory().clone(), wake));
        let (frames, grpc, resolver) = (ManagerPlace::of(addresses.frames), addresses.grpc.map(ManagerPlace::of), Resolver::start()?);
        let runtime = Runtime::share()?;
        hub.set_manager(link.clone());
        let stopped = stop.clone();
        let work = runtime.run("Firetower's manager", move || async move {
            let gateway = Rc::new(Gateway { shared, link, woken, frames, grpc, resolver, room: Arc::default() });
            let mut stopped = pin!(stopped.notified());
            loop {
                tokio::select! {
                    () = &mut stopped => break,
                    Err(why) = survive(gateway.clone().keep_connected()) => {
                        tracing::error!("The connection to Firetower's manager failed in something, and goes on: {why}");
                        tokio::select! {
                            () = &mut stopped => break,
                            () = sleep(FAULT_PAUSE) => {}
                        }
                    }
                }
            }
            gateway.resolver.stop();
        })?;
        Ok(Some(Self { stop, running: Mutex::new(Some((work, runtime))) }))
    }

    pub(crate) fn stop(&self) {
        let Some((work, _runtime)) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.stop.notify_one();
        work.wait();
    }
}

impl Gateway {
    async fn keep_connected(self: Rc<Self>) {
        let mut random = fastrand::Rng::new();
        let mut attempt = 0;
        loop {
            let why = match self.connect(&self.frames).await {
                Ok(stream) => self.serve(stream, &mut attempt).await,
                Err(why) => why,
            };
            tracing::warn!(host = self.frames.host, port = self.frames.port, "No connection to Firetower's manager: {why}");
            attempt += 1;
            sleep(Duration::from_micros(backoff(RECONNECT_TIME_US, attempt, &mut random))).await;
        }
    }

    async fn connect(&self, place: &ManagerPlace) -> Result<TcpStream, String> {
        connect(&self.resolver, &place.host, place.port, CONNECT_TIMEOUT).await.map_err(|error| error.to_string())
    }

    /// Returns why it is over. The attempts are counted anew once it has held for a while.
    async fn serve(&self, stream: TcpStream, attempt: &mut u32) -> String {
        let teller = match self.teller(&stream).await {
            Ok(teller) => teller,
            Err(why) => return format!("it takes no subscriptions: {why}"),
        };
        let begun = Instant::now();
        self.shared.host_counters().manager_connects.up();
        tracing::info!(host = self.frames.host, port = self.frames.port, "Connected to Firetower's manager");
        let (reading, writing) = stream.into_split();
        let why = tokio::select! {
            why = self.read(reading) => why,
            why = self.write(writing, teller) => why,
        };
        if begun.elapsed() >= STEADY {
            *attempt = 0;
        }
        why
    }

    async fn teller(&self, stream: &TcpStream) -> Result<Option<TopicService>, String> {
        let Some(place) = &self.grpc else { return Ok(None) };
        let ip = stream.local_addr().map_err(|error| error.to_string())?.to_string();
        let service = TopicService::over(self.connect(place).await?, format!("{}:{}", place.host, place.port), ip);
        timeout(PATIENCE, service).await.map_err(|_| "no answer".to_owned())?.map(Some)
    }

    async fn read(&self, mut reading: OwnedReadHalf) -> String {
        let limit = self.shared.hub.limits().max_frame_bytes;
        let (mut buffer, mut kept) = (vec![0; READ_BYTES], Vec::new());
        loop {
            let count = match timeout(SILENCE, reading.read(&mut buffer)).await {
                Err(_) => return "it is silent".to_owned(),
                Ok(Err(error)) => return error.to_string(),
                Ok(Ok(0)) => return "it has closed the connection".to_owned(),
                Ok(Ok(count)) => count,
            };
            kept.extend_from_slice(&buffer[..count]);
            let mut done = 0;
            loop {
                match firetower::front(&kept[done..], limit) {
                    FireFront::Incomplete => break,
                    FireFront::Broken { why } => {
                        self.shared.host_counters().firetower_violations.up();
                        return format!("it sends {why}");
                    }
                    FireFront::Invalid { len, .. } => {
                        self.shared.host_counters().invalid_payloads.up();
                        done += len;
                    }
                    FireFront::Frame { frame, len } => {
                        self.wait_for_host(&frame).await;
                        self.receive(&frame);
                        done += len;
                    }
                }
            }
            kept.drain(..done);
            kept.shrink_to(READ_BYTES.max(kept.len() + HEADER_LEN));
            // The others on this thread have their turn.
            yield_now().await;
        }
    }

    /// What the host hears waits until it has room, as what nodes publish does.
    async fn wait_for_host(&self, frame: &FireFrame<'_>) {
        let hub = &self.shared.hub;
        while frame.kind == firetower::PUBLISH && hub.is_host_full(frame.topic, frame.content.len(), || self.room.clone()) {
            self.shared.host_counters().reads_paused_by_host.up();
            self.room.0.notified().await;
        }
    }

    fn receive(&self, frame: &FireFrame<'_>) {
        match frame.kind {
            firetower::HEARTBEAT | firetower::SUBSCRIBE | firetower::UNSUBSCRIBE | firetower::ON_SUBSCRIBE | firetower::ON_UNSUBSCRIBE => {}
            firetower::ERROR => {
                let why = String::from_utf8_lossy(frame.content);
                if let Some(announcement) = AnnouncementId::parse(frame.message_id) {
                    self.link.refuse(RefusedAnnouncement { announcement, topic: frame.topic.into() });
                }
                tracing::warn!(topic = frame.topic, "Firetower's manager refuses something: {why}");
            }
            _ if frame.has_long_head() => {
                let counters = self.shared.host_counters();
                counters.publishes.up();
                counters.publish_refused.up();
            }
            _ => {
                let counters = self.shared.host_counters();
                // Whom it does not reach is counted where that is found.
                if let Ok(None) = self.shared.hub.publish_frame(frame, true, &counters, self.shared.clock.now()) {
                    counters.firetower_loops.up();
                }
            }
        }
    }

    async fn write(&self, mut writing: OwnedWriteHalf, mut teller: Option<TopicService>) -> String {
        let mut announced = Announced::nothing(self.shared.hub.memory().clone());
        self.link.set_all_changed();
        let (mut pause, mut repair, mut repaired) = (FIRST_REPAIR, None, None);
        loop {
            // What it has is known at once, so that what changes meanwhile is told as it is.
            self.link.take_refused().iter().for_each(|refused| announced.take_back(refused));
            let now = Instant::now();
            if repair.is_some_and(|at| now >= at) {
                announced.tell_refused_again();
                (repair, repaired) = (None, Some(now));
            } else if repair.is_none() && announced.has_refused() {
                // Longer where the last time has not helped.
                let again = repaired.is_some_and(|at| now < at + pause);
                pause = if again { (2 * pause).min(LONGEST_REPAIR) } else { FIRST_REPAIR };
                repair = Some(now + pause);
            }
            let is_idle = match self.announce(&mut writing, teller.as_mut(), &mut announced).await {
                Ok(is_idle) => is_idle,
                Err(why) => return why,
            };
            let frames = self.link.take_frames(WRITE_BYTES);
            if frames.is_empty() && is_idle {
                let far = Instant::now() + LONGEST_REPAIR;
                let _ = timeout_at(repair.unwrap_or(far), self.woken.notified()).await;
            } else if let Err(why) = send(&mut writing, &frames).await {
                return why;
            }
        }
    }

    /// Tells the manager how many have subscribed to what, as far as it does not know. True when there was nothing to tell.
    async fn announce(
        &self,
        writing: &mut OwnedWriteHalf,
        mut teller: Option<&mut TopicService>,
        announced: &mut Announced,
    ) -> Result<bool, String> {
        let topics = self.shared.hub.topics();
        let mut is_idle = true;
        let (changed, mut after) = match self.link.take_changed() {
            Some(changed) => (changed.into_iter().map(Arc::from).collect(), None),
            // Those that are there are looked at page by page, and those that were announced and are not.
            None => (announced.topics(), Some(None)),
        };
        for part in changed.chunks(PAGE) {
            part.iter().for_each(|topic| self.note(announced, topic));
            is_idle &= !self.tell(writing, teller.as_deref_mut(), announced, false).await?;
        }
        while let Some(from) = after {
            let (page, next) = topics.page(from, PAGE);
            page.iter().for_each(|(topic, _)| self.note(announced, topic));
            is_idle &= !self.tell(writing, teller.as_deref_mut(), announced, false).await?;
            after = next.map(Some);
            yield_now().await;
        }
        is_idle &= !self.tell(writing, teller, announced, true).await?;
        Ok(is_idle)
    }

    /// What cannot be told counts, and is said.
    fn note(&self, announced: &mut Announced, topic: &str) {
        let count = self.shared.hub.topics().named_subscribers(topic);
        // What has a comma in it would be several in a frame.
        let is_several = self.grpc.is_none() && topic.contains(',') && !topic::is_of_server(topic);
        let is_told = if is_several { count == 0 } else { announced.note(topic, count) };
        if !is_told {
            self.link.drop_one();
            tracing::warn!(topic, "A topic that Firetower's manager cannot be told: it has a space, a comma or an end of a line in it");
        }
    }

    /// True when there was something to tell.
    async fn tell(
        &self,
        writing: &mut OwnedWriteHalf,
        mut teller: Option<&mut TopicService>,
        announced: &mut Announced,
        is_all: bool,
    ) -> Result<bool, String> {
        let mut has_told = false;
        while let Some(announcement) = announced.next(is_all) {
            has_told = true;
            match &mut teller {
                Some(service) => {
                    let told = timeout(PATIENCE, service.tell(announcement)).await;
                    told.map_err(|_| "it does not answer".to_owned())?.map_err(|why| format!("it takes no subscriptions: {why}"))?;
                }
                None => send(writing, &self.frame_of(&announcement)).await?,
            }
        }
        Ok(has_told)
    }

    /// An announcement as another server of this kind takes it: under a name, so that one connection takes the place of another.
    fn frame_of(&self, announcement: &Announcement) -> Vec<u8> {
        let mut out = Vec::new();
        let frame = FireFrame {
            kind: if announcement.subscribes { firetower::SUBSCRIBE } else { firetower::UNSUBSCRIBE },
            message_id: &announcement.id.to_string(),
            source: &format!("{SERVER_PREFIX}{}", self.shared.hub.firetower().instance()),
            topic: &announcement.topics.join(","),
            content: b"",
        };
        let written = frame.write(&mut out);
        debug_assert!(written.is_ok(), "topics that could not stand in a frame were left out");
        out
    }
}

async fn send(writing: &mut OwnedWriteHalf, frames: &[u8]) -> Result<(), String> {
    let sent = timeout(PATIENCE, writing.write_all(frames)).await;
    sent.map_err(|_| "it takes nothing".to_owned())?.map_err(|error| error.to_string())
}
