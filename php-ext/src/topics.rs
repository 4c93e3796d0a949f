//! Topics, as `HeartbeatServer` and `Heartbus\Bus` have them: publications, who gets them, and nodes that are put into topics.
//!
//! Owns how PHP's arguments become requests and replies PHP's values. Both classes say the same: what cannot be done is thrown, but
//! that a node which is not online is `false`, or has nothing.

use crate::arguments;
use crate::asking::Asking;
use crate::classes::position;
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Outcome, bytes, list, map, text, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::Zval;
use heartbus_core::service::{Reply, Request, TopicRecord};
use std::ptr;

/// Entries of a page, unless the caller says otherwise.
const PAGE: i64 = 100;

pub(crate) const MAX_PAGE: i64 = 1000;

/// What comes as a page.
struct Paged {
    after: Option<u64>,
    limit: u32,
}

pub(crate) trait DeclareTopics: Sized {
    fn declare_topics<A: Asking>(self) -> Self;
}

impl DeclareTopics for ClassBuilder {
    fn declare_topics<A: Asking>(self) -> Self {
        self.declare(r"publish(string $topic, string $data, array $except = []): Heartbus\Publication", publish::<A>)
            .declare("subscribers(string $topic): int", subscribers::<A>)
            .declare("topics(?int $page = null, int $limit = 100): array", topics::<A>)
            .declare("join(string $nodeId, string $topic): bool", join::<A>)
            .declare("leave(string $nodeId, string $topic): bool", leave::<A>)
            .declare("unsubscribeNode(string $nodeId, string $filter): bool", leave::<A>)
            .declare("members(string $topic, ?int $page = null, int $limit = 100): array", members::<A>)
            .declare("topicsOf(string $nodeId): array", topics_of::<A>)
    }
}

fn publish<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let (mut topic, mut data, mut except) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"SS|a", topic, data, except)?;
    let asked = call.held::<A>()?;
    let except = node_ids(except, || format!("{}::publish(): Argument #3 ($except)", A::NAME))?;
    let request = Request::Publish { topic: topic_name(topic)?, data: bytes(data), except: texts(&except) };
    let published = asked.answer(&request)?.and_then(Reply::publication).map_err(|error| exception::raise(&error))?;
    *call.result = position::publication(published)?;
    Ok(())
}

fn subscribers<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let mut topic = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", topic)?;
    let count = call.held::<A>()?.look(&Request::Subscribers { topic: topic_name(topic)? }, Reply::count)?;
    call.result.set_long(count.unwrap_or_default() as i64);
    Ok(())
}

fn topics<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let (mut page, mut is_first, mut limit) = (0i64, true, PAGE);
    arguments!(call, c"|l!l", page, is_first, limit)?;
    let asked = call.held::<A>()?;
    let Paged { after, limit } = paged(page, is_first, limit, "topics")?;
    let (topics, next) = asked.look(&Request::Topics { after, limit }, Reply::topics)?.unwrap_or_default();
    let topic = |topic: TopicRecord| map([("topic", text(topic.name)), ("subscribers", value(topic.subscribers as i64))]);
    *call.result = map([("topics", list(topics.into_iter().map(topic).collect())), ("next", next_page(next))]);
    Ok(())
}

fn join<A: Asking>(call: &mut Call<'_>) -> Outcome {
    with_node_and_topic::<A>(call, |node, topic| Request::Join { node, topic })
}

fn leave<A: Asking>(call: &mut Call<'_>) -> Outcome {
    with_node_and_topic::<A>(call, |node, filter| Request::Leave { node, filter })
}

fn members<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let (mut topic, mut page, mut is_first, mut limit) = (ptr::null_mut::<zend_string>(), 0i64, true, PAGE);
    arguments!(call, c"S|l!l", topic, page, is_first, limit)?;
    let asked = call.held::<A>()?;
    let Paged { after, limit } = paged(page, is_first, limit, "nodes")?;
    let (names, next) = asked.look(&Request::Members { topic: topic_name(topic)?, after, limit }, Reply::names)?.unwrap_or_default();
    *call.result = map([("nodes", list(names.iter().map(text).collect())), ("next", next_page(next))]);
    Ok(())
}

fn topics_of<A: Asking>(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let asked = call.held::<A>()?;
    let found = match std::str::from_utf8(bytes(node_id)) {
        Ok(node) => asked.look(&Request::TopicsOf { node }, Reply::names)?,
        Err(_) => None,
    };
    let (names, _) = found.unwrap_or_default();
    *call.result = list(names.iter().map(text).collect());
    Ok(())
}

fn with_node_and_topic<A: Asking>(call: &mut Call<'_>, request: impl for<'a> Fn(&'a str, &'a str) -> Request<'a>) -> Outcome {
    let (mut node_id, mut topic) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"SS", node_id, topic)?;
    let asked = call.held::<A>()?;
    let topic = topic_name(topic)?;
    let done = match std::str::from_utf8(bytes(node_id)) {
        Ok(node) => asked.look(&request(node, topic), Reply::done)?,
        // An id that is not UTF-8 is nobody's.
        Err(_) => None,
    };
    call.result.set_bool(done.is_some());
    Ok(())
}

pub(crate) fn topic_name<'a>(given: *const zend_string) -> Outcome<&'a str> {
    std::str::from_utf8(bytes(given)).map_err(|_| exception::invalid_argument("A topic is valid UTF-8"))
}

/// All 64 bits of a page are in use: PHP shows some of them as negative numbers.
fn paged(page: i64, is_first: bool, limit: i64, what: &str) -> Outcome<Paged> {
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(exception::invalid_argument(&format!("A page has 1 to {MAX_PAGE} {what}, not {limit}")));
    }
    Ok(Paged { after: (!is_first).then_some(page as u64), limit: limit as u32 })
}

fn next_page(next: Option<u64>) -> Zval {
    next.map_or_else(Zval::null, |next| value(next as i64))
}

/// Ids that an array holds, as strings. `what` is the argument in words.
pub(crate) fn node_ids(given: *const Zval, what: impl FnOnce() -> String) -> Outcome<Vec<Zval>> {
    let mut ids = Vec::new();
    // SAFETY: an argument of the running call, or null when it was left out.
    for id in unsafe { given.as_ref() }.and_then(Zval::array).into_iter().flat_map(php::values) {
        match php::weak_string(id)? {
            Some(id) => ids.push(id),
            None => {
                let kind = php::type_name(id.dereference(), false);
                return Err(exception::type_error(&format!("{} must hold strings only, {kind} given", what())));
            }
        }
    }
    Ok(ids)
}

/// An id that is not UTF-8 is nobody's.
pub(crate) fn texts(ids: &[Zval]) -> Vec<&str> {
    ids.iter().filter_map(|id| std::str::from_utf8(id.zend_str()?.as_bytes()).ok()).collect()
}
