//! Firetower's back side, as a server has it: which messages are its own, and which gateways are here.
//!
//! Owns the ids of messages, and the names of gateways. What a connection of theirs may say is its session's, how a frame reaches
//! subscribers is [`super::publishing`]'s.

use super::link::Link;
use crate::model::CloseReason;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

/// Digits of each part of an id: longer together than any of Firetower's own, which have 19.
const DIGITS: usize = 12;
const PART: u64 = 1_000_000_000_000;

/// The names of servers of this kind among gateways begin with this.
pub const SERVER_PREFIX: &str = "heartbus-";

/// Connections of users are found by topics of this kind, which nobody can subscribe to.
pub(super) const USER_PREFIX: &str = "$user/";

/// What a message is called among gateways: which server's it is, and its number there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MessageId {
    pub instance: u64,
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}{:012}", self.instance % PART, self.sequence % PART)
    }
}

impl MessageId {
    /// `None`: it is not one of a server's of this kind.
    pub fn parse(id: &str) -> Option<Self> {
        if id.len() != 2 * DIGITS || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self { instance: id[..DIGITS].parse().ok()?, sequence: id[DIGITS..].parse().ok()? })
    }
}

/// What a server knows of it.
pub struct FireBack {
    instance: u64,
    /// The connections of gateways that have said who they are.
    gateways: Mutex<HashMap<Arc<str>, Arc<Link>>>,
}

impl Default for FireBack {
    fn default() -> Self {
        // Drawn anew by each server, also by those of processes that have inherited one state of chance.
        let instance = RandomState::new().hash_one(std::process::id()) % PART;
        Self { instance, gateways: Mutex::default() }
    }
}

impl FireBack {
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Whether a message is one that this server has sent: it came around.
    pub fn is_own(&self, message_id: &str) -> bool {
        MessageId::parse(message_id).is_some_and(|id| id.instance == self.instance)
    }

    /// A gateway says who it is. An older connection of it from the same address is a thing of the past: it ends, with what it takes part in.
    /// False where that name is somebody's who is here from another address: whoever knows a name must not take it away.
    #[must_use]
    pub(super) fn enter(&self, name: &Arc<str>, link: &Arc<Link>) -> bool {
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        if gateways.get(name).is_some_and(|older| !older.is_ending() && older.peer().ip() != link.peer().ip()) {
            return false;
        }
        let older = gateways.insert(name.clone(), link.clone());
        drop(gateways);
        if let Some(older) = older.filter(|older| older.connection_id() != link.connection_id()) {
            older.end(CloseReason::Replaced);
        }
        true
    }

    /// A gateway's connection is over.
    pub(super) fn leave(&self, name: &Arc<str>, link: &Link) {
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(entry) = gateways.entry(name.clone())
            && entry.get().connection_id() == link.connection_id()
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::{Command, CommandKind, CommandSink};
    use super::*;

    #[test]
    fn an_id_is_known_by_its_server_and_none_of_firetowers_own_is_taken_for_one() {
        let (one, other) = (FireBack::default(), FireBack::default());
        let id = MessageId { instance: one.instance(), sequence: 7 };
        let text = id.to_string();
        assert_eq!((text.len(), MessageId::parse(&text)), (24, Some(id)));
        assert!(one.is_own(&text) && !other.is_own(&text));
        for foreign in ["", "0", "1234567890", "9223372036854775807", &text[1..], &format!("{text}0"), "00000000000x000000000001"] {
            assert!(MessageId::parse(foreign).is_none() && !one.is_own(foreign), "{foreign}");
        }
        let late = MessageId { instance: PART - 1, sequence: PART + 3 };
        assert_eq!(MessageId::parse(&late.to_string()), Some(MessageId { sequence: 3, ..late }));
    }

    #[derive(Default)]
    struct Ends(Mutex<Vec<u64>>);

    impl CommandSink for Ends {
        fn post(&self, command: Command) {
            assert_eq!(command.kind, CommandKind::End(CloseReason::Replaced));
            self.0.lock().unwrap().push(command.connection_id);
        }
    }

    #[test]
    fn a_gateway_that_comes_back_ends_its_older_connection_and_that_takes_nothing_away_from_it() {
        let (back, ends) = (FireBack::default(), Arc::new(Ends::default()));
        let link = |id| Arc::new(Link::new(id, ([127, 0, 0, 1], 1).into(), 0, ends.clone()));
        let (older, newer, other) = (link(1), link(2), link(3));
        let (name, other_name): (Arc<str>, Arc<str>) = ("gateway-1".into(), "gateway-2".into());
        assert!(back.enter(&name, &older) && back.enter(&name, &older) && back.enter(&other_name, &other));
        assert!(ends.0.lock().unwrap().is_empty(), "nobody is in the way of itself or of others");
        assert!(back.enter(&name, &newer));
        back.leave(&name, &older);
        assert!(back.enter(&name, &link(4)));
        assert_eq!(*ends.0.lock().unwrap(), [1, 2]);
        back.leave(&other_name, &other);
        assert_eq!(back.gateways.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_stranger_takes_no_name_away_from_a_gateway_that_is_here() {
        let (back, ends) = (FireBack::default(), Arc::new(Ends::default()));
        let link = |id, host| Arc::new(Link::new(id, ([127, 0, 0, host], 1).into(), 0, ends.clone()));
        let (here, stranger) = (link(1, 1), link(2, 2));
        let name: Arc<str> = "gateway-1".into();
        assert!(back.enter(&name, &here) && !back.enter(&name, &stranger));
        back.leave(&name, &stranger);
        assert!(!back.enter(&name, &stranger) && ends.0.lock().unwrap().is_empty(), "who was refused has nothing to leave");
        // One that is about to end is in nobody's way, and neither is one that has left.
        here.close();
        assert!(back.enter(&name, &stranger));
        back.leave(&name, &here);
        assert!(!back.enter(&name, &link(3, 3)));
        back.leave(&name, &stranger);
        assert!(back.enter(&name, &link(4, 4)));
    }
}
