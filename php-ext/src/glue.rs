//! Control-plane code in PHP: a table of closures, compiled once per request from a source of ours when it is first needed.

use crate::php::{self, Outcome, pending_exception};
use crate::shim;
use ext_php_rs::types::Zval;
use std::cell::OnceCell;
use std::ffi::CStr;

pub(crate) struct Glue {
    /// Begins with `<?php` and returns the closures by their names.
    source: &'static str,
    /// The file that PHP shows in traces.
    name: &'static CStr,
    closures: OnceCell<Zval>,
}

impl Glue {
    pub(crate) const fn new(source: &'static str, name: &'static CStr) -> Self {
        Self { source, name, closures: OnceCell::new() }
    }

    pub(crate) fn call<const N: usize>(&self, name: &str, arguments: [Zval; N]) -> Outcome<Zval> {
        if self.closures.get().is_none() {
            let mut closures = Zval::new();
            // SAFETY: the source begins with "<?php", and PHP copies it.
            let compiled =
                unsafe { shim::heartbus_run_source(self.source.as_ptr().cast(), self.source.len(), self.name.as_ptr(), &raw mut closures) };
            pending_exception()?;
            if compiled {
                let _ = self.closures.set(closures);
            }
        }
        let closure = self.closures.get().and_then(Zval::array).and_then(|closures| closures.get(name)).map(Zval::shallow_clone);
        php::call(&closure.unwrap_or_default(), arguments)
    }
}
