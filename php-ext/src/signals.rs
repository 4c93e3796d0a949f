//! Ctrl-C and its kin while the extension's own loop runs: taken where nobody handles them, given back afterwards.

use crate::shim;

/// The stop signals are ours until this is dropped.
pub(crate) struct Signals {
    saved: Box<[u64]>,
}

impl Signals {
    pub(crate) fn take() -> Self {
        // SAFETY: C says how long the buffer must be; u64 is aligned for everything in it.
        let words = unsafe { shim::heartbus_signals_size() }.div_ceil(size_of::<u64>());
        let mut saved = vec![0; words].into_boxed_slice();
        // SAFETY: as above.
        unsafe { shim::heartbus_signals_take(saved.as_mut_ptr().cast()) };
        Self { saved }
    }

    /// Whether one came since the last call.
    pub(crate) fn came() -> bool {
        // SAFETY: reads and clears a flag.
        unsafe { shim::heartbus_signals_next() != 0 }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: filled in by `heartbus_signals_take`.
        unsafe { shim::heartbus_signals_give_back(self.saved.as_mut_ptr().cast()) };
    }
}
