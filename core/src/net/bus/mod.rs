//! The engine's side of the bus socket, which other processes of the machine talk to: tasks on the engine's runtime.
//!
//! Owns the listening socket, who may come in, and the end of it all. What a client's request does is the
//! [`Service`]'s business; which worker gets which event is decided by the hub's dispatch. A caller that breaks the
//! protocol, does not read, or sends half of something loses its own connection and nothing else.

mod connection;
pub(crate) mod dispatcher;
mod log;
pub(crate) mod places;
pub(crate) mod remote;
pub(crate) mod search;
mod shared;
pub(crate) mod socket;
mod subscriber;
mod worker;

use super::runtime::{Runtime, RuntimeTask};
use super::{Clock, survive, wait_at_most};
use crate::descriptor::{self, Shares};
use crate::error::{Error, ErrorKind};
use crate::hub::Memory;
use crate::hub::connection_log::ConnectionLog;
use crate::service::Service;
use crate::wire::bus::Role;
use connection::{BusConnection, End};
use dispatcher::Dispatcher;
pub(crate) use log::LogPost;
use shared::{BusShared, GOODBYE_TIME, Stage, move_to};
pub(crate) use shared::{HostTopics, Introduce};
use socket::{BoundSocket, SocketFile};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Connections at the same time; one more is refused.
const MAX_CALLERS: usize = 4096;

/// Places beyond these for the server's own user, so that others cannot keep its workers out. Where there are few places, an eighth
/// of them is for it.
const OWN_CALLERS: usize = 256;

/// Under a descriptor limit that leaves room for fewer there are fewer.
pub(super) const MOST_CALLERS: usize = MAX_CALLERS + OWN_CALLERS;

/// Callers beyond their number who may be told so at the same time; more are hung up on at once.
const MAX_REFUSED: usize = 32;

/// How long a stopping server waits for its workers to tell what is left.
const FINISH_TIME: Duration = Duration::from_secs(2);

/// How often is looked whether the socket's file is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long it is not said again that the file cannot be made again.
const SILENT_TIME: Duration = Duration::from_secs(60);

/// How long accepting pauses when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running bus.
pub(crate) struct BusServer {
    stage: Arc<watch::Sender<Stage>>,
    callers: Arc<AtomicUsize>,
    log: Arc<LogPost>,
    /// The share in the runtime goes with it.
    running: Mutex<Option<(RuntimeTask, Runtime)>>,
}

impl BusServer {
    /// `clock`: the server's, which the times of its nodes are read on; `memory`: where it counts what it keeps. Without a
    /// dispatcher workers are refused.
    pub(crate) fn start(
        socket: BoundSocket,
        service: Arc<dyn Service>,
        introduce: Introduce,
        dispatcher: Option<Arc<Dispatcher>>,
        topics: Box<dyn HostTopics>,
        clock: Clock,
        memory: Arc<Memory>,
    ) -> Result<Self, Error> {
        let runtime = Runtime::share()?;
        runtime.keep_a_work_thread()?;
        let stage = Arc::new(watch::Sender::new(Stage::Open));
        let callers = Arc::new(AtomicUsize::new(0));
        let places = descriptor::raise_limit().map_or(MOST_CALLERS, |limit| Shares::of(limit, MOST_CALLERS).callers);
        let log = Arc::new(LogPost::default());
        let (thread_stage, thread_callers, thread_log) = (stage.clone(), callers.clone(), log.clone());
        let running = runtime.run("the bus", move || {
            let shared = BusShared {
                frame_cap: introduce(0).frame_cap,
                service,
                introduce,
                dispatcher,
                topics,
                allows_group: socket.allows_group,
                owner: rustix::process::geteuid().as_raw(),
                clock,
                connection_log: RefCell::new(ConnectionLog::new(0)),
                callers: thread_callers,
                places,
                stage: thread_stage,
                log: thread_log,
                memory,
                next_worker: Cell::new(1),
                workers: RefCell::default(),
                progress: Notify::new(),
            };
            Rc::new(shared).run(socket)
        })?;
        Ok(Self { stage, callers, log, running: Mutex::new(Some((running, runtime))) })
    }

