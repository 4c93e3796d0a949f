//! The Rust side of shim.c, and the functions of PHP itself that ext-php-rs does not declare. Declarations only.

use ext_php_rs::ffi::{zend_class_entry, zend_module_entry, zend_object, zend_string, zval};
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `zend_get_gc_buffer`, only ever seen through a pointer.
#[repr(C)]
pub(crate) struct GcBuffer {
    _opaque: [u8; 0],
}

#[allow(improper_ctypes)]
unsafe extern "C" {
    pub(crate) fn heartbus_spl_runtime_exception() -> *mut zend_class_entry;
    pub(crate) fn heartbus_spl_logic_exception() -> *mut zend_class_entry;
    pub(crate) fn heartbus_spl_invalid_argument_exception() -> *mut zend_class_entry;
    pub(crate) fn heartbus_declare_property(
        ce: *mut zend_class_entry,
        name: *const c_char,
        len: usize,
        kind: c_int,
        class_name: *const c_char,
        class_len: usize,
        readonly: bool,
        initial: *mut zval,
    );
    pub(crate) fn heartbus_register_ini(kind: c_int, module_number: c_int);
    pub(crate) fn heartbus_unregister_ini(kind: c_int, module_number: c_int);
    pub(crate) fn heartbus_display_ini(module: *mut zend_module_entry);
    pub(crate) fn heartbus_ini(name: *const c_char, len: usize) -> *const c_char;
    pub(crate) fn heartbus_gc_add(buffer: *mut GcBuffer, value: *mut zval);
    pub(crate) fn heartbus_gc_use(buffer: *mut GcBuffer, table: *mut *mut zval, count: *mut c_int);
    pub(crate) fn heartbus_is_cli() -> bool;
    pub(crate) fn heartbus_sapi() -> *const c_char;

    pub(crate) fn heartbus_callable_init(callable: *mut c_void, value: *mut zval, number: u32) -> bool;
    pub(crate) fn heartbus_callable_call(callable: *mut c_void, result: *mut zval, count: u32, arguments: *mut zval) -> bool;
    pub(crate) fn heartbus_invoke(
        object: *mut zend_object,
        name: *const c_char,
        len: usize,
        result: *mut zval,
        count: u32,
        arguments: *mut zval,
    ) -> bool;
    pub(crate) fn heartbus_method_closure(
        result: *mut zval,
        ce: *mut zend_class_entry,
        object: *mut zend_object,
        name: *const c_char,
        len: usize,
    );

    pub(crate) fn heartbus_share_string(string: *mut zend_string, value: *mut zval);
    pub(crate) fn heartbus_list(array: *mut zval, values: *const zval, count: u32);
    pub(crate) fn heartbus_array_set(array: *mut zval, key: *mut zend_string, value: *mut zval);
    pub(crate) fn heartbus_array_get(array: *const zval, key: *mut zend_string) -> *mut zval;
    pub(crate) fn heartbus_numeric(value: *const zval, number: *mut f64) -> bool;
    pub(crate) fn heartbus_weak_long(value: *mut zval, number: *mut i64) -> bool;
    pub(crate) fn heartbus_weak_double(value: *mut zval, number: *mut f64) -> bool;
    pub(crate) fn heartbus_weak_string(value: *mut zval) -> bool;
    pub(crate) fn heartbus_type_name(value: *const zval, legacy: bool) -> *const c_char;
    pub(crate) fn heartbus_json_encode(value: *mut zval, result: *mut zval) -> bool;
    pub(crate) fn heartbus_json_decode(text: *const c_char, len: usize, result: *mut zval);
    pub(crate) fn heartbus_stream(fd: c_int, result: *mut zval) -> bool;
    pub(crate) fn heartbus_stream_is_open(value: *mut zval) -> bool;
    pub(crate) fn heartbus_run_source(source: *const c_char, len: usize, name: *const c_char, result: *mut zval) -> bool;

    pub(crate) fn heartbus_signals_size() -> usize;
    pub(crate) fn heartbus_signals_take(signals: *mut c_void);
    pub(crate) fn heartbus_signals_give_back(signals: *mut c_void);
    pub(crate) fn heartbus_signals_next() -> c_int;
    pub(crate) fn heartbus_run_interrupts();
    pub(crate) fn heartbus_dispatch_signals();
    pub(crate) fn heartbus_wait(fd: c_int, nanoseconds: i64, dispatch: bool) -> c_int;
    pub(crate) fn heartbus_own_time_limit();
    pub(crate) fn heartbus_end_own_time_limit();

    pub(crate) fn heartbus_has_stderr() -> c_int;
    pub(crate) fn heartbus_static_property(class: *const c_char, class_len: usize, name: *const c_char, len: usize, result: *mut zval);
    pub(crate) fn heartbus_time_zone() -> *const c_char;
    pub(crate) fn heartbus_time_zone_offset(unix_time: i64) -> c_int;

    pub(crate) fn heartbus_watch_forks(in_child: extern "C" fn());
    pub(crate) fn heartbus_generation() -> c_uint;
}

// PHP's own, exported to extensions.
#[allow(improper_ctypes)]
unsafe extern "C" {
    pub(crate) fn zend_parse_parameters(count: u32, spec: *const c_char, ...) -> c_int;
    pub(crate) fn object_init_ex(result: *mut zval, ce: *mut zend_class_entry) -> c_int;
    pub(crate) fn zend_get_gc_buffer_create() -> *mut GcBuffer;
}
