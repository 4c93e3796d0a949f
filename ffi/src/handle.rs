//! Handles: what a pointer from C stands for, found without following the pointer.
//!
//! A handle is the address of a small allocation that holds nothing; the object is looked up by it. So a handle that was
//! freed, never was one, or belongs to the parent process is recognised instead of followed. Freed addresses are kept
//! from the allocator for a while, so that a late use does not meet a newer handle at the same address.
//!
//! A handle may be freed while another thread polls it, or still looks at what its last poll returned. So a freed one keeps
//! that memory until the thread that has it polls again or ends, and tells such a thread that the handle is closed.

use crate::arguments::invalid;
use crate::process::{Own, PerProcess};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::log::{Within, within};
use std::any::{Any, TypeId};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// Freed handles that are certainly still recognised.
const REMEMBERED: usize = 1024;

/// The type that C sees for the handles of an object.
pub(crate) trait Object: Send + Sync + 'static {
    type Opaque;
    /// How errors call such a handle.
    const NAME: &'static str;
    /// Its queue of events, if it has one.
    fn polled(&self) -> Option<Arc<dyn Polled>> {
        None
    }
}

/// What is polled, whatever it tells.
pub(crate) trait Polled: Send + Sync {
    /// Makes one poll return.
    fn wake(&self);
    /// Its handle is freed: polls return nothing more, the one that waits included.
    fn discard(&self);
    fn remains(&self) -> Arc<dyn Remains>;
}

/// What the last poll of a handle returned, which may outlive the handle.
pub(crate) trait Remains: Send + Sync {
    /// Lets go of it, if this thread has it, or one that has ended.
    fn release(&self, thread: u64);
    fn is_held(&self) -> bool;
}

#[derive(Default)]
struct Table {
    live: BTreeMap<usize, Entry>,
    freed: VecDeque<Freed>,
    /// Of freed handles that are not remembered any more, while a thread has it. Bounded as those are.
    held: VecDeque<Arc<dyn Remains>>,
}

impl Table {
    /// What a freed handle left to this thread is not needed any more.
    fn release(&self, thread: u64) {
        let remembered = self.freed.iter().filter_map(|freed| freed.remains.as_ref());
        remembered.chain(&self.held).for_each(|remains| remains.release(thread));
    }

    /// Makes room for what was freed last. Returns what nobody needs any more, to be dropped without the lock.
    #[must_use]
    fn forget_oldest(&mut self) -> [Option<Arc<dyn Remains>>; 2] {
        let mut forgotten = [None, None];
        if self.freed.len() > REMEMBERED {
            match self.freed.pop_front().and_then(|oldest| oldest.remains) {
                Some(remains) if remains.is_held() => self.held.push_back(remains),
                rest => forgotten[0] = rest,
            }
        }
        if self.held.len() > REMEMBERED {
            forgotten[1] = self.held.pop_front();
        }
        forgotten
    }
}

struct Entry {
    address: Address,
    object: Arc<dyn Any + Send + Sync>,
    polled: Option<Arc<dyn Polled>>,
    /// What its log messages carry.
    origin: u64,
    user_data: AtomicPtr<c_void>,
}

struct Freed {
    address: Address,
    kind: TypeId,
    /// The thread that freed it.
    by: u64,
    remains: Option<Arc<dyn Remains>>,
}

/// Not of size zero: only allocations have addresses of their own.
type Address = Box<u64>;

static TABLES: PerProcess<RwLock<Table>> = PerProcess::new();

struct Thread {
    /// Never used again for another one.
    number: u64,
    lives: Arc<()>,
}

thread_local! {
    static THREAD: Thread = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Thread { number: NEXT.fetch_add(1, Ordering::Relaxed), lives: Arc::default() }
    };
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(own) = TABLES.existing() {
            read(own).release(self.number);
        }
    }
}

/// The number of this thread; 0 when it is ending.
fn this_thread() -> u64 {
    THREAD.try_with(|thread| thread.number).unwrap_or(0)
}

/// A thread that has something.
#[derive(Default)]
pub(crate) struct Owner {
    thread: u64,
    lives: Weak<()>,
}

impl Owner {
    /// This thread.
    pub(crate) fn me() -> Self {
        THREAD.try_with(|thread| Self { thread: thread.number, lives: Arc::downgrade(&thread.lives) }).unwrap_or_default()
    }