    /// Open connections.
    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }

    /// The messages for a worker that takes them.
    pub(crate) fn log(&self) -> &LogPost {
        &self.log
    }

    /// Tells the workers that the server is stopping.
    pub(crate) fn begin_stopping(&self) {
        move_to(&self.stage, Stage::Stopping);
    }

    /// No more events come: lets the workers tell what is left, and closes all connections, within 2.2 s.
    pub(crate) fn finish(&self) {
        // Held until the end, so that a second caller returns no earlier than the first.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((work, _runtime)) = running.take() else { return };
        move_to(&self.stage, Stage::Finishing);
        work.wait();
    }
}

/// A stream belongs to the runtime only when it has its number.
fn lifted<A>((stream, _): (UnixStream, A)) -> std::io::Result<UnixStream> {
    UnixStream::from_std(descriptor::lift(stream.into_std()?)?)
}

impl BusShared {
    async fn run(self: Rc<Self>, socket: BoundSocket) {
        let (listener, mut file) = socket.into_parts();
        let mut listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "The bus socket cannot be listened on"),
        };
        if let Some(dispatcher) = self.dispatcher.clone() {
            let shared = self.clone();
            spawn_local(self.clone().go_on("waking workers", move || shared.clone().wake_workers(dispatcher.clone())));
            let shared = self.clone();
            spawn_local(self.clone().go_on("waking the log's worker", move || shared.clone().wake_log_taker()));
        }
        let mut stage = self.stage.subscribe();
        loop {
            tokio::select! {
                // The sender cannot be gone: it is in here.
                _ = stage.wait_for(|stage| *stage >= Stage::Finishing) => break,
                Err(why) = survive(self.accept(&mut listener, &mut file)) => self.failed("accepting", &why),
            }
            sleep(ACCEPT_PAUSE).await;
        }
        self.finish().await;
        self.connection_log.borrow_mut().tell_counts();
        // Not only dropped: in a process that was forked off this one it would go on listening, and nobody would answer.
        let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
        // Not before the end: the name is taken as long as anything of the server is left.
        drop(file);
    }

    /// Does this for as long as the thread lives, whatever fails in it.
    async fn go_on<F: Future<Output = ()>>(self: Rc<Self>, what: &'static str, work: impl Fn() -> F) {
        while let Err(why) = survive(work()).await {
            self.failed(what, &why);
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn failed(&self, what: &str, why: &str) {
        tracing::error!(what, "The bus failed in something, and goes on: {why}");
    }

    async fn accept(self: &Rc<Self>, listener: &mut UnixListener, file: &mut SocketFile) {
        let mut warned: Option<Instant> = None;
        let mut told: Option<Instant> = None;
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted.and_then(lifted) {
                    Ok(stream) => drop(spawn_local(self.clone().receive(stream))),
                    Err(error) => {
                        // Tried ten times per second, and told every ten seconds.
                        if warned.is_none_or(|warned| warned.elapsed() > 100 * ACCEPT_PAUSE) {
                            warned = Some(Instant::now());
                            tracing::warn!(%error, "The bus socket accepts nobody for a moment");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = look.tick() => if !file.is_there() {
                    self.open_again(listener, file, &mut told).await;
                },
            }
        }
    }

    /// Somebody has removed the file: nobody new would find us.
    async fn open_again(self: &Rc<Self>, listener: &mut UnixListener, file: &mut SocketFile, told: &mut Option<Instant>) {
        let opened = file.make_again().and_then(|opened| {
            UnixListener::from_std(opened).map_err(|error| Error::new(ErrorKind::Io, format!("Cannot listen on the bus socket: {error}")))
        });
        match opened {
            Ok(opened) => {
                let old = std::mem::replace(listener, opened);
                // Who came in time is let in.
                while let Ok(Ok(accepted)) = timeout(Duration::ZERO, old.accept()).await {
                    if let Ok(stream) = lifted(accepted) {
                        drop(spawn_local(self.clone().receive(stream)));
                    }
                }
                let _ = SockRef::from(&old).shutdown(Shutdown::Both);
                *told = None;
                tracing::warn!(path = %file.path().display(), "The bus socket was removed: it is there again");
            }
            Err(error) if told.is_none_or(|told| told.elapsed() >= SILENT_TIME) => {
                *told = Some(Instant::now());
                tracing::error!(%error, "The bus socket was removed and cannot be made again: no process finds this server");
            }
            Err(_) => {}
        }
    }

    /// Whatever fails in there is the end of this caller alone.
    async fn receive(self: Rc<Self>, stream: UnixStream) {
        if let Err(why) = survive(self.clone().attend(stream)).await {
            self.failed("serving a caller", &why);
            self.progress.notify_one();
        }
    }

    async fn attend(self: Rc<Self>, stream: UnixStream) {
        let place = CallerPlace::take(self.callers.clone());
        if place.number > self.places + MAX_REFUSED {
            return;
        }
        let mut caller = BusConnection::new(stream, self.clone());
        let most = if caller.is_owner() { self.places } else { self.places - OWN_CALLERS.min(self.places / 8) };
        let end = match caller.greet(place.number > most).await {
            Ok(Some(Role::Client)) => caller.serve().await,
            Ok(Some(Role::Subscriber)) => subscriber::serve(&mut caller).await,
            Ok(Some(Role::Worker)) => match self.dispatcher.clone() {
                Some(dispatcher) => worker::serve(&mut caller, dispatcher).await,
                None => Ok(()),
            },
            Ok(None) => Ok(()),
            Err(end) => Err(end),
        };
        match end {
            Ok(()) | Err(End::Gone) => {}
            Err(end) => self.connection_log.borrow_mut().caller_hung_up_on(&caller, &end, self.clock.now()),
        }
        self.connection_log.borrow_mut().tell_left_out(self.clock.now());
        drop(place);
        self.progress.notify_one();
    }

    async fn wake_workers(self: Rc<Self>, dispatcher: Arc<Dispatcher>) {
        loop {
            for worker in dispatcher.ready().await {
                if let Some(session) = self.workers.borrow().get(&worker) {
                    session.notify_one();
                }
            }
        }
    }

    async fn wake_log_taker(self: Rc<Self>) {
        loop {
            self.log.arrived.notified().await;
            if let Some(session) = self.log.taker().and_then(|worker| self.workers.borrow().get(&worker).cloned()) {
                session.notify_one();
            }
        }
    }

    async fn finish(&self) {
        if let Some(dispatcher) = &self.dispatcher {
            let left = || {
                let stats = dispatcher.stats();
                (stats.queued_events + stats.in_flight_events, stats.workers)
            };
            let all_told = async {
                while !matches!(left(), (0, _) | (_, 0)) {
                    self.progress.notified().await;
                }
            };
            wait_at_most(FINISH_TIME, all_told).await;
            if let (events @ 1.., _) = left() {
                tracing::warn!(events, "Events were not told before the server stopped");
            }
        }
        move_to(&self.stage, Stage::Finished);
        let all_gone = async {
            while self.callers.load(Ordering::Relaxed) > 0 {
                self.progress.notified().await;
            }
        };
        wait_at_most(GOODBYE_TIME, all_gone).await;
    }
}

/// A caller's place among all, which is free again when this is dropped.
struct CallerPlace {
    callers: Arc<AtomicUsize>,
    /// With it there are so many.
    number: usize,
}

impl CallerPlace {
    fn take(callers: Arc<AtomicUsize>) -> Self {
        let number = callers.fetch_add(1, Ordering::Relaxed) + 1;
        Self { callers, number }
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        self.callers.fetch_sub(1, Ordering::Relaxed);
    }
}
