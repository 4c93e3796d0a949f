//! What the program has attached to the nodes of a server.
//!
//! A pointer belongs to one registration of a node, and is given back once: with the event that tells its departure. They are kept
//! here, beside the engine, so that a node without one costs nothing.

use heartbus_core::engine::Node;
use heartbus_core::event::Event;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pointer of the program's.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserData(pub(crate) *mut c_void);

// SAFETY: to the library it is a number: it is stored and given back, and never followed.
unsafe impl Send for UserData {}

impl UserData {
    pub(crate) const NONE: Self = Self(ptr::null_mut());

    pub(crate) fn is_none(self) -> bool {
        self.0.is_null()
    }
}

/// What is attached to the nodes of a server.
#[derive(Default)]
pub(crate) struct OfNodes(Mutex<Attached>);

/// By id; registrations of one id follow one another, so there is rarely more than one of them.
#[derive(Default)]
pub(crate) struct Attached(HashMap<Arc<str>, Vec<(Arc<Node>, UserData)>>);

impl OfNodes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Attached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attached {
    /// False when the node has left: nobody would ever get the pointer back.
    pub(crate) fn set(&mut self, node: &Arc<Node>, user_data: UserData) -> bool {
        // Asked under the lock: its leaving is told by a poll, which then finds what is attached here.
        if !node.is_online() {
            return false;
        }
        self.take(node);
        if !user_data.is_none() {
            self.0.entry(node.id().clone()).or_default().push((node.clone(), user_data));
        }
        true
    }

    pub(crate) fn get(&self, node: &Arc<Node>) -> UserData {
        let attached = self.0.get(node.id()).and_then(|list| list.iter().find(|(to, _)| Arc::ptr_eq(to, node)));
        attached.map_or(UserData::NONE, |(_, user_data)| *user_data)
    }

    fn take(&mut self, node: &Arc<Node>) -> UserData {
        let Some(list) = self.0.get_mut(node.id()) else { return UserData::NONE };
        let place = list.iter().position(|(to, _)| Arc::ptr_eq(to, node));
        let user_data = place.map_or(UserData::NONE, |place| list.swap_remove(place).1);
        if list.is_empty() {
            self.0.remove(node.id());
        }
        user_data
    }

    /// What the event of a poll carries.
    pub(crate) fn of(&mut self, event: &Event) -> UserData {
        if self.0.is_empty() {
            return UserData::NONE;
        }
        match event {
            Event::Register { node, .. } => {
                self.inherit(node);
                self.get(node)
            }
            Event::Left { node, .. } => {
                self.inherit(node);
                self.take(node)
            }
            other => other.node().map_or(UserData::NONE, |node| self.get(node)),
        }
    }

    /// An older registration of the id that left has told so by now, unless its leaving was merged with the event of this one,
    /// which then gives back what it had.
    fn inherit(&mut self, node: &Arc<Node>) {
        let Some(list) = self.0.get_mut(node.id()) else { return };
        let is_older = |other: &Arc<Node>| !other.is_online() && other.registered_at() < node.registered_at();
        let Some(place) = list.iter().rposition(|(to, _)| is_older(to)) else { return };
        let (_, user_data) = list.remove(place);
        list.retain(|(to, _)| !is_older(to));
        if !list.iter().any(|(to, _)| Arc::ptr_eq(to, node)) {
            list.push((node.clone(), user_data));
        }
    }

    /// Departures were not told for a while: nobody knows whose will be.
    pub(crate) fn forget_departed(&mut self) {
        self.0.retain(|_, list| {
            list.retain(|(node, _)| node.is_online());
            !list.is_empty()
        });
    }
}
