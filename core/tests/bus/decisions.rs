//! What the host decides before it happens, where its callbacks run in workers: who is asked, and how the answer comes back.

use crate::house::*;
use crate::support::deadline;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Asked, Event, EventMask, Question};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::service::{DecisionRecord, Request};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which of the workers is asked next, what, and whether somebody may have been asked before; in which batch.
fn asked(workers: &mut [Worker]) -> (usize, Arc<Question>, bool, u64) {
    let deadline = deadline();
    loop {
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            while let Some(delivered) = worker.queue.pop_front() {
                if let Event::Question { question, .. } = delivered.told.event {
                    return (index, question, delivered.told.redelivered, delivered.batch);
                }
            }
        }
        assert!(Instant::now() < deadline, "nobody was asked");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn node_of(question: &Question) -> &str {
    match &question.asked {
        Asked::Registration { node_id, .. } => node_id,
        other => panic!("{other:?}"),
    }
}

/// A worker that has said which events it wants.
fn worker(house: &House, mask: EventMask) -> Worker {
    let before = house.engine.stats().dispatch.workers;
    let mut worker = house.attach();
    worker.attachment.ready(mask).unwrap();
    house.until("the worker to join", |stats| stats.dispatch.workers == before + 1);
    worker
}

fn deciding() -> House {
    House::with_limits(DispatchLimits::default(), EventMask::AUTHENTICATE)
}

#[test]
fn one_worker_is_asked_and_its_answer_comes_back_over_any_connection() {
    let house = deciding();
    let mut workers = [worker(&house, EventMask::AUTHENTICATE), worker(&house, EventMask::AUTHENTICATE)];
    let mut bus = house.bus();
    for number in 0..20 {
        let mut peer = house.connect();
        peer.send(6, 0, &format!(r#"{{"node_id":"n{number}","metadata":{{"a":1}}}}"#));
        let (index, question, redelivered, batch) = asked(&mut workers);
        assert_eq!((node_of(&question), redelivered), (&*format!("n{number}"), false));
        let other = &mut workers[1 - index];
        assert_eq!(other.attachment.drain(&mut other.queue, 64).unwrap(), 0, "the other one is not");
        let decision = if number % 2 == 0 { DecisionRecord::AllowWithMetadata(r#"{"b":2}"#) } else { DecisionRecord::Refuse };
        bus.ask(&Request::Decide { question: question.number, decision: decision.clone() }).unwrap();
        assert_eq!(peer.frame().frame_type, if number % 2 == 0 { 6 } else { 8 });
        workers[index].attachment.acknowledge(batch).unwrap();
        let again = bus.ask(&Request::Decide { question: question.number, decision });
        assert_eq!(again.unwrap_err().kind, ErrorKind::NotFound);
        let node = house.engine.node(&format!("n{number}"));
        assert_eq!(node.map(|node| node.metadata().to_string()), (number % 2 == 0).then(|| r#"{"a":1,"b":2}"#.into()));
    }
    assert_eq!(house.engine.stats().counts.decisions_ignored, 20);
}

#[test]
fn what_a_worker_had_not_acknowledged_when_it_died_is_asked_of_another() {
    let house = deciding();
    let mut workers = vec![worker(&house, EventMask::AUTHENTICATE), worker(&house, EventMask::AUTHENTICATE)];
    let mut peer = house.connect();
    peer.send(6, 0, r#"{"node_id":"n"}"#);
    let (index, first, ..) = asked(&mut workers);
    drop(workers.remove(index));
    let (_, second, redelivered, _) = asked(&mut workers);
    assert_eq!((&first, redelivered), (&second, true));
    house.bus().ask(&Request::Decide { question: second.number, decision: DecisionRecord::Allow }).unwrap();
    assert_eq!(peer.frame().frame_type, 6);
}

#[test]
fn a_question_waits_for_the_first_worker() {
    let house = deciding();
    let mut peer = house.connect();
    peer.send(6, 0, r#"{"node_id":"n"}"#);
    house.until("the question to wait", |stats| stats.dispatch.queued_events == 1);
    let (_, question, ..) = asked(&mut [worker(&house, EventMask::AUTHENTICATE)]);
    house.bus().ask(&Request::Decide { question: question.number, decision: DecisionRecord::Allow }).unwrap();
    assert_eq!(peer.frame().frame_type, 6);
}

#[test]
fn those_are_asked_who_want_to_be() {
    let house = deciding();
    let mut workers = [worker(&house, EventMask::NONE), worker(&house, EventMask::AUTHENTICATE), worker(&house, EventMask::REGISTER)];
    let mut bus = house.bus();
    for number in 0..30 {
        let mut peer = house.connect();
        peer.send(6, 0, &format!(r#"{{"node_id":"n{number}"}}"#));
        let (index, question, _, batch) = asked(&mut workers);
        assert_eq!(index, 1);
        bus.ask(&Request::Decide { question: question.number, decision: DecisionRecord::Allow }).unwrap();
        assert_eq!(peer.frame().frame_type, 6);
        workers[1].attachment.acknowledge(batch).unwrap();
    }
}
