//! Which PHP object stands for which registration of a node, or for its channel, and who keeps what it shows.
//!
//! The objects are ordinary ones of `Node` and `Channel`; PHP holds them, and here they are known only while they live. A clone is an
//! ordinary object that stands for nothing. Knows no class: whoever has an object asks here what is behind it.

use crate::backend::Registration;
use crate::exception;
use crate::moments;
use crate::php::{Outcome, Thrown};
use ext_php_rs::ffi::{std_object_handlers, zend_object, zend_object_handlers, zend_object_std_dtor};
use ext_php_rs::types::Zval;
use ext_php_rs::zend::run_handler;
use heartbus_core::error::{Error, ErrorKind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::AssertUnwindSafe;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};

/// Whose nodes objects show: a server.
pub(crate) trait Owner {
    /// Throws in a process that the owner does not belong to.
    fn check_process(&self) -> Outcome;

    /// PHP has freed an object.
    fn forget(&self, object: *mut zend_object, subject: &Subject);

    /// Sets members of the metadata of a node that the object shows.
    fn set_metadata(&self, object: *mut zend_object, node: &Registration, members: &str) -> Outcome<Result<(), Error>>;

    fn send(&self, node: &Registration, data: &[u8]) -> Outcome<Sent>;

    /// Holds a channel's object, for what comes when nobody else does.
    fn keep(&self, node: &Registration, channel: *mut zend_object) -> Outcome;

    fn let_go(&self, node: &Registration, channel: *mut zend_object);
}

/// Whose nodes are known by copies alone: what is looked up over a bus.
pub(crate) trait Directory {
    fn set_metadata(&self, node_id: &str, channel_id: u32, members: &str) -> Outcome<Result<(), Error>>;
}

/// What an object of an owner's stands for.
#[derive(Clone)]
pub(crate) enum Subject {
    Node(Registration),
    Channel(Registration),
}

enum Binding {
    Owned {
        owner: Weak<dyn Owner>,
        subject: Subject,
    },
    /// A node that was looked up: this registration of it.
    Found {
        directory: Rc<dyn Directory>,
        id: Arc<str>,
        channel_id: u32,
    },
}

/// Keys are addresses and numbers of ours: two look-ups for every event are noticed with the standard library's hasher,
/// which is made for keys that strangers choose.
pub(crate) type NumberMap<K, T> = HashMap<K, T, BuildHasherDefault<NumberHasher>>;

#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the rotation brings the good bits to where the table looks first.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

thread_local! {
    /// By the address of the object.
    static BINDINGS: RefCell<NumberMap<usize, Binding>> = RefCell::default();
}

/// An object's own, except that we hear of its end. They also tell such an object from an ordinary one. The first are those of
/// objects with moments.
fn handlers() -> &'static [zend_object_handlers; 2] {
    static HANDLERS: OnceLock<[zend_object_handlers; 2]> = OnceLock::new();
    // SAFETY: PHP's standard handlers are a constant.
    HANDLERS.get_or_init(|| {
        [*moments::handlers(), unsafe { std_object_handlers }].map(|own| zend_object_handlers { free_obj: Some(free), ..own })
    })
}

pub(crate) fn bind(object: &Zval, owner: &Weak<dyn Owner>, subject: Subject) -> Outcome<*mut zend_object> {
    insert(object, Binding::Owned { owner: owner.clone(), subject })
}

/// What is set of the node goes to the directory.
pub(crate) fn bind_found(object: &Zval, directory: Rc<dyn Directory>, id: Arc<str>, channel_id: u32) -> Outcome {
    insert(object, Binding::Found { directory, id, channel_id }).map(drop)
}

fn insert(object: &Zval, binding: Binding) -> Outcome<*mut zend_object> {
    let object = object.object().map(|object| ptr::from_ref(object).cast_mut()).ok_or(Thrown)?;
    let [aging, standard] = handlers();
    // SAFETY: a new object, with the handlers that its class gives it.
    unsafe { (*object).handlers = if ptr::eq((*object).handlers, moments::handlers()) { aging } else { standard } };
    BINDINGS.with_borrow_mut(|bindings| bindings.insert(object as usize, binding));
    Ok(object)
}

