//! Who publishes to `$nodes` which nodes come and go, and below `$presence` which of them subscribe to a topic and no longer: a task on the
//! engine's runtime, which runs while somebody wants to hear either.
//!
//! Owns when it begins and ends. It observes as any observer does, so it holds up nobody. What is told, and when, is decided in
//! [`crate::hub::presence`]; who gets it in the topics.

use super::runtime::{Runtime, RuntimeTask};
use super::shared::ServerShared;
use super::survive;
use crate::error::{Error, ErrorKind};
use crate::hub::attendance::{Attended, TopicMember};
use crate::hub::presence::{MAX_PENDING, Presence, WhatChanged, gap_to_json};
use crate::hub::topics::InterestWatcher;
use crate::hub::{Observed, Observer, ObserverLimits};
use crate::model::{Departure, EventMask, ServerEvent};
use crate::settings::micros;
use crate::wire::topic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

/// What may wait for it: a gateway's nodes that leave all at once are no gap.
const LIMITS: ObserverLimits = ObserverLimits { events: 65_536, bytes: 16 << 20 };

/// Changes that are looked at, or published, before others on the thread have their turn.
const TOGETHER: usize = 256;

/// While nothing is pending.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// How long nothing is published where there was no room for it.
const PAUSE: Duration = Duration::from_millis(100);

/// How far it came with what there is to tell.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    All,
    NotYet,
    Refused,
}

pub(crate) struct PresenceTask {
    me: Weak<Self>,
    /// Its topics have this one.
    shared: Weak<ServerShared>,
    /// Its numbers go on where nobody listened for a while.
    presence: Mutex<Presence>,
    members: Mutex<Presence<TopicMember>>,
    state: Mutex<TaskState>,
    /// Perhaps nobody wants to hear it any more.
    woken: Notify,
}

#[derive(Default)]
struct TaskState {
    is_running: bool,
    is_over: bool,
    /// What ran last.
    task: Option<RuntimeTask>,
    runtime: Option<Runtime>,
}

