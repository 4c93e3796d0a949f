//! The engine's tokio runtime: one thread, `heartbus-rt`, for everything that is a task and not a connection of an I/O thread.
//!
//! Owns the thread and its threads for long requests, `heartbus-work`. It starts with the first who uses it, is shared by all of the
//! process, and ends with the last. Does not know what its users do.

use super::{in_words, spawn_thread, survive};
use crate::descriptor::{Turn, lifted_in};
use crate::error::{Error, ErrorKind};
use crate::log;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

/// Threads for requests that take long.
const WORK_THREADS: usize = 2;

/// They stay.
const FOREVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// How long the thread waits, at its end, for requests that take long.
const GOODBYE_TIME: Duration = Duration::from_millis(100);

/// Users that may begin before the thread has looked.
const BEGINNERS: usize = 64;

type Beginning = Box<dyn FnOnce() + Send>;

/// The runtime of the process, while it has one.
static CURRENT: Mutex<Weak<RuntimeThread>> = Mutex::new(Weak::new());

/// A share in the runtime. The thread runs as long as somebody has one.
#[derive(Clone)]
pub(super) struct Runtime {
    thread: Arc<RuntimeThread>,
}

struct RuntimeThread {
    handle: Handle,
    beginnings: Option<mpsc::Sender<Beginning>>,
    joined: Option<JoinHandle<()>>,
    /// The process that the thread belongs to.
    process: u32,
}

/// A user's work on the thread.
pub(super) struct RuntimeTask {
    over: Receiver<()>,
}

impl RuntimeTask {
    /// Waits until it is over, however it ended.
    pub(super) fn wait(self) {
        // Nothing is ever sent: its end is that the other side is dropped.
        let _ = self.over.recv();
    }
}

impl Runtime {
    /// # Errors
    /// [`ErrorKind::Io`] when the system has no descriptor or thread left.
    pub(super) fn share() -> Result<Self, Error> {
        // Nobody forks meanwhile, where the host says when it does: a child would find the lock taken for ever.
        let turn = Turn::take();
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let running = current.upgrade().filter(|thread| {
            let is_own = thread.is_own_process();
            if !is_own {
                // This share is dropped in a moment, and must not be the last one of a thread that does not exist here.
                std::mem::forget(thread.clone());
            }
            is_own
        });
        let thread = match running {
            Some(thread) => thread,
            None => Arc::new(RuntimeThread::start(&turn)?),
        };
        *current = Arc::downgrade(&thread);
        Ok(Self { thread })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.thread.handle
    }

    /// Has one of the threads for long requests there from now on: where the system has no more of them, long requests wait for it.
    /// It inherits that it takes no signal.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the system has no thread left.
    pub(super) fn keep_a_work_thread(&self) -> Result<(), Error> {
        let handle = self.handle().clone();
        let begun = spawn_thread("heartbus-work".to_owned(), move || drop(handle.spawn_blocking(|| ())))?;
        begun.join().map_err(|_| Error::new(ErrorKind::Io, "The system has no thread left"))
    }

    /// Begins a user's work: `make` runs on the thread, so what it makes needs not be sent there. Tasks that it spawns with
    /// `spawn_local` are its own, and end with it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]: the thread is far behind, or gone.
    pub(super) fn run<F: Future<Output = ()> + 'static>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<RuntimeTask, Error> {
        let (is_over, over) = sync_channel::<()>(0);
        let origin = log::origin();
        let begin = move || {
            let work = async move {
                if let Err(why) = survive(LocalSet::new().run_until(async move { make().await })).await {
                    tracing::error!(name, "The thread of the engine's tasks failed in something: {why}");
                }
                drop(is_over);
            };
            drop(spawn_local(as_of(origin, work)));
        };
        let beginnings = self.thread.beginnings.as_ref();
        match beginnings.map(|beginnings| beginnings.try_send(Box::new(begin))) {
            Some(Ok(())) => Ok(RuntimeTask { over }),
            _ => Err(Error::new(ErrorKind::Io, "The thread of the engine's tasks does not answer")),
        }
    }
}

