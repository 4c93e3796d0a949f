//! What a client of PHP's has subscribed to, with the callback of each: before there is an engine's client, and for the next one.
//!
//! Owns whom a message is for. Where a topic goes on is the engine's business, as long as there is one.

use crate::php::Callable;
use ext_php_rs::types::Zval;
use heartbus_core::event::Position;
use heartbus_core::wire::topic::{Filter, matches};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

#[derive(Default)]
pub(super) struct Subscriptions {
    topics: BTreeMap<String, Subscription>,
    filters: BTreeMap<String, Subscription>,
}

pub(super) struct Subscription {
    callback: Rc<Callable>,
    /// Where the script wants it to begin.
    since: Option<Position>,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.topics.len() + self.filters.len()
    }

    pub(super) fn contains(&self, filter: &str) -> bool {
        self.topics.contains_key(filter) || self.filters.contains_key(filter)
    }

    /// What it replaces is to be dropped where no borrow is held.
    pub(super) fn insert(&mut self, filter: Filter<'_>, callback: Rc<Callable>, since: Option<Position>) -> Option<Subscription> {
        let list = self.list(filter.text());
        let since = since.or_else(|| list.get(filter.text())?.since);
        list.insert(filter.text().to_owned(), Subscription { callback, since })
    }

    /// As [`Subscriptions::insert`].
    pub(super) fn remove(&mut self, filter: &str) -> Option<Subscription> {
        self.list(filter).remove(filter)
    }

    fn list(&mut self, filter: &str) -> &mut BTreeMap<String, Subscription> {
        match Filter::known(filter) {
            Filter::Exact(_) => &mut self.topics,
            Filter::Wild(_) => &mut self.filters,
        }
    }

    pub(super) fn all(&self) -> Vec<(String, Option<Position>)> {
        self.topics.iter().chain(&self.filters).map(|(filter, subscription)| (filter.clone(), subscription.since)).collect()
    }

    pub(super) fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        self.topics.values().chain(self.filters.values()).for_each(|subscription| visit(subscription.callback.zval()));
    }

    /// The next subscription that matches a topic, behind another one: its name, and its callback.
    pub(super) fn next(&self, topic: &str, behind: Option<&str>) -> Option<(String, Rc<Callable>)> {
        let found = |(filter, subscription): (&String, &Subscription)| (filter.clone(), subscription.callback.clone());
        if behind.is_none()
            && let Some(exact) = self.topics.get_key_value(topic)
        {
            return Some(found(exact));
        }
        let from = behind.filter(|behind| matches!(Filter::known(behind), Filter::Wild(_))).map_or(Bound::Unbounded, Bound::Excluded);
        self.filters.range::<str, _>((from, Bound::Unbounded)).find(|(filter, _)| matches(filter, topic)).map(found)
    }
}