unsafe extern "C" fn free(object: *mut zend_object) {
    run_handler(AssertUnwindSafe(|| {
        let binding = BINDINGS.try_with(|bindings| bindings.borrow_mut().remove(&(object as usize))).ok().flatten();
        if let Some(Binding::Owned { owner, subject }) = binding
            && let Some(owner) = owner.upgrade()
        {
            owner.forget(object, &subject);
        }
    }));
    // SAFETY: PHP frees an object once.
    unsafe { zend_object_std_dtor(object) };
}

fn binding<T>(object: *mut zend_object, read: impl FnOnce(&Binding) -> Option<T>) -> Option<T> {
    // SAFETY: callers pass live objects.
    if !handlers().iter().any(|ours| ptr::eq(unsafe { (*object).handlers }, ours)) {
        return None;
    }
    BINDINGS.with_borrow(|bindings| bindings.get(&(object as usize)).and_then(read))
}

/// What is set of a node that an object shows is kept by its engine, for everybody to see.
pub(crate) enum ShownNode {
    Owned(Rc<dyn Owner>, Registration),
    Found(Rc<dyn Directory>, Arc<str>, u32),
}

/// The node that an object shows; none for a plain value.
pub(crate) fn shown_node(object: *mut zend_object) -> Option<ShownNode> {
    binding(object, |binding| match binding {
        Binding::Owned { owner, subject: Subject::Node(node) } => Some(ShownNode::Owned(owner.upgrade()?, node.clone())),
        Binding::Found { directory, id, channel_id } => Some(ShownNode::Found(directory.clone(), id.clone(), *channel_id)),
        Binding::Owned { .. } => None,
    })
}

impl ShownNode {
    /// Sets members of the node's metadata. A node that has left has nobody to show it to any more.
    pub(crate) fn set_metadata(&self, object: *mut zend_object, members: &str) -> Outcome {
        let set = match self {
            Self::Owned(owner, node) => owner.set_metadata(object, node, members)?,
            Self::Found(directory, id, channel_id) => directory.set_metadata(id, *channel_id, members)?,
        };
        match set {
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Closed | ErrorKind::Io) => Err(exception::raise(&error)),
            _ => Ok(()),
        }
    }
}

/// What becomes of data for a node.
pub(crate) enum Sent {
    Yes,
    /// Not now, or not this: the log knows why.
    Refused,
    /// The node left.
    Gone,
}

/// The engine's channel that an object shows.
pub(crate) struct ShownChannel {
    owner: Weak<dyn Owner>,
    node: Registration,
}

/// None for a channel that stands alone.
pub(crate) fn shown_channel(object: *mut zend_object) -> Outcome<Option<ShownChannel>> {
    let found = binding(object, |binding| match binding {
        Binding::Owned { owner, subject: Subject::Channel(node) } => Some(ShownChannel { owner: owner.clone(), node: node.clone() }),
        _ => None,
    });
    if let Some(owner) = found.as_ref().and_then(|shown| shown.owner.upgrade()) {
        owner.check_process()?;
    }
    Ok(found)
}

impl ShownChannel {
    pub(crate) fn is_open(&self) -> bool {
        // Next door the engine says so when it is asked for something, and tells who left.
        !matches!(&self.node, Registration::Here(node) if !node.is_online())
    }

    pub(crate) fn send(&self, data: &[u8]) -> Outcome<Sent> {
        match self.owner.upgrade().filter(|_| self.is_open()) {
            Some(owner) => owner.send(&self.node, data),
            None => Ok(Sent::Gone),
        }
    }

    /// Whoever receives from a channel wants what comes between two calls as well: the owner holds it from now on.
    pub(crate) fn keep(&self, channel: *mut zend_object) -> Outcome {
        self.owner.upgrade().filter(|_| self.is_open()).map_or(Ok(()), |owner| owner.keep(&self.node, channel))
    }

    /// The channel is closed on this side.
    pub(crate) fn let_go(&self, channel: *mut zend_object) {
        if let Some(owner) = self.owner.upgrade() {
            owner.let_go(&self.node, channel);
        }
    }
}
