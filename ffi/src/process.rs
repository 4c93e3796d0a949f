//! What belongs to the process: its descriptors, and statics that each process has for itself. A forked child gets new ones: a lock of
//! the parent's may have been held while it forked, and nobody in the child would ever release it.

use heartbus_core::descriptor::{begin_fork, end_fork, raise_limit};
use heartbus_core::process::give_back_memory_with;
use std::ffi::c_int;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn pthread_atfork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> c_int;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn malloc_trim(pad: usize) -> c_int;
}

/// glibc keeps what was freed, for the next time. Where the program has another allocator this finds little to do.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the allocator's own locks, and touches only what is free.
    unsafe {
        malloc_trim(0);
    }
}

/// Before anything is started that needs descriptors.
pub(crate) fn make_room() {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        extern "C" fn before() {
            begin_fork();
        }
        extern "C" fn after() {
            end_fork();
        }
        // The usual one writes to number 2, whatever the program has there.
        std::panic::set_hook(Box::new(|fault| tracing::error!("A fault in Heartbus: {fault}")));
        give_back_memory_with(give_back);
        // SAFETY: the functions take no lock that a signal handler or another fork could hold, and the library is never unloaded.
        unsafe { pthread_atfork(before, after, after) };
    });
    raise_limit();
}

pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Own<T>>);

/// What one process has.
pub(crate) struct Own<T: 'static> {
    process: u32,
    pub(crate) value: T,
    /// What its parent had, in the state in which the fork found it.
    pub(crate) parent: Option<&'static Self>,
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// None where this process has made nothing of its own yet. Neither allocates nor locks.
    pub(crate) fn existing(&self) -> Option<&'static Own<T>> {
        self.newest().filter(|own| own.process == std::process::id())
    }

    pub(crate) fn current(&self) -> &'static Own<T> {
        let parent = self.newest();
        if let Some(own) = parent.filter(|own| own.process == std::process::id()) {
            return own;
        }
        let new = Box::into_raw(Box::new(Own { process: std::process::id(), value: T::default(), parent }));
        let seen = parent.map_or(ptr::null_mut(), |parent| ptr::from_ref(parent).cast_mut());
        let winner = match self.0.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            Err(winner) => {
                // SAFETY: it was leaked just above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                winner
            }
        };
        // SAFETY: not NULL, leaked, and never freed once it was stored.
        unsafe { &*winner }
    }

    fn newest(&self) -> Option<&'static Own<T>> {
        // SAFETY: NULL, or a box that was leaked above.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}
