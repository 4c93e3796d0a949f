//! Host names, looked up on threads of ours: the system's resolver blocks whoever asks it, and cannot be interrupted.
//!
//! Owns the threads, and who waits for which name. Which name is next, and how long an answer is known, is decided by
//! [`Lookups`]. A few threads exist from the start, so that a process that may have no more of them can still look names up;
//! others come while all are busy, and go again.

use super::{Clock, spawn_thread};
use crate::descriptor::off_the_standard_streams;
use crate::error::Error;
use crate::hub::lookups::{LookupResult, Lookups, MAX_RUNNING};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Threads that are there from the start to the end.
const THREADS: usize = 4;

/// How long one more thread waits for the next name.
const IDLE_TIME: Duration = Duration::from_secs(10);

const STOPPED: &str = "the look-ups are stopped";

/// Asks the system. There may be several threads in it.
type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

pub(super) struct Resolver {
    shared: Arc<ResolverShared>,
}

struct ResolverShared {
    clock: Clock,
    look_up: Box<LookUp>,
    state: Mutex<ResolverState>,
    /// A name waits, or it is time to stop.
    work: Condvar,
}

#[derive(Default)]
struct ResolverState {
    lookups: Lookups,
    /// Names that somebody waits for.
    told: HashMap<Arc<str>, watch::Sender<LookupProgress>>,
    threads: Vec<LookupThread>,
    /// How many of them are in the system's resolver.
    busy: usize,
    is_stopping: bool,
}

struct LookupThread {
    handle: JoinHandle<()>,
    is_busy: Arc<AtomicBool>,
}

enum LookupProgress {
    Waiting,
    Running { since: Instant },
    Done(LookupResult),
}

/// Somebody's place among those who wait for a name.
struct Attempt<'a> {
    shared: &'a ResolverShared,
    name: Arc<str>,
    progress: Option<watch::Receiver<LookupProgress>>,
}

impl Resolver {
    /// # Errors
    /// [`crate::error::ErrorKind::Io`] when the system has no thread left. None is left running then.
    pub(super) fn start() -> Result<Self, Error> {
        Self::with(Box::new(|name| off_the_standard_streams(|| Ok((name, 0).to_socket_addrs()?.collect()))))
    }

    fn with(look_up: Box<LookUp>) -> Result<Self, Error> {
        let shared = Arc::new(ResolverShared { clock: Clock::start(), look_up, state: Mutex::default(), work: Condvar::new() });
        let resolver = Self { shared };
        let started = (0..THREADS).try_for_each(|_| resolver.shared.add_thread(&mut resolver.shared.lock(), None));
        if started.is_err() {
            resolver.stop();
        }
        started.map(|()| resolver)
    }

    /// The addresses of a name, and since when the time counts that they have taken: from when its look-up began, or the
    /// asking if that was later. Until then others had their turn, which is nothing that `limit` is about.
    pub(super) async fn resolve(&self, name: &str, limit: Duration) -> io::Result<(Arc<[SocketAddr]>, Instant)> {
        let asked = Instant::now();
        let mut place = match self.shared.ask(name) {
            Ok(answer) => return Ok((found(answer)?, asked)),
            Err(place) => place,
        };
        let since = match place.until(|progress| !matches!(progress, LookupProgress::Waiting)).await? {
            (Some(since), _) => asked.max(since),
            (None, _) => asked,
        };
        let answer = timeout_at(since + limit, place.until(|progress| matches!(progress, LookupProgress::Done(_)))).await;
        let (_, answer) = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok((found(answer.unwrap_or_else(|| Err("no answer".into())))?, since))
    }

    /// Ends the threads. Those that are in the system's resolver end when it lets them.
    pub(super) fn stop(&self) {
        let idle: Vec<_> = {
            let mut state = self.shared.lock();
            state.is_stopping = true;
            state.told.clear();
            let threads = std::mem::take(&mut state.threads);
            threads.into_iter().filter(|thread| !thread.is_busy.load(Ordering::Relaxed)).collect()
        };
        self.shared.work.notify_all();
        for thread in idle {
            // It catches what the look-ups do.
            let _ = thread.handle.join();
        }
    }
}

fn found(answer: LookupResult) -> io::Result<Arc<[SocketAddr]>> {
    match answer {
        Ok(addresses) if addresses.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        Ok(addresses) => Ok(addresses),
        Err(why) => Err(io::Error::new(io::ErrorKind::NotFound, &*why)),
    }
}

