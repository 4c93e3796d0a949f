//! The settings of php.ini: what a configuration array does not say.

use crate::shim;
use std::ffi::CStr;

pub(crate) fn register(kind: i32, number: i32) {
    // SAFETY: PHP is starting this module, and calls with its number.
    unsafe { shim::heartbus_register_ini(kind, number) };
}

pub(crate) fn unregister(kind: i32, number: i32) {
    // SAFETY: PHP is stopping this module, and calls with its number.
    unsafe { shim::heartbus_unregister_ini(kind, number) };
}

/// What php.ini, `-d` or `ini_set()` say of `heartbus.<key>`; none when that is empty.
pub(crate) fn setting(key: &str) -> Option<String> {
    given(key).filter(|text| !text.is_empty())
}

/// The same of `heartbus.log_level`: its `off` without quotes is an empty text, as PHP reads it.
pub(crate) fn log_level() -> Option<String> {
    given("log_level").map(|text| if text.is_empty() { "off".into() } else { text })
}

/// It is there and empty: in php.ini that is how `off`, `no`, `false` and `none` arrive.
pub(crate) fn is_empty(key: &str) -> bool {
    given(key).is_some_and(|text| text.is_empty())
}

fn given(key: &str) -> Option<String> {
    let name = format!("heartbus.{key}");
    // SAFETY: on PHP's thread; the text is PHP's until somebody sets it anew, and copied before.
    let text = unsafe {
        let text = shim::heartbus_ini(name.as_ptr().cast(), name.len());
        if text.is_null() { return None } else { CStr::from_ptr(text) }
    };
    Some(text.to_string_lossy().into_owned())
}
