//! The topics that a process of a server has subscribed to, and what is called for their messages.
//!
//! Owns the filters and their callbacks. Who gets which publication is the engine's business.

use crate::php::Callable;
use ext_php_rs::types::Zval;
use heartbus_core::wire::topic::{self, Filter};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Filters, and the callback of each that has one.
#[derive(Default)]
pub(super) struct Hearing {
    exact: HashMap<Box<str>, Option<Rc<Callable>>>,
    wild: BTreeMap<Box<str>, Option<Rc<Callable>>>,
}

impl Hearing {
    pub(super) fn insert(&mut self, filter: Filter<'_>, callback: Option<Rc<Callable>>) -> Option<Option<Rc<Callable>>> {
        match filter {
            Filter::Exact(name) => self.exact.insert(name.into(), callback),
            Filter::Wild(filter) => self.wild.insert(filter.into(), callback),
        }
    }

    pub(super) fn remove(&mut self, filter: &str) -> Option<Option<Rc<Callable>>> {
        self.exact.remove(filter).or_else(|| self.wild.remove(filter))
    }

    /// In the order of their filters, that of the topic's own name first.
    pub(super) fn callbacks(&self, name: &str) -> Vec<Rc<Callable>> {
        let wild = self.wild.iter().filter(|(filter, _)| topic::matches(filter, name)).map(|(_, callback)| callback);
        self.exact.get(name).into_iter().chain(wild).flatten().cloned().collect()
    }

    pub(super) fn filters(&self) -> Vec<Box<str>> {
        self.exact.keys().chain(self.wild.keys()).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty()
    }

    pub(super) fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        self.exact.values().chain(self.wild.values()).flatten().for_each(|callback| visit(callback.zval()));
    }
}