impl ResolverShared {
    fn lock(&self) -> MutexGuard<'_, ResolverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, name: &str) -> Result<LookupResult, Attempt<'_>> {
        let mut state = self.lock();
        if state.is_stopping {
            return Ok(Err(STOPPED.into()));
        }
        if let Some(answer) = state.lookups.ask(name, self.clock.now()) {
            return Ok(answer);
        }
        let name = Arc::from(name);
        let progress = match state.told.get(&name) {
            Some(told) => told.subscribe(),
            None => {
                // Nobody waits for a look-up that is under way: then it has begun for this one just now.
                let (told, progress) =
                    watch::channel(if state.lookups.is_running(&name) { LookupProgress::running() } else { LookupProgress::Waiting });
                state.told.insert(Arc::clone(&name), told);
                progress
            }
        };
        let free = state.threads.len().saturating_sub(state.busy);
        if state.lookups.waiting() > free && state.lookups.has_next() && state.threads.len() < MAX_RUNNING {
            // Where the system has none left, those that are there have to do.
            let _ = self.add_thread(&mut state, Some(IDLE_TIME));
        }
        self.work.notify_one();
        Err(Attempt { shared: self, name, progress: Some(progress) })
    }

    /// A thread that ends after it had nothing to do for so long.
    fn add_thread(self: &Arc<Self>, state: &mut ResolverState, patience: Option<Duration>) -> Result<(), Error> {
        let is_busy = Arc::<AtomicBool>::default();
        let (shared, flag) = (self.clone(), is_busy.clone());
        let handle = spawn_thread("heartbus-dns".to_owned(), move || shared.serve(&flag, patience))?;
        state.threads.push(LookupThread { handle, is_busy });
        Ok(())
    }

    fn serve(&self, is_busy: &AtomicBool, patience: Option<Duration>) {
        let mut state = self.lock();
        while !state.is_stopping {
            if let Some(name) = state.lookups.next(self.clock.now()) {
                if let Some(told) = state.told.get(&name) {
                    told.send_replace(LookupProgress::running());
                }
                is_busy.store(true, Ordering::Relaxed);
                state.busy += 1;
                drop(state);
                let found = catch_unwind(AssertUnwindSafe(|| (self.look_up)(&name)));
                state = self.lock();
                is_busy.store(false, Ordering::Relaxed);
                state.busy -= 1;
                let result = found.unwrap_or_else(|_| Err(io::Error::other("the look-up panicked"))).map_err(|error| error.to_string());
                let answer = state.lookups.finish(&name, result, self.clock.now());
                if let Some(told) = state.told.remove(&name) {
                    told.send_replace(LookupProgress::Done(answer));
                }
                continue;
            }
            let is_over;
            (state, is_over) = match patience {
                None => (self.work.wait(state).unwrap_or_else(PoisonError::into_inner), false),
                Some(time) => {
                    let (state, timeout) = self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
                    (state, timeout.timed_out())
                }
            };
            if is_over && !state.lookups.has_next() {
                state.threads.retain(|thread| thread.handle.thread().id() != std::thread::current().id());
                return;
            }
        }
    }
}

impl LookupProgress {
    fn running() -> Self {
        Self::Running { since: Instant::now() }
    }
}