    pub(crate) fn is_or_is_gone(&self, thread: u64) -> bool {
        self.thread == thread || self.lives.strong_count() == 0
    }
}

/// Where a handle will be: what happens while its object is made is told apart from other objects' already.
pub(crate) struct Place {
    address: Address,
    origin: u64,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { address: Address::new(0), origin: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Log messages of this thread, and of those that it starts, are the object's until the result is dropped.
    pub(crate) fn within(&self) -> Within {
        within(self.origin)
    }

    /// Makes the handle.
    pub(crate) fn open<T: Object>(self, object: Arc<T>) -> *mut T::Opaque {
        let Self { mut address, origin } = self;
        let handle = &raw mut *address;
        let entry = Entry { address, polled: object.polled(), object, origin, user_data: AtomicPtr::default() };
        write(TABLES.current()).live.insert(handle.addr(), entry);
        handle.cast()
    }
}

/// An object that a call is at: what is logged meanwhile is its own.
pub(crate) struct InUse<T> {
    object: Arc<T>,
    _within: Within,
}

impl<T> Deref for InUse<T> {
    type Target = Arc<T>;
    fn deref(&self) -> &Arc<T> {
        &self.object
    }
}

/// # Errors
/// `InvalidArgument` when it is no handle of this kind, or not any more; `WrongProcess` in a forked child.
pub(crate) fn get<T: Object>(handle: *const T::Opaque) -> Result<InUse<T>, Error> {
    let own = TABLES.current();
    let found = read(own).live.get(&handle.addr()).map(|entry| (entry.object.clone(), entry.origin));
    match found {
        Some((object, origin)) => {
            let object = object.downcast().map_err(|_| invalid(format!("{} is a handle of another kind", T::NAME)))?;
            Ok(InUse { object, _within: within(origin) })
        }
        None => Err(why_not(own, handle.addr(), T::NAME)),
    }
}

/// As [`get`], for a poll.
///
/// # Errors
/// As [`get`]; `Closed` when another thread has freed it. What this thread got by its last poll is gone then.
pub(crate) fn get_to_poll<T: Object>(handle: *const T::Opaque) -> Result<InUse<T>, Error> {
    get::<T>(handle).map_err(|error| match TABLES.existing() {
        Some(own) if was_freed_by_another(&read(own), handle.addr(), TypeId::of::<T>()) => closed(),
        _ => error,
    })
}

fn was_freed_by_another(table: &Table, handle: usize, kind: TypeId) -> bool {
    let this = this_thread();
    let freed = table.freed.iter().find(|freed| (&raw const *freed.address).addr() == handle && freed.kind == kind);
    let Some(freed) = freed.filter(|freed| freed.by != this) else { return false };
    if let Some(remains) = &freed.remains {
        remains.release(this);
    }
    true
}

/// What a poll says of a handle that another thread has freed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "Another thread has freed the handle")
}

/// Ends a handle and returns its object, which other calls may still be using. No poll returns anything more, and what a poll of
/// this thread returned is gone; what one of another thread returned stays until that thread polls again or ends.
///
/// # Errors
/// As [`get`]; nothing has ended then.
pub(crate) fn close<T: Object>(handle: *mut T::Opaque) -> Result<InUse<T>, Error> {
    let object = get::<T>(handle)?;
    let own = TABLES.current();
    let mut table = write(own);
    let Some(Entry { address, polled, .. }) = table.live.remove(&handle.addr()) else {
        // Another thread was faster.
        drop(table);
        return Err(why_not(own, handle.addr(), T::NAME));
    };
    let (by, remains) = (this_thread(), polled.as_ref().map(|polled| polled.remains()));
    table.freed.push_back(Freed { address, kind: TypeId::of::<T>(), by, remains: remains.clone() });
    let forgotten = table.forget_oldest();
    drop(table);
    drop(forgotten);
    if let (Some(polled), Some(remains)) = (polled, remains) {
        polled.discard();
        remains.release(by);
    }
    Ok(object)
}

/// Makes one poll of whatever handle this is return.
///
/// # Errors
/// As [`get`]; `InvalidArgument` for one that is not polled.
pub(crate) fn wake(handle: *const c_void) -> Result<(), Error> {
    let polled = any(handle, |entry| entry.polled.clone())?;
    polled.ok_or_else(|| invalid("handle is of a kind that is not polled"))?.wake();
    Ok(())
}

