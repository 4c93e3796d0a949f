//! Whose name is looked up next, at times that the test chooses.

use heartbus_core::hub::Now;
use heartbus_core::hub::lookups::{LookupResult, Lookups, MAX_RUNNING};
use std::net::SocketAddr;
use std::sync::Arc;

const SECOND: u64 = 1_000_000;

fn at(mono: u64) -> Now {
    Now { mono, unix: 0 }
}

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 0).into()
}

fn found() -> Result<Vec<SocketAddr>, String> {
    Ok(vec![address(1)])
}

fn not_found() -> Result<Vec<SocketAddr>, String> {
    Err("no such host".into())
}

/// Looks a name up from the first to the last.
fn look_up(lookups: &mut Lookups, name: &str, result: Result<Vec<SocketAddr>, String>, now: u64) {
    assert_eq!(lookups.ask(name, at(now)), None);
    let next = lookups.next(at(now)).unwrap();
    assert_eq!(&*next, name);
    let _ = lookups.finish(&next, result, at(now));
}

/// Begins as many look-ups as may be and returns their names.
fn begin_all(lookups: &mut Lookups, now: u64) -> Vec<Arc<str>> {
    std::iter::from_fn(|| lookups.next(at(now))).collect()
}

#[test]
fn a_name_is_looked_up_once_at_a_time_and_its_addresses_are_known_for_five_seconds() {
    let mut lookups = Lookups::default();
    for _ in 0..3 {
        assert_eq!(lookups.ask("a", at(1)), None);
    }
    let name = lookups.next(at(1)).unwrap();
    assert!(lookups.is_running("a"));
    assert_eq!((lookups.ask("a", at(2)), lookups.next(at(2))), (None, None), "it runs already");
    let answer: LookupResult = Ok([address(1)].into());
    assert_eq!(lookups.finish(&name, found(), at(10)), answer);
    assert_eq!(lookups.ask("a", at(10 + 5 * SECOND - 1)), Some(answer));
    assert_eq!(lookups.ask("a", at(10 + 5 * SECOND)), None);
    assert_eq!(lookups.next(at(10 + 5 * SECOND)).as_deref(), Some("a"));
}

#[test]
fn that_there_is_no_such_name_is_known_for_one_second() {
    let mut lookups = Lookups::default();
    look_up(&mut lookups, "a", not_found(), 1);
    assert_eq!(lookups.ask("a", at(SECOND)), Some(Err("no such host".into())));
    assert_eq!(lookups.ask("a", at(1 + SECOND)), None);
}

#[test]
fn names_have_their_turns_in_the_order_of_asking_and_known_ones_before_new_ones() {
    let mut lookups = Lookups::default();
    look_up(&mut lookups, "missed", not_found(), 1);
    look_up(&mut lookups, "found", found(), 1);
    let now = 100 * SECOND;
    for name in ["missed", "new 1", "new 2", "found"] {
        assert_eq!(lookups.ask(name, at(now)), None);
    }
    assert_eq!(lookups.waiting(), 4);
    assert_eq!(begin_all(&mut lookups, now), ["found", "new 1", "new 2", "missed"].map(Arc::from));
    assert_eq!((lookups.waiting(), lookups.has_next()), (0, false));
}

#[test]
fn names_that_nobody_answers_for_leave_places_to_new_ones_and_these_to_known_ones() {
    let mut lookups = Lookups::default();
    look_up(&mut lookups, "known", found(), 1);
    for n in 0..100 {
        look_up(&mut lookups, &format!("dead {n}"), not_found(), 1);
    }
    let now = 100 * SECOND;
    for n in 0..100 {
        lookups.ask(&format!("dead {n}"), at(now));
    }
    let dead = begin_all(&mut lookups, now);
    assert_eq!((dead.len(), lookups.has_next(), lookups.waiting()), (MAX_RUNNING / 2, false, 100 - MAX_RUNNING / 2));
    for n in 0..100 {
        lookups.ask(&format!("new {n}"), at(now));
    }
    let new = begin_all(&mut lookups, now);
    assert_eq!((dead.len() + new.len(), lookups.has_next()), (MAX_RUNNING - 4, false));
    lookups.ask("known", at(now));
    assert_eq!(begin_all(&mut lookups, now), ["known".into()]);
    // One that ends makes room for the next of its kind.
    let _ = lookups.finish(&dead[0], not_found(), at(now));
    assert_eq!(&*lookups.next(at(now)).unwrap(), "new 12");
    let _ = lookups.finish(&dead[1], found(), at(now));
    assert_eq!(&*lookups.next(at(now)).unwrap(), "new 13");
    for name in new {
        let _ = lookups.finish(&name, found(), at(now));
    }
    assert_eq!(begin_all(&mut lookups, now).len(), MAX_RUNNING - 4 - MAX_RUNNING / 2);
}

#[test]
fn an_answer_that_took_long_earns_less_trust() {
    let mut lookups = Lookups::default();
    lookups.ask("slow", at(1));
    let name = lookups.next(at(1)).unwrap();
    let _ = lookups.finish(&name, found(), at(2 + SECOND));
    let now = 100 * SECOND;
    for name in ["new", "slow"] {
        lookups.ask(name, at(now));
    }
    assert_eq!(begin_all(&mut lookups, now), ["new", "slow"].map(Arc::from));
}

#[test]
fn a_name_that_nobody_waits_for_any_more_loses_its_turn_unless_it_runs() {
    let mut lookups = Lookups::default();
    lookups.ask("a", at(1));
    lookups.ask("b", at(1));
    lookups.give_up("a");
    lookups.give_up("a");
    lookups.give_up("nobody");
    assert_eq!(begin_all(&mut lookups, 1), ["b".into()]);
    lookups.give_up("b");
    assert!(lookups.is_running("b"));
    assert!(lookups.finish(&"b".into(), found(), at(2)).is_ok());
    assert!(lookups.ask("b", at(3)).is_some_and(|answer| answer.is_ok()), "whoever comes next has the answer");
    assert_eq!(lookups.ask("a", at(3)), None);
    assert_eq!(lookups.next(at(3)).as_deref(), Some("a"));
}

#[test]
fn names_without_end_are_forgotten_and_those_that_are_waited_for_are_not() {
    let mut lookups = Lookups::default();
    lookups.ask("waits", at(1));
    let name = lookups.next(at(1)).unwrap();
    for n in 0..10_000u64 {
        look_up(&mut lookups, &format!("host {n}"), found(), 2 + n);
        assert!(lookups.len() <= 1026);
    }
    look_up(&mut lookups, "last", found(), 20_000);
    assert!(lookups.ask("last", at(20_001)).is_some());
    assert!(lookups.is_running("waits"));
    assert!(lookups.finish(&name, found(), at(30_000)).is_ok());
}

#[test]
fn of_an_endless_list_of_addresses_some_are_kept() {
    let mut lookups = Lookups::default();
    lookups.ask("a", at(1));
    let name = lookups.next(at(1)).unwrap();
    let many = (0..10_000).map(|n| address((n % 256) as u8)).collect();
    assert_eq!(lookups.finish(&name, Ok(many), at(1)).unwrap().len(), 64);
}