impl Attempt<'_> {
    /// Waits for this; says since when the look-up runs, and what it came to.
    async fn until(&mut self, is_so: impl Fn(&LookupProgress) -> bool) -> io::Result<(Option<Instant>, Option<LookupResult>)> {
        let gone = || io::Error::other(STOPPED);
        let progress = self.progress.as_mut().ok_or_else(gone)?.wait_for(|progress| is_so(progress)).await.map_err(|_| gone())?;
        Ok(match &*progress {
            LookupProgress::Waiting => (None, None),
            LookupProgress::Running { since } => (Some(*since), None),
            LookupProgress::Done(answer) => (None, Some(answer.clone())),
        })
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        self.progress = None;
        if state.told.get(&self.name).is_some_and(|told| told.receiver_count() == 0) {
            state.told.remove(&self.name);
            state.lookups.give_up(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::runtime::{Builder, Runtime};

    const LONG: Duration = Duration::from_secs(60);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn address(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 0).into()
    }

    /// While it is closed, names that begin with "dead" have no answer. Opens when it is dropped.
    #[derive(Default)]
    struct Gate(Arc<(Mutex<bool>, Condvar)>);

    impl Gate {
        fn wait(&self) {
            let (is_open, opened) = &*self.0;
            drop(opened.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
        }
    }

    impl Drop for Gate {
        fn drop(&mut self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_all();
        }
    }

    /// With the number of look-ups.
    fn resolver() -> (Arc<Resolver>, Arc<AtomicUsize>, Gate) {
        let (gate, asked) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        // Not a second owner that opens it: the resolver lives as long as its threads.
        let (inside, counted) = (std::mem::ManuallyDrop::new(Gate(gate.0.clone())), asked.clone());
        let resolver = Resolver::with(Box::new(move |name| {
            counted.fetch_add(1, Ordering::Relaxed);
            if name.starts_with("dead") {
                inside.wait();
                return Err(io::Error::other("nobody answers"));
            }
            match name {
                "panic" => panic!("as a resolver should not"),
                "none" => Ok(Vec::new()),
                _ => Ok(vec![address(1), address(2)]),
            }
        }));
        (Arc::new(resolver.unwrap()), asked, gate)
    }

    #[test]
    fn many_who_want_one_name_share_one_look_up_and_its_answer_is_kept() {
        let (resolver, asked, _gate) = resolver();
        runtime().block_on(async {
            let wanted: Vec<_> = (0..1000).map(|_| resolver.clone()).collect();
            let tasks = wanted.into_iter().map(|resolver| tokio::spawn(async move { resolver.resolve("good", LONG).await }));
            for task in tasks.collect::<Vec<_>>() {
                assert_eq!(*task.await.unwrap().unwrap().0, [address(1), address(2)]);
            }
            resolver.resolve("good", LONG).await.unwrap();
        });
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        resolver.stop();
    }

    #[test]
    fn dead_names_hold_up_no_good_one_and_are_given_up_in_time() {
        let (resolver, _, gate) = resolver();
        runtime().block_on(async {
            let dead: Vec<_> = (0..MAX_RUNNING - 5)
                .map(|n| {
                    let resolver = resolver.clone();
                    tokio::spawn(async move { resolver.resolve(&format!("dead{n}"), Duration::from_millis(50)).await })
                })
                .collect();
            for task in dead {
                assert_eq!(task.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            // All of their look-ups run still.
            assert_eq!(resolver.resolve("good", LONG).await.unwrap().0.len(), 2);
        });
        assert!(resolver.shared.lock().threads.len() <= MAX_RUNNING);
        // Not even the end waits for them.
        resolver.stop();
        drop(gate);
    }

    #[test]
    fn time_in_which_others_have_their_turn_does_not_count() {
        let (resolver, _, gate) = resolver();
        runtime().block_on(async {
            let more_than_may_run: Vec<_> = (0..MAX_RUNNING)
                .map(|n| {
                    let resolver = resolver.clone();
                    tokio::spawn(async move { resolver.resolve(&format!("dead{n}"), LONG).await })
                })
                .collect();
            let patient = resolver.clone();
            let good = tokio::spawn(async move { patient.resolve("good", Duration::from_millis(200)).await });
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert!(!good.is_finished(), "its look-up has not begun");
            drop(gate);
            assert_eq!(good.await.unwrap().unwrap().0.len(), 2);
            for task in more_than_may_run {
                assert_eq!(task.await.unwrap().unwrap_err().to_string(), "nobody answers");
            }
        });
        resolver.stop();
    }

    #[test]
    fn what_is_not_found_is_an_error_and_so_is_a_resolver_that_panics() {
        let (resolver, _, _gate) = resolver();
        runtime().block_on(async {
            for (name, why) in [("none", "the name has no address"), ("panic", "the look-up panicked")] {
                let error = resolver.resolve(name, LONG).await.unwrap_err();
                assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::NotFound, why));
            }
            resolver.resolve("good", LONG).await.unwrap();
        });
        assert_eq!(resolver.shared.lock().threads.len(), THREADS, "all of them live");
        resolver.stop();
    }

    #[test]
    fn whoever_waits_when_the_look_ups_stop_is_told_and_nothing_is_left() {
        let (resolver, _, gate) = resolver();
        runtime().block_on(async {
            let waiting = resolver.clone();
            let task = tokio::spawn(async move { waiting.resolve("dead", LONG).await });
            while resolver.shared.lock().told.is_empty() {
                tokio::task::yield_now().await;
            }
            resolver.stop();
            assert_eq!(task.await.unwrap().unwrap_err().to_string(), STOPPED);
            assert_eq!(resolver.resolve("good", LONG).await.unwrap_err().to_string(), STOPPED);
        });
        assert!(resolver.shared.lock().threads.is_empty());
        drop(gate);
    }

    #[test]
    fn a_place_that_is_given_up_leaves_nothing_behind() {
        let (resolver, _, gate) = resolver();
        runtime().block_on(async {
            let first = resolver.resolve("dead", LONG);
            let second = resolver.resolve("dead", LONG);
            let gone = tokio::time::timeout(Duration::from_millis(20), async { tokio::join!(first, second) }).await;
            assert!(gone.is_err());
        });
        let state = resolver.shared.lock();
        assert!(state.told.is_empty() && state.lookups.waiting() == 0);
        drop(state);
        resolver.stop();
        drop(gate);
    }

    #[test]
    fn the_system_knows_this_machine() {
        let resolver = Resolver::start().unwrap();
        let (addresses, _) = runtime().block_on(resolver.resolve("localhost", LONG)).unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        let error = runtime().block_on(resolver.resolve("no.such.host.invalid", LONG)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // Nobody looks a name up that has a NUL in it.
        assert!(runtime().block_on(resolver.resolve("a\0b", LONG)).is_err());
        resolver.stop();
    }
}
