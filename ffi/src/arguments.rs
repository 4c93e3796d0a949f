//! Pointers that come from C: what can be checked about them is checked here, once, before anybody uses them.

use heartbus_core::error::{Error, ErrorKind};
use std::ffi::c_char;
use std::mem::MaybeUninit;

pub(crate) fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

/// Bytes of the caller. NULL is fine when there are none.
///
/// # Safety
/// Where not NULL, `start` points to `len` bytes that nobody changes for `'a`.
pub(crate) unsafe fn bytes<'a>(name: &str, start: *const c_char, len: usize) -> Result<&'a [u8], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    if start.is_null() {
        return Err(invalid(format!("{name} is NULL, but its length is {len}")));
    }
    if isize::try_from(len).is_err() {
        return Err(invalid(format!("{name} cannot have {len} bytes")));
    }
    // SAFETY: not NULL, not longer than an object can be; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), len) })
}

/// An array of the caller. NULL is fine when there is nothing in it.
///
/// # Safety
/// Where not NULL, `start` points to `len` values that nobody changes for `'a`.
pub(crate) unsafe fn slice<'a, T>(name: &str, start: *const T, len: usize) -> Result<&'a [T], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    check(name, start, len)?;
    // SAFETY: not NULL, aligned, not longer than an object can be; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(start, len) })
}

/// Text of the caller.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(name: &str, start: *const c_char, len: usize) -> Result<&'a str, Error> {
    // SAFETY: the same promise.
    let bytes = unsafe { bytes(name, start, len) }?;
    std::str::from_utf8(bytes).map_err(|_| invalid(format!("{name} is not UTF-8")))
}

/// Where a result goes.
///
/// # Safety
/// Where not NULL, `target` points to memory for a `T`, initialised or not, that nobody else uses for `'a`.
pub(crate) unsafe fn out<'a, T>(name: &str, target: *mut T) -> Result<&'a mut MaybeUninit<T>, Error> {
    // SAFETY: the same promise; a MaybeUninit asks for no initialised memory.
    Ok(unsafe { out_slice(name, target, 1) }?.first_mut().expect("a slice of one"))
}

/// Where a result goes that the caller may not want.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn out_if_wanted<'a, T>(name: &str, target: *mut T) -> Result<Option<&'a mut MaybeUninit<T>>, Error> {
    // SAFETY: the same promise.
    if target.is_null() { Ok(None) } else { unsafe { out(name, target) }.map(Some) }
}

/// A number of the caller that is read and changed.
///
/// # Safety
/// Where not NULL, `number` points to one that nobody else uses for `'a`.
pub(crate) unsafe fn inout<'a>(name: &str, number: *mut u64) -> Result<&'a mut u64, Error> {
    // SAFETY: the same promise, and the caller has set the number.
    Ok(unsafe { out(name, number)?.assume_init_mut() })
}

/// Where up to `capacity` results go. NULL is fine when there are none.
///
/// # Safety
/// Where not NULL, `target` points to memory for `capacity` values, initialised or not, that nobody else uses for `'a`.
pub(crate) unsafe fn out_slice<'a, T>(name: &str, target: *mut T, capacity: usize) -> Result<&'a mut [MaybeUninit<T>], Error> {
    if capacity == 0 {
        return Ok(&mut []);
    }
    check(name, target, capacity)?;
    // SAFETY: not NULL, aligned, not longer than an object can be; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(target.cast(), capacity) })
}

/// What can be told of an array without looking into it.
fn check<T>(name: &str, start: *const T, len: usize) -> Result<(), Error> {
    if start.is_null() {
        return Err(invalid(format!("{name} is NULL")));
    }
    if !start.is_aligned() {
        return Err(invalid(format!("{name} is not aligned")));
    }
    if len > isize::MAX as usize / size_of::<T>() {
        return Err(invalid(format!("{name} cannot have room for {len}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn null_without_length_is_empty_and_with_length_refused() {
        // SAFETY: NULL needs no memory.
        let (empty, refused) = unsafe { (bytes("payload", ptr::null(), 0), bytes("payload", ptr::null(), 3)) };
        assert_eq!(empty.unwrap(), b"");
        assert_eq!(refused.unwrap_err().message, "payload is NULL, but its length is 3");
    }

    #[test]
    fn a_length_that_no_object_has_is_refused_before_anything_is_read() {
        // SAFETY: refused by its length alone.
        let refused = unsafe { bytes("payload", c"x".as_ptr(), usize::MAX) };
        assert_eq!(refused.unwrap_err().kind, ErrorKind::InvalidArgument);
        let mut number = 0u64;
        // SAFETY: refused by its length alone.
        let refused = unsafe { out_slice("events", &raw mut number, usize::MAX / 8) };
        assert!(refused.unwrap_err().message.starts_with("events cannot have room for "));
    }

    #[test]
    fn text_must_be_utf8() {
        // SAFETY: both literals live long enough and have these lengths.
        let (good, bad) = unsafe { (text("node_id", c"n\u{e9}".as_ptr(), 3), text("node_id", c"\xff".as_ptr(), 1)) };
        assert_eq!(good.unwrap(), "né");
        assert_eq!(bad.unwrap_err().message, "node_id is not UTF-8");
    }

    #[test]
    fn a_result_needs_aligned_memory() {
        let mut numbers = [0u64; 2];
        let start = numbers.as_mut_ptr();
        // SAFETY: the first is the array itself, the others are refused without being used.
        let (good, crooked, null) = unsafe { (out("count", start), out("count", start.byte_add(1)), out::<u64>("count", ptr::null_mut())) };
        good.unwrap().write(7);
        assert_eq!(crooked.unwrap_err().message, "count is not aligned");
        assert_eq!(null.unwrap_err().message, "count is NULL");
        assert_eq!(numbers[0], 7);
    }
}
