//! Gateways in any order against a model that keeps a number for each topic: without sockets, and with their bytes cut anywhere.

use super::gateway::frame;
use crate::bus::Bus;
use heartbus_core::event::CloseReason;
use heartbus_core::hub::{Budget, Next, Session};
use heartbus_core::wire::firetower::{FireFront, front};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TOPICS: [&str; 4] = ["a", "b", "a/b", "*"];
const LIMIT: usize = 12;

#[derive(Clone, Debug)]
enum Step {
    Announce { gateway: usize, subscribes: bool, topics: Vec<usize>, cut: usize },
    Return { gateway: usize },
    Publish { gateway: usize, topic: usize, len: usize, cut: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (gateway, topic, cut) = (|| 0..3_usize, || 0..TOPICS.len(), || 0..80_usize);
    prop_oneof![
        5 => (gateway(), any::<bool>(), prop::collection::vec(topic(), 1..5), cut())
            .prop_map(|(gateway, subscribes, topics, cut)| Step::Announce { gateway, subscribes, topics, cut }),
        1 => gateway().prop_map(|gateway| Step::Return { gateway }),
        2 => (gateway(), topic(), 0..60_usize, cut()).prop_map(|(gateway, topic, len, cut)| Step::Publish { gateway, topic, len, cut }),
    ]
}

/// Feeds bytes in two pieces, in turns that are as short as may be; what is answered, as kind, topic and content.
fn say(bus: &mut Bus, slot: u32, bytes: &[u8], cut: usize) -> Vec<(String, String, String)> {
    let cut = cut.min(bytes.len());
    let mut kept = Vec::new();
    for piece in [&bytes[..cut], &bytes[cut..]] {
        kept.extend_from_slice(piece);
        loop {
            bus.thread.budget = Budget::of(1);
            let (consumed, next) = bus.with(slot, |session, cx| session.receive(cx, &kept)).unwrap();
            kept.drain(..consumed);
            match next {
                Next::Again => {}
                Next::Continue => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(kept.is_empty());
    let (mut answers, mut rest) = (Vec::new(), bus.thread.replies.bytes());
    while let FireFront::Frame { frame, len } = front(rest, u32::MAX) {
        let content = String::from_utf8(frame.content.to_vec()).unwrap();
        answers.push((frame.kind.to_owned(), frame.topic.to_owned(), content));
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    bus.thread.replies.clear();
    answers
}

proptest! {
    #[test]
    fn a_topic_has_as_many_subscribers_as_its_gateways_have_announced(steps in prop::collection::vec(step(), 1..60)) {
        let mut bus = Bus::with_limits(true, |limits| limits.firetower_max_subscriptions = LIMIT);
        let mut slots: Vec<u32> = (0..3).map(|_| bus.open_as(Session::open_gateway)).collect();
        let mut model: Vec<BTreeMap<&str, usize>> = vec![BTreeMap::new(); 3];
        let sum = |model: &[BTreeMap<&str, usize>], topic: &str| model.iter().filter_map(|own| own.get(topic)).sum::<usize>();
        for step in steps {
            match step {
                Step::Announce { gateway, subscribes, topics, cut } => {
                    let names: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic]).collect();
                    let kind = if subscribes { "subscribe" } else { "unSubscribe" };
                    let bytes = frame(kind, "1", &format!("gateway-{gateway}"), &names.join(","), b"");
                    let answers = say(&mut bus, slots[gateway], &bytes, cut);
                    let expected: Vec<_> = names.into_iter().map(|name| {
                        let own = &mut model[gateway];
                        let is_refused = subscribes && own.values().sum::<usize>() >= LIMIT;
                        if subscribes && !is_refused {
                            *own.entry(name).or_default() += 1;
                        } else if let Some(count) = own.get_mut(name).filter(|count| !subscribes && **count > 0) {
                            *count -= 1;
                        }
                        if is_refused {
                            ("error".to_owned(), name.to_owned(), "Too many subscriptions on this connection".to_owned())
                        } else {
                            let kind = if subscribes { "onSubscribe" } else { "onUnsubscribe" };
                            (kind.to_owned(), name.to_owned(), sum(&model, name).to_string())
                        }
                    }).collect();
                    prop_assert_eq!(answers, expected);
                }
                Step::Return { gateway } => {
                    bus.thread.budget = Budget::unlimited();
                    bus.close(slots[gateway], CloseReason::PeerClosed);
                    slots[gateway] = bus.open_as(Session::open_gateway);
                    model[gateway].clear();
                }
                Step::Publish { gateway, topic, len, cut } => {
                    let bytes = frame("publish", "1", "user", TOPICS[topic], &vec![b'x'; len]);
                    prop_assert!(say(&mut bus, slots[gateway], &bytes, cut).is_empty());
                }
            }
            for topic in TOPICS {
                prop_assert_eq!(bus.hub.topics().subscribers(topic), sum(&model, topic));
            }
            let names = model.iter().flat_map(|own| own.iter().filter(|(_, count)| **count > 0).map(|(name, _)| *name));
            prop_assert_eq!(bus.hub.topics().topic_count(), names.collect::<std::collections::BTreeSet<_>>().len());
        }
        for slot in slots {
            bus.thread.budget = Budget::unlimited();
            bus.close(slot, CloseReason::PeerClosed);
        }
        prop_assert!(bus.hub.topics().subscription_count() == 0 && bus.hub.memory().total() == 0 && bus.thread.wheel.is_empty());
    }
}
