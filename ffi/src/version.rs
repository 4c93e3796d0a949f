//! Which library this is.

use std::ffi::{CStr, c_char};

/// Grows when a program compiled against an older header could no longer run with the library. New functions, event
/// types, status codes and configuration keys do not count.
#[expect(unreachable_pub, reason = "cbindgen writes what is public into the header")]
pub const HEARTBUS_ABI_VERSION: u32 = 1;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!("the version contains a NUL"),
};

/// The library's version, such as "0.1.0". Lives as long as the program.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The ABI that the loaded library has. A program that loads it at run time compares this with HEARTBUS_ABI_VERSION of
/// the header it was compiled against, and does not go on when they differ.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_abi_version() -> u32 {
    HEARTBUS_ABI_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_workspace() {
        assert_eq!(VERSION.to_str(), Ok(env!("CARGO_PKG_VERSION")));
        assert_eq!(heartbus_abi_version(), HEARTBUS_ABI_VERSION);
    }
}