/// What is logged in there is logged as being of this origin.
pub(super) async fn as_of<T>(origin: u64, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let _within = log::within(origin);
        work.as_mut().poll(cx)
    })
    .await
}

impl RuntimeThread {
    fn start(turn: &Turn) -> Result<Self, Error> {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().thread_name("heartbus-work").max_blocking_threads(WORK_THREADS).thread_keep_alive(FOREVER);
        let runtime = lifted_in(turn, || builder.build())
            .map_err(|error| Error::new(ErrorKind::Io, format!("Cannot start the engine's tasks: {error}")))?;
        let handle = runtime.handle().clone();
        let (beginnings, mut begun) = mpsc::channel::<Beginning>(BEGINNERS);
        let joined = spawn_thread("heartbus-rt".to_owned(), move || {
            // It is everybody's: whose it is is said by each of them.
            let _within = log::within(0);
            let users = LocalSet::new();
            users.block_on(&runtime, async {
                while let Some(begin) = begun.recv().await {
                    begin();
                }
            });
            drop(users);
            // A request that takes long is not waited for; the threads that have none end with this one.
            runtime.shutdown_timeout(GOODBYE_TIME);
        })?;
        Ok(Self { handle, beginnings: Some(beginnings), joined: Some(joined), process: crate::process::id() })
    }

    fn is_own_process(&self) -> bool {
        self.process == crate::process::id()
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        if !self.is_own_process() {
            // Neither the thread nor what it holds exists here.
            std::mem::forget(self.beginnings.take());
            std::mem::forget(self.joined.take());
            return;
        }
        // The thread ends when it has no more of them to expect.
        drop(self.beginnings.take());
        let Some(joined) = self.joined.take() else { return };
        if joined.thread().id() != std::thread::current().id()
            && let Err(panic) = joined.join()
        {
            tracing::error!("The thread of the engine's tasks panicked: {}", in_words(&*panic));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::SyncSender;
    use std::thread::ThreadId;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    fn say_thread(to: SyncSender<ThreadId>) {
        to.send(std::thread::current().id()).unwrap();
    }

    #[test]
    fn all_users_are_on_one_thread_and_what_one_has_spawned_ends_with_it() {
        let runtime = Runtime::share().unwrap();
        let (said, threads) = sync_channel(2);
        let other_said = said.clone();
        let stay = Arc::new(Notify::new());
        let stays = stay.clone();
        let first = runtime.run("first", move || async move {
            say_thread(said);
            stays.notified().await;
        });
        let other = Runtime::share().unwrap();
        let (alive, is_alive) = sync_channel::<()>(1);
        let second = other.run("second", move || async move {
            say_thread(other_said);
            spawn_local(async move {
                std::future::pending::<()>().await;
                drop(alive);
            });
            yield_now().await;
        });
        second.unwrap().wait();
        assert!(is_alive.recv().is_err(), "its task is gone");
        assert_eq!(threads.recv().unwrap(), threads.recv().unwrap());
        stay.notify_one();
        first.unwrap().wait();
    }

    #[test]
    fn a_user_that_panics_is_over_and_the_others_go_on() {
        let runtime = Runtime::share().unwrap();
        let stay = Arc::new(Notify::new());
        let stays = stay.clone();
        let (done, is_done) = sync_channel(4);
        let other = runtime.run("goes on", move || async move {
            stays.notified().await;
            done.send(()).unwrap();
        });
        runtime.run("panics", || async { panic!("on purpose") }).unwrap().wait();
        stay.notify_one();
        is_done.recv().unwrap();
        other.unwrap().wait();
    }

    #[test]
    fn each_user_is_logged_as_being_of_who_began_it() {
        let runtime = Runtime::share().unwrap();
        let (said, origins) = sync_channel(4);
        let users: Vec<_> = [3, 4]
            .into_iter()
            .map(|origin| {
                let _within = log::within(origin);
                let said = said.clone();
                runtime.run("says", move || async move {
                    yield_now().await;
                    said.send((origin, log::origin())).unwrap();
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.unwrap().wait());
        drop(said);
        assert!(origins.iter().all(|(began, is)| began == is));
    }
}