impl PresenceTask {
    pub(crate) fn new(shared: &Arc<ServerShared>) -> Arc<Self> {
        let window = shared.hub.limits().presence_debounce.map_or(0, micros);
        let task = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            shared: Arc::downgrade(shared),
            presence: Mutex::new(Presence::new(window, MAX_PENDING)),
            members: Mutex::new(Presence::new(window, MAX_PENDING)),
            state: Mutex::default(),
            woken: Notify::new(),
        });
        shared.hub.topics().set_publisher(task.clone());
        // A rule may keep what is published there, whoever listens.
        task.changed(topic::NODES);
        task
    }

    /// Nothing is told any more.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.is_over = true;
        let (task, runtime) = (state.task.take(), state.runtime.take());
        drop(state);
        self.woken.notify_one();
        if let Some(task) = task {
            task.wait();
        }
        drop(runtime);
    }

    /// Observes before it returns: who has subscribed, and looks at the nodes then, misses nothing.
    fn begin(&self, state: &mut TaskState, shared: Arc<ServerShared>) -> Result<(), Error> {
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        let observed = shared.hub.observe(EventMask::REGISTER | EventMask::LEFT, LIMITS);
        let mut observer = observed.map_err(|refusal| Error::new(ErrorKind::Limit, format!("It cannot observe: {refusal:?}")))?;
        let runtime = match state.runtime.take() {
            Some(runtime) => runtime,
            None => Runtime::share()?,
        };
        let task = runtime.run("presence", move || async move {
            while let Err(why) = survive(me.clone().tell(shared.clone(), &mut observer)).await {
                tracing::error!("Telling who comes and goes failed in something: {why}");
                // Nobody knows what it was about: who listens is told that something is missing.
                me.presence().miss(1);
                me.members().miss(1);
                sleep(PAUSE).await;
            }
        });
        state.runtime = Some(runtime);
        state.task = Some(task?);
        state.is_running = true;
        Ok(())
    }

    async fn tell(self: Arc<Self>, shared: Arc<ServerShared>, observer: &mut Observer) {
        let (mut observed, mut attended, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let wait = match self.publish(&shared).max(self.publish_members(&shared, &mut gaps)) {
                Told::NotYet => {
                    yield_now().await;
                    continue;
                }
                Told::Refused => PAUSE,
                Told::All => {
                    let wakes_at = [self.presence().wakes_at(), self.members().wakes_at()].into_iter().flatten().min();
                    wakes_at.map_or(FOREVER, |at| Duration::from_micros(at.saturating_sub(shared.clock.mono())))
                }
            };
            tokio::select! {
                goes_on = observer.next(&mut observed, TOGETHER) => {
                    if !goes_on {
                        break;
                    }
                    self.note(&mut observed, &shared);
                }
                () = shared.hub.attendance().ready() => {
                    shared.hub.attendance().take(&mut attended, TOGETHER);
                    self.note_members(&mut attended, &shared);
                }
                () = sleep(wait) => {}
                () = self.woken.notified() => if self.rests(&shared) {
                    return;
                }
            }
        }
        self.state().is_running = false;
    }

    fn note_members(&self, attended: &mut Vec<Attended>, shared: &ServerShared) {
        let (mut members, now) = (self.members(), shared.clock.now());
        for attended in attended.drain(..) {
            match attended {
                Attended::Changed { member, has_joined } => {
                    members.note(&member, (!has_joined).then_some(Departure::Unregistered), now);
                }
                Attended::Gap { dropped } => members.miss(dropped),
            }
        }
    }

    fn note(&self, observed: &mut Vec<Observed>, shared: &ServerShared) {
        let (mut presence, now) = (self.presence(), shared.clock.now());
        for observed in observed.drain(..) {
            match observed {
                Observed::Event(ServerEvent::Register { node, .. }) => presence.note(node.id(), None, now),
                Observed::Event(ServerEvent::Left { node, how, .. }) => presence.note(node.id(), Some(how), now),
                Observed::Event(_) => {}
                Observed::Gap { dropped } => presence.miss(dropped),
            }
        }
    }

    fn publish(&self, shared: &ServerShared) -> Told {
        if !shared.hub.topics().is_wanted(topic::NODES) {
            self.presence().rest();
            return Told::All;
        }
        for _ in 0..TOGETHER {
            let (mut presence, now) = (self.presence(), shared.clock.now());
            let Some(change) = presence.next(now) else { return Told::All };
            let is_refused = shared.hub.publish_of_server(topic::NODES, change.to_json().into(), now).is_err();
            let counters = shared.host_counters();
            match change.what {
                // Told later, with what is missed until then.
                WhatChanged::Missed { count } if is_refused => {
                    presence.miss(count);
                    return Told::Refused;
                }
                _ if is_refused => presence.miss(1),
                WhatChanged::Missed { count } => counters.node_changes_dropped.add(count),
                _ => counters.node_changes.up(),
            }
        }
        Told::NotYet
    }

    /// `gaps`: the topics that are to be told that something is missing.
    fn publish_members(&self, shared: &ServerShared, gaps: &mut Vec<String>) -> Told {
        let topics = shared.hub.topics();
        for _ in 0..TOGETHER {
            let now = shared.clock.now();
            if let Some(name) = gaps.last() {
                let topic = name.strip_prefix(topic::MEMBERS).map_or("", |topic| topic.trim_start_matches('/'));
                if shared.hub.publish_of_server(name, gap_to_json(topic, now.unix).into(), now).is_err() {
                    return Told::Refused;
                }
                gaps.pop();
                continue;
            }
            let Some(change) = self.members().next(now) else { return Told::All };
            let Some((topic, json)) = change.to_json(|topic| topics.subscribers(topic)) else {
                // Nobody knows which topics it is about: each that is heard is told.
                *gaps = topics.members_topics();
                continue;
            };
            let Some(name) = topic::of_members(topic) else { continue };
            if shared.hub.publish_of_server(&name, json.into(), now).is_err() {
                self.members().miss(1);
                return Told::Refused;
            }
        }
        Told::NotYet
    }

    /// True when nobody wants to hear it any more: then it begins anew with whoever does.
    fn rests(&self, shared: &ServerShared) -> bool {
        let mut state = self.state();
        let rests = state.is_over || !is_wanted(shared);
        if rests {
            state.is_running = false;
            self.presence().rest();
            self.members().rest();
            let mut forgotten = Vec::new();
            while shared.hub.attendance().take(&mut forgotten, TOGETHER) > 0 {
                forgotten.clear();
            }
        }
        rests
    }

    fn state(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, Presence<TopicMember>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_wanted(shared: &ServerShared) -> bool {
    shared.hub.topics().is_wanted(topic::NODES) || shared.hub.topics().are_members_wanted()
}

impl InterestWatcher for PresenceTask {
    fn changed(&self, _filter: &str) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = self.state();
        if state.is_running {
            return self.woken.notify_one();
        }
        if state.is_over || !is_wanted(&shared) {
            return;
        }
        if let Err(error) = self.begin(&mut state, shared) {
            tracing::error!(%error, "Nobody is told in $nodes who comes and goes");
        }
    }
}
