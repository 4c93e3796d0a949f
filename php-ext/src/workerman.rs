//! Workerman as the extension sees it: a table of closures from `loops/workerman.php`, compiled once per request.

use crate::php::{self, Outcome, pending_exception, text, value};
use crate::shim;
use ext_php_rs::ffi::zend_lookup_class_ex;
use ext_php_rs::types::{ZendStr, Zval};
use std::cell::OnceCell;
use std::ptr;

const SOURCE: &str = include_str!("loops/workerman.php");
const NAME: &std::ffi::CStr = c"heartbus/loops/workerman.php";

/// `ZEND_FETCH_CLASS_NO_AUTOLOAD`
const NO_AUTOLOAD: u32 = 0x80;

#[derive(Default)]
pub struct Workerman {
    closures: OnceCell<Zval>,
}

impl Workerman {
    /// Whether `Workerman\Worker` can be used; with `autoload` it may be loaded for that.
    pub fn exists(autoload: bool) -> Outcome<bool> {
        let mut name = ZendStr::new(r"Workerman\Worker", false);
        // SAFETY: a class is looked up as `class_exists()` does.
        let class = unsafe { zend_lookup_class_ex(&raw mut *name, ptr::null_mut(), if autoload { 0 } else { NO_AUTOLOAD }) };
        pending_exception()?;
        Ok(!class.is_null())
    }

    /// Whether this process is a worker of Workerman's.
    pub fn is_running(&self) -> Outcome<bool> {
        Ok(Workerman::exists(false)? && self.call("running", [])?.is_true())
    }

    pub fn add_worker(&self, name: &str, start: Zval, stop: Zval) -> Outcome {
        self.call("worker", [text(name), start, stop]).map(drop)
    }

    /// Returns in no process, unless Workerman throws.
    pub fn run_all(&self) -> Outcome {
        self.call("run", []).map(drop)
    }

    pub fn stop_all(&self) -> Outcome {
        self.call("stop", []).map(drop)
    }

    pub fn watch(&self, stream: Zval, ready: Zval) -> Outcome {
        self.call("watch", [stream, ready]).map(drop)
    }

    pub fn every(&self, seconds: f64, callback: Zval) -> Outcome<i64> {
        Ok(self.call("every", [value(seconds), callback])?.long().unwrap_or_default())
    }

    pub fn cancel(&self, timer: i64) -> Outcome {
        self.call("cancel", [value(timer)]).map(drop)
    }

    fn call<const N: usize>(&self, name: &str, arguments: [Zval; N]) -> Outcome<Zval> {
        if self.closures.get().is_none() {
            let mut closures = Zval::new();
            // SAFETY: the source begins with "<?php", and PHP copies it.
            let compiled = unsafe { shim::heartbus_run_source(SOURCE.as_ptr().cast(), SOURCE.len(), NAME.as_ptr(), &raw mut closures) };
            pending_exception()?;
            if compiled {
                let _ = self.closures.set(closures);
            }
        }
        let closure = self.closures.get().and_then(Zval::array).and_then(|closures| closures.get(name)).map(Zval::shallow_clone);
        php::call(&closure.unwrap_or_default(), arguments)
    }
}