/// # Errors
/// As [`get`].
pub(crate) fn set_user_data(handle: *const c_void, user_data: *mut c_void) -> Result<(), Error> {
    any(handle, |entry| entry.user_data.store(user_data, Ordering::Release))
}

/// # Errors
/// As [`get`].
pub(crate) fn user_data(handle: *const c_void) -> Result<*mut c_void, Error> {
    any(handle, |entry| entry.user_data.load(Ordering::Acquire))
}

/// What log messages of this handle carry.
///
/// # Errors
/// As [`get`].
pub(crate) fn origin(handle: *const c_void) -> Result<u64, Error> {
    any(handle, |entry| entry.origin)
}

/// The user data of the handle whose log messages carry this; NULL when there is none, or not any more.
pub(crate) fn user_data_of(origin: u64) -> *mut c_void {
    let Some(own) = TABLES.existing() else { return ptr::null_mut() };
    let table = read(own);
    let entry = table.live.values().find(|entry| entry.origin == origin);
    entry.map_or(ptr::null_mut(), |entry| entry.user_data.load(Ordering::Acquire))
}

/// Asks the entry of a handle of any kind.
fn any<R>(handle: *const c_void, ask: impl FnOnce(&Entry) -> R) -> Result<R, Error> {
    let own = TABLES.current();
    let answer = read(own).live.get(&handle.addr()).map(ask);
    answer.ok_or_else(|| why_not(own, handle.addr(), "handle"))
}

/// Why a handle is not in the table of this process.
fn why_not(own: &Own<RwLock<Table>>, handle: usize, name: &str) -> Error {
    if handle == 0 {
        return invalid(format!("{name} is NULL"));
    }
    let mut ancestor = own.parent;
    while let Some(process) = ancestor {
        // A lock that was held while the process forked stays locked in the child.
        if process.value.try_read().map_or(true, |table| table.live.contains_key(&handle)) {
            return Error::wrong_process();
        }
        ancestor = process.parent;
    }
    invalid(format!("{name} is no handle: it was freed already, or never was one"))
}

fn read(own: &'static Own<RwLock<Table>>) -> RwLockReadGuard<'static, Table> {
    own.value.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(own: &'static Own<RwLock<Table>>) -> RwLockWriteGuard<'static, Table> {
    own.value.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    struct Lamp;
    struct lamp_handle;
    impl Object for Lamp {
        type Opaque = lamp_handle;
        const NAME: &'static str = "lamp";
    }

    #[derive(Debug)]
    struct Door;
    impl Object for Door {
        type Opaque = lamp_handle;
        const NAME: &'static str = "door";
    }

    fn refusal<T>(result: Result<T, Error>) -> String {
        result.err().expect("a refusal").message
    }

    #[test]
    fn a_handle_leads_to_its_object_until_it_is_closed() {
        let lamp = Arc::new(Lamp);
        let handle = Place::new().open(lamp.clone());
        assert!(Arc::ptr_eq(&get::<Lamp>(handle).unwrap(), &lamp));
        assert!(Arc::ptr_eq(&close::<Lamp>(handle).unwrap(), &lamp));
        assert_eq!(Arc::strong_count(&lamp), 1);
        assert_eq!(refusal(get::<Lamp>(handle)), "lamp is no handle: it was freed already, or never was one");
        assert_eq!(refusal(close::<Lamp>(handle)), "lamp is no handle: it was freed already, or never was one");
    }

    #[test]
    fn null_strangers_and_other_kinds_are_refused() {
        assert_eq!(refusal(get::<Lamp>(ptr::null())), "lamp is NULL");
        assert_eq!(refusal(get::<Lamp>(ptr::without_provenance(0xdead))), "lamp is no handle: it was freed already, or never was one");
        let handle = Place::new().open(Arc::new(Lamp));
        assert_eq!(refusal(close::<Door>(handle)), "door is a handle of another kind");
        close::<Lamp>(handle).unwrap();
    }

    #[test]
    fn a_freed_handle_is_not_mistaken_for_a_newer_one() {
        let old = Place::new().open(Arc::new(Lamp));
        close::<Lamp>(old).unwrap();
        for _ in 0..REMEMBERED / 2 {
            let new = Place::new().open(Arc::new(Lamp));
            assert_ne!(new, old);
            close::<Lamp>(new).unwrap();
        }
        assert!(get::<Lamp>(old).is_err());
    }
}
