//! What must hold for any bytes that come in at Firetower's back side: answers are frames, the same ones however the bytes are cut; work and
//! memory are bounded by the bytes; and nothing is left when the connection is over. Shared by the fuzz target and by the test that replays
//! its corpus.

use crate::work::bounded_by;
use heartbus_core::event::{CloseReason, Event, Resume};
use heartbus_core::hub::link::{Command, CommandSink};
use heartbus_core::hub::memory::Part;
use heartbus_core::hub::thread_state::ThreadState;
use heartbus_core::hub::{Budget, EventMask, Host, Hub, Link, Next, Now, Session};
use heartbus_core::settings::ServerConfig;
use heartbus_core::wire::firetower::{FireFront, front};
use std::cell::RefCell;
use std::sync::Arc;

/// Two bytes are a topic and the comma behind it: an entry in the tables of the server and the thread, and an answer.
const MEMORY_EACH: u64 = 2048;
const TIME_EACH: u64 = 20_000;

const NOW: Now = Now { mono: 1_000_000, unix: 1_000_000 };

struct Nobody;

impl Host for Nobody {
    fn wants(&self, _kinds: EventMask) -> bool {
        false
    }

    fn push_data(&self, event: Event, _bytes: usize, _producer: Arc<dyn Resume>) -> Result<(), Event> {
        Err(event)
    }

    fn push_state(&self, _event: Event) {}

    fn is_crowded(&self, _producer: Option<Arc<dyn Resume>>) -> bool {
        false
    }
}

impl CommandSink for Nobody {
    fn post(&self, _command: Command) {}
}

/// A server and one of its threads, which outlive their connections.
struct Rig {
    hub: Hub,
    thread: ThreadState,
    connections: u64,
}

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new(Rig {
        hub: Hub::new(ServerConfig { max_frame_bytes: 4096, firetower_max_subscriptions: 100, ..ServerConfig::default() }, Arc::new(Nobody)),
        thread: ThreadState::new(0, Arc::default(), fastrand::Rng::with_seed(1), NOW),
        connections: 0,
    });
}

/// Panics if a property is violated.
pub(crate) fn check(input: &[u8]) {
    let whole = bounded_by("a gateway's session", MEMORY_EACH, TIME_EACH, || session(&[input]), |_| input.len() + 64);
    let mut rest = &whole.0[..];
    while !rest.is_empty() {
        let FireFront::Frame { frame, len } = front(rest, 1 << 20) else { panic!("no frame is answered: {rest:?}") };
        assert_eq!(frame.source, "system");
        rest = &rest[len..];
    }
    for cut in [1, input.len() / 3, input.len() / 2, input.len().saturating_sub(1)] {
        let (front, back) = input.split_at(cut.min(input.len()));
        assert_eq!(session(&[front, back]), whole, "cut at {cut}");
    }
}

/// What is answered to these reads of a connection, and why it ended, if it did.
fn session(reads: &[&[u8]]) -> (Vec<u8>, Option<CloseReason>) {
    RIG.with_borrow_mut(|Rig { hub, thread, connections }| {
        *connections += 1;
        thread.now = NOW;
        thread.budget = Budget::unlimited();
        let link = Arc::new(Link::new(*connections, ([127, 0, 0, 1], 1).into(), 0, Arc::new(Nobody)));
        let mut session = Session::open_gateway(link, &mut thread.context(hub));
        let (mut kept, mut ended) = (Vec::new(), None);
        for read in reads {
            if ended.is_some() {
                break;
            }
            kept.extend_from_slice(read);
            loop {
                // A turn as short as may be, and as many as it takes.
                thread.budget = Budget::long();
                let (consumed, next) = session.receive(&mut thread.context(hub), &kept);
                assert!(consumed <= kept.len());
                kept.drain(..consumed);
                match next {
                    Next::Again | Next::Later => {}
                    Next::Continue => break,
                    Next::Close(reason) => {
                        ended = Some(reason);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let answers = thread.replies.bytes().to_vec();
        thread.replies.clear();
        thread.budget = Budget::unlimited();
        assert_eq!(session.close(&mut thread.context(hub), CloseReason::PeerClosed), Next::Continue);
        drop(session);
        assert!(thread.seldom.members.is_empty() && thread.wheel.is_empty());
        assert_eq!((hub.topics().subscription_count(), hub.topics().topic_count()), (0, 0));
        assert_eq!((hub.memory().of(Part::Input), hub.memory().of(Part::Topics)), (0, 0));
        (answers, ended)
    })
}
