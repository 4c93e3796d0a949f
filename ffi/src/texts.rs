//! Where the results of lookups keep their texts: until the same thread looks something up again.

use bumpalo::Bump;
use std::cell::RefCell;

thread_local! {
    static TEXTS: RefCell<Bump> = RefCell::default();
}

/// Lends the arena, emptied: what the thread's last lookup returned is gone.
pub(crate) fn with_texts<R>(write: impl FnOnce(&Bump) -> R) -> R {
    TEXTS.with_borrow_mut(|texts| {
        texts.reset();
        write(texts)
    })
}
