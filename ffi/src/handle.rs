//! Handles: what a pointer from C stands for, found without following the pointer.
//!
//! A handle is the address of a small allocation that holds nothing; the object is looked up by it. So a handle that was
//! freed, never was one, or belongs to the parent process is recognised instead of followed. Freed addresses are kept
//! from the allocator for a while, so that a late use does not meet a newer handle at the same address.

use crate::process::{Own, PerProcess};
use crate::raw::invalid;
use heartbus_core::error::Error;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// Freed handles that are certainly still recognised.
const REMEMBERED: usize = 1024;

/// The type that C sees for the handles of an object.
pub(crate) trait Object: Send + Sync + 'static {
    type Opaque;
    /// How errors call such a handle.
    const NAME: &'static str;
}

#[derive(Default)]
struct Table {
    live: BTreeMap<usize, Entry>,
    freed: VecDeque<Address>,
}

struct Entry {
    address: Address,
    object: Arc<dyn Any + Send + Sync>,
}

/// Not of size zero: only allocations have addresses of their own.
type Address = Box<u64>;

static TABLES: PerProcess<RwLock<Table>> = PerProcess::new();

/// Makes a handle for an object.
pub(crate) fn open<T: Object>(object: Arc<T>) -> *mut T::Opaque {
    let mut address = Address::new(0);
    let handle = &raw mut *address;
    write(TABLES.current()).live.insert(handle.addr(), Entry { address, object });
    handle.cast()
}

/// # Errors
/// `InvalidArgument` when it is no handle of this kind, or not any more; `WrongProcess` in a forked child.
pub(crate) fn get<T: Object>(handle: *const T::Opaque) -> Result<Arc<T>, Error> {
    let own = TABLES.current();
    let object = own.value.read().unwrap_or_else(PoisonError::into_inner).live.get(&handle.addr()).map(|entry| entry.object.clone());
    match object {
        Some(object) => object.downcast().map_err(|_| invalid(format!("{} is a handle of another kind", T::NAME))),
        None => Err(why_not(own, handle.addr(), T::NAME)),
    }
}

/// Ends a handle and returns its object, which other calls may still be using.
///
/// # Errors
/// As [`get`]; nothing has ended then.
pub(crate) fn close<T: Object>(handle: *mut T::Opaque) -> Result<Arc<T>, Error> {
    let object = get::<T>(handle)?;
    let own = TABLES.current();
    let mut table = write(own);
    let Some(entry) = table.live.remove(&handle.addr()) else {
        // Another thread was faster.
        drop(table);
        return Err(why_not(own, handle.addr(), T::NAME));
    };
    table.freed.push_back(entry.address);
    if table.freed.len() > REMEMBERED {
        table.freed.pop_front();
    }
    Ok(object)
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
        let handle = open(lamp.clone());
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
        let handle = open(Arc::new(Lamp));
        assert_eq!(refusal(close::<Door>(handle)), "door is a handle of another kind");
        close::<Lamp>(handle).unwrap();
    }

    #[test]
    fn a_freed_handle_is_not_mistaken_for_a_newer_one() {
        let old = open(Arc::new(Lamp));
        close::<Lamp>(old).unwrap();
        for _ in 0..REMEMBERED / 2 {
            let new = open(Arc::new(Lamp));
            assert_ne!(new, old);
            close::<Lamp>(new).unwrap();
        }
        assert!(get::<Lamp>(old).is_err());
    }
}
