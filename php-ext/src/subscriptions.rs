//! What a script has subscribed to, for a client or for its server, with the callback of each: before there is an engine, and for the next one.
//!
//! Owns whom a message is for. Who gets which publication, and where a topic goes on, is the engine's business, as long as there is one.

use crate::php::Callable;
use ext_php_rs::types::Zval;
use heartbus_core::event::Position;
use heartbus_core::wire::topic::{Filter, matches};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

#[derive(Default)]
pub(crate) struct Subscriptions {
    topics: BTreeMap<String, Subscription>,
    filters: BTreeMap<String, Subscription>,
}

pub(crate) struct Subscription {
    /// A server's may have none: then a message is for its event alone.
    callback: Option<Rc<Callable>>,
    /// Where the script wants it to begin.
    since: Option<Position>,
}

impl Subscriptions {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.topics.len() + self.filters.len()
    }

    pub(crate) fn contains(&self, filter: &str) -> bool {
        self.topics.contains_key(filter) || self.filters.contains_key(filter)
    }

    /// What it replaces is to be dropped where no borrow is held.
    pub(crate) fn insert(&mut self, filter: Filter<'_>, callback: Option<Rc<Callable>>, since: Option<Position>) -> Option<Subscription> {
        let list = self.list(filter.text());
        let since = since.or_else(|| list.get(filter.text())?.since);
        list.insert(filter.text().to_owned(), Subscription { callback, since })
    }

    /// As [`Subscriptions::insert`].
    pub(crate) fn remove(&mut self, filter: &str) -> Option<Subscription> {
        self.list(filter).remove(filter)
    }

    fn list(&mut self, filter: &str) -> &mut BTreeMap<String, Subscription> {
        match Filter::known(filter) {
            Filter::Exact(_) => &mut self.topics,
            Filter::Wild(_) => &mut self.filters,
        }
    }

    pub(crate) fn all(&self) -> Vec<(String, Option<Position>)> {
        self.topics.iter().chain(&self.filters).map(|(filter, subscription)| (filter.clone(), subscription.since)).collect()
    }

    pub(crate) fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        let callbacks = self.topics.values().chain(self.filters.values()).filter_map(|subscription| subscription.callback.as_ref());
        callbacks.for_each(|callback| visit(callback.zval()));
    }

    /// The next subscription that matches a topic and has a callback, behind another one, that of the topic's own name first: its name, and
    /// its callback.
    pub(crate) fn next(&self, topic: &str, behind: Option<&str>) -> Option<(String, Rc<Callable>)> {
        let found = |(filter, subscription): (&String, &Subscription)| Some((filter.clone(), subscription.callback.clone()?));
        if behind.is_none()
            && let Some(exact) = self.topics.get_key_value(topic).and_then(found)
        {
            return Some(exact);
        }
        let from = behind.filter(|behind| matches!(Filter::known(behind), Filter::Wild(_))).map_or(Bound::Unbounded, Bound::Excluded);
        self.filters.range::<str, _>((from, Bound::Unbounded)).filter(|(filter, _)| matches(filter, topic)).find_map(found)
    }
}
