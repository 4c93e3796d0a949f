//! The closures that other loops call: private methods of `Heartbus\Host`, over whose class entry PHP makes them.

use crate::php;
use crate::workerman::HostClosures;
use ext_php_rs::ffi::zend_class_entry;
use ext_php_rs::types::Zval;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

/// As the class is registered.
pub(crate) fn are_methods_of(class: *mut zend_class_entry) {
    CLASS.store(class, Ordering::Relaxed);
}

/// What Workerman calls in the worker of the clients.
pub(crate) fn worker_start() -> Zval {
    static_method("onworkerstart")
}

/// What another loop calls when there is something to tell.
pub(crate) fn on_readable() -> Zval {
    static_method("onreadable")
}

/// What a visit runs in its Fiber.
pub(crate) fn turn() -> Zval {
    static_method("turn")
}

/// What Workerman's commands call.
pub(crate) fn of_commands() -> HostClosures {
    HostClosures {
        ready: on_readable(),
        own: static_method("own"),
        statistics: static_method("statistics"),
        connections: static_method("connections"),
        close_doors: static_method("closedoors"),
        patience: static_method("patience"),
        waits: static_method("waits"),
        stop: static_method("stopservers"),
    }
}

fn static_method(name: &str) -> Zval {
    // SAFETY: the class is registered.
    php::method_closure(unsafe { &*CLASS.load(Ordering::Relaxed) }, ptr::null_mut(), name)
}
