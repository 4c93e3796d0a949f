//! What the classes of the extension are made of: method calls with PHP's own argument parsing, callables, values, and
//! objects that hold a Rust value. Knows PHP; knows nothing of Heartbus.

use crate::exception;
use crate::shim::{self, GcBuffer};
use ext_php_rs::convert::IntoZval;
use ext_php_rs::ffi::{
    ext_php_rs_zend_object_alloc, object_properties_init, std_object_handlers, zend_class_entry, zend_fcall_info_cache, zend_hash_update,
    zend_lookup_class_ex, zend_object, zend_object_handlers, zend_object_std_dtor, zend_object_std_init, zend_std_get_properties,
    zend_string, zend_string_init_interned, zval,
};
use ext_php_rs::types::{ZendHashTable, ZendStr, Zval};
use ext_php_rs::zend::{ClassEntry, ExecuteData, run_handler};
use std::ffi::{CStr, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::panic::AssertUnwindSafe;
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

pub(crate) use crate::exception::{Outcome, Thrown, pending_exception};

/// One call of a method of the extension.
pub(crate) struct Call<'a> {
    frame: &'a mut ExecuteData,
    pub result: &'a mut Zval,
}

impl Call<'_> {
    fn count(&self) -> u32 {
        // SAFETY: in the frame of a call this union holds the number of arguments.
        unsafe { self.frame.This.u2.num_args }
    }

    /// The object; null in a static method.
    pub(crate) fn this(&mut self) -> *mut zend_object {
        self.frame.get_self().map_or(ptr::null_mut(), ptr::from_mut)
    }

    /// The Rust value of the object.
    pub(crate) fn held<T: Native>(&mut self) -> Outcome<Rc<T>> {
        let this = self.this();
        // SAFETY: methods of T's class are only called on objects that `create::<T>` made.
        let value = unsafe { held::<T>(this) };
        value.ok_or_else(|| exception::error("The parent constructor was not called"))
    }

    /// See [`arguments!`](crate::arguments).
    pub(crate) fn parse<const N: usize>(&self, spec: &CStr, variables: [*mut c_void; N]) -> Outcome {
        // More variables than letters do no harm: C does not look at them.
        let mut v = [ptr::null_mut(); 6];
        v[..N].copy_from_slice(&variables);
        // SAFETY: each letter of the specification has its variable.
        match unsafe { shim::zend_parse_parameters(self.count(), spec.as_ptr(), v[0], v[1], v[2], v[3], v[4], v[5]) } {
            0 => Ok(()),
            _ => Err(Thrown),
        }
    }
}

/// Parses the arguments of a [`Call`] by PHP's own rules (weak and strict mode, its messages): a `zend_parse_parameters`
/// specification, then one variable of the C type that PHP documents for each letter.
#[macro_export]
macro_rules! arguments {
    ($call:expr, $spec:literal $(, $variable:ident)*) => {
        $call.parse($spec, [$((&raw mut $variable).cast()),*])
    };
}

/// The body of a method. A panic becomes an `Error` exception, and a bailout passes through.
pub(crate) fn run(frame: &mut ExecuteData, result: &mut Zval, body: impl FnOnce(&mut Call<'_>) -> Outcome) {
    run_handler(AssertUnwindSafe(|| {
        // An `Err` says that an exception is pending; PHP sees it by itself.
        let _ = body(&mut Call { frame, result });
    }));
}

/// The bytes of a string argument, which the caller's frame keeps alive.
pub(crate) fn bytes<'a>(string: *const zend_string) -> &'a [u8] {
    // SAFETY: PHP's argument parser wrote the pointer; null means that an optional argument was left out.
    unsafe { string.as_ref() }.map_or(&[], ZendStr::as_bytes)
}

/// A string argument as a value, without copying its bytes; empty when it was left out.
pub(crate) fn string(string: *mut zend_string) -> Zval {
    let mut value = Zval::new();
    if string.is_null() {
        return text("");
    }
    // SAFETY: a string argument of the running call.
    unsafe { shim::heartbus_share_string(string, &raw mut value) };
    value
}

pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Zval {
    let mut value = Zval::new();
    value.set_zend_string(ZendStr::new(bytes, false));
    value
}

/// An array with string keys, of which PHP keeps one copy for all such arrays.
pub(crate) fn map<const N: usize>(entries: [(&'static str, Zval); N]) -> Zval {
    map_of(entries)
}

pub(crate) fn map_of(entries: impl IntoIterator<Item = (&'static str, Zval), IntoIter: ExactSizeIterator>) -> Zval {
    let entries = entries.into_iter();
    let mut table = ZendHashTable::with_capacity(entries.len() as u32);
    for (key, mut value) in entries {
        // SAFETY: PHP sets the function before it loads extensions. The table takes the value over, so its drop is forgotten.
        unsafe {
            let key = zend_string_init_interned.map(|intern| intern(key.as_ptr().cast(), key.len(), false));
            zend_hash_update(&raw mut *table, key.unwrap_or(ptr::null_mut()), &raw mut value);
        }
        std::mem::forget(value);
    }
    let mut array = Zval::new();
    array.set_hashtable(table);
    array
}

/// A packed array.
pub(crate) fn list(values: Vec<Zval>) -> Zval {
    let mut array = Zval::new();
    // SAFETY: C takes the values over, so they are not dropped here.
    unsafe { shim::heartbus_list(&raw mut array, values.as_ptr(), values.len() as u32) };
    values.into_iter().for_each(std::mem::forget);
    array
}

/// The members of an array with their keys, integers or strings of any bytes. The array's own iterators panic on a key that is not UTF-8.
pub(crate) fn entries(array: &ZendHashTable) -> impl Iterator<Item = (Zval, &Zval)> {
    let mut entries = array.into_iter();
    std::iter::from_fn(move || entries.next_zval())
}

/// The members of an array without their keys.
pub(crate) fn values(array: &ZendHashTable) -> impl Iterator<Item = &Zval> {
    entries(array).map(|(_, value)| value)
}

/// A key of [`entries`] in words: what is not UTF-8 is replaced.
pub(crate) fn key_name(key: &Zval) -> String {
    match key.zend_str() {
        Some(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        None => key.long().unwrap_or_default().to_string(),
    }
}

/// A value that cannot fail to become a PHP value: numbers, booleans, null.
pub(crate) fn value(value: impl IntoZval) -> Zval {
    value.into_zval(false).unwrap_or_else(|_| Zval::null())
}

pub(crate) fn object(object: *mut zend_object) -> Zval {
    let mut value = Zval::new();
    // SAFETY: callers pass the object of a running call or of a live value.
    if let Some(object) = unsafe { object.as_mut() } {
        value.set_object(object);
    }
    value
}

/// `gettype()` of a value, or (not `legacy`) what error messages about types call it.
pub(crate) fn type_name(value: &Zval, legacy: bool) -> String {
    // SAFETY: PHP returns the text of an interned string.
    unsafe { CStr::from_ptr(shim::heartbus_type_name(value, legacy)) }.to_string_lossy().into_owned()
}

/// As `is_numeric()`, with the number.
pub(crate) fn numeric(value: &Zval) -> Option<f64> {
    let mut number = 0.0;
    // SAFETY: both pointers are valid for the call.
    unsafe { shim::heartbus_numeric(value.dereference(), &raw mut number) }.then_some(number)
}

/// What an `int` parameter of the user's gets from the value in weak mode; none where PHP raises a `TypeError`.
pub(crate) fn weak_long(value: &Zval) -> Outcome<Option<i64>> {
    let (mut value, mut number) = (value.dereference().shallow_clone(), 0);
    // SAFETY: converts our own copy of the value.
    let fits = unsafe { shim::heartbus_weak_long(&raw mut value, &raw mut number) };
    pending_exception()?;
    Ok(fits.then_some(number))
}

/// As [`weak_long`], for a `float`.
pub(crate) fn weak_double(value: &Zval) -> Outcome<Option<f64>> {
    let (mut value, mut number) = (value.dereference().shallow_clone(), 0.0);
    // SAFETY: as above.
    let fits = unsafe { shim::heartbus_weak_double(&raw mut value, &raw mut number) };
    pending_exception()?;
    Ok(fits.then_some(number))
}

/// As [`weak_long`], for a `string`.
pub(crate) fn weak_string(value: &Zval) -> Outcome<Option<Zval>> {
    let mut value = value.dereference().shallow_clone();
    // SAFETY: as above; the copy itself becomes the string.
    let fits = unsafe { shim::heartbus_weak_string(&raw mut value) };
    pending_exception()?;
    Ok(fits.then_some(value))
}

/// `json_encode()`, or `None` for a value that cannot be encoded. May run PHP code (`JsonSerializable`).
pub(crate) fn json_encode(value: &Zval) -> Outcome<Option<Zval>> {
    let mut encoded = Zval::new();
    // SAFETY: PHP only reads the value and writes the result.
    let done = unsafe { shim::heartbus_json_encode(ptr::from_ref(value).cast_mut(), &raw mut encoded) };
    pending_exception()?;
    Ok(done.then_some(encoded))
}

/// `json_decode($text, true)`: null when it is not JSON.
pub(crate) fn json_decode(text: &[u8]) -> Zval {
    let mut decoded = Zval::null();
    // PHP's scanner wants a NUL behind the text, as its own strings have it.
    let text = ZendStr::new(text, false);
    // SAFETY: the text is NUL-terminated and lives through the call.
    unsafe { shim::heartbus_json_decode(text.as_bytes().as_ptr().cast(), text.len(), &raw mut decoded) };
    decoded
}

/// A callable, looked up once.
#[repr(C)]
pub(crate) struct Callable {
    value: Zval,
    cache: zend_fcall_info_cache,
}

impl Callable {
    /// Throws PHP's `TypeError` for argument `number` when the value cannot be called.
    pub(crate) fn new(value: *mut zval, number: u32) -> Outcome<Self> {
        let mut callable = MaybeUninit::<Self>::uninit();
        // SAFETY: `value` is an argument of the running call; a true result says that the callable is filled in.
        unsafe {
            if shim::heartbus_callable_init(callable.as_mut_ptr().cast(), value, number) { Ok(callable.assume_init()) } else { Err(Thrown) }
        }
    }

    /// No lock, borrow or guard may be held here: the callee may throw, exit, suspend its fiber or free anything.
    pub(crate) fn call<const N: usize>(self: &Rc<Self>, mut arguments: [Zval; N]) -> Outcome<Zval> {
        // The callee may replace itself; this keeps it alive while it runs.
        let callable = self.clone();
        let mut result = Zval::new();
        // SAFETY: C only reads the callable.
        let calm = unsafe {
            shim::heartbus_callable_call(Rc::as_ptr(&callable).cast_mut().cast(), &raw mut result, N as u32, arguments.as_mut_ptr())
        };
        if calm { Ok(result) } else { Err(Thrown) }
    }

    pub(crate) fn zval(&self) -> &Zval {
        &self.value
    }
}

/// Calls a closure that the extension itself made.
pub(crate) fn call<const N: usize>(closure: &Zval, arguments: [Zval; N]) -> Outcome<Zval> {
    let mut closure = closure.shallow_clone();
    Rc::new(Callable::new(&raw mut closure, 0)?).call(arguments)
}

/// Calls a public method by its name in lower case, as `$object->name()` would: a subclass may have its own.
pub(crate) fn invoke<const N: usize>(object: &Zval, name: &'static CStr, mut arguments: [Zval; N]) -> Outcome<Zval> {
    let object = object.object().map_or(ptr::null_mut(), |object| ptr::from_ref(object).cast_mut());
    assert!(!object.is_null(), "methods are called on objects");
    let mut result = Zval::new();
    // SAFETY: C keeps the object alive during the call; the arguments are ours.
    let calm =
        unsafe { shim::heartbus_invoke(object, name.as_ptr(), name.count_bytes(), &raw mut result, N as u32, arguments.as_mut_ptr()) };
    settled(calm, result)
}

/// What a call of PHP code has left.
pub(crate) fn settled(calm: bool, result: Zval) -> Outcome<Zval> {
    // SAFETY: 0 is the type of undefined values: what a call leaves that did not return.
    let undefined = unsafe { result.u1.type_info } == 0;
    match calm {
        true => Ok(if undefined { Zval::null() } else { result }),
        false => Err(Thrown),
    }
}

/// A class by its name; with `autoload` PHP code may run to find it.
pub(crate) fn class_named(name: &str, autoload: bool) -> Outcome<Option<*mut zend_class_entry>> {
    /// `ZEND_FETCH_CLASS_NO_AUTOLOAD`
    const NO_AUTOLOAD: u32 = 0x80;
    let mut name = ZendStr::new(name, false);
    // SAFETY: a class is looked up as `class_exists()` does.
    let class = unsafe { zend_lookup_class_ex(&raw mut *name, ptr::null_mut(), if autoload { 0 } else { NO_AUTOLOAD }) };
    pending_exception()?;
    Ok((!class.is_null()).then_some(class))
}

/// Returns when the callback has returned, or suspended the Fiber that it gets for itself.
pub(crate) fn start_fiber<const N: usize>(callback: &Zval, arguments: [Zval; N]) -> Outcome {
    let mut fiber = Zval::new();
    if let Some(class) = class_named("Fiber", false)? {
        // SAFETY: a final class of PHP's own, constructed at once.
        unsafe { shim::object_init_ex(&raw mut fiber, class) };
    }
    invoke(&fiber, c"__construct", [callback.shallow_clone()])?;
    invoke(&fiber, c"start", arguments).map(drop)
}

/// A closure over a private method: the only way to hand it to PHP code. The name is in lower case.
pub(crate) fn method_closure(class: &ClassEntry, object: *mut zend_object, name: &str) -> Zval {
    let mut closure = Zval::new();
    // SAFETY: the class is one of ours and has the method.
    unsafe {
        shim::heartbus_method_closure(&raw mut closure, ptr::from_ref(class).cast_mut(), object, name.as_ptr().cast(), name.len());
    }
    closure
}

/// A Rust type whose values live in PHP objects.
pub(crate) trait Native: Sized + 'static {
    fn handlers() -> &'static OnceLock<zend_object_handlers>;

    /// Shows PHP's cycle collector every PHP value that this one holds.
    fn each_value(&self, visit: &mut dyn FnMut(&Zval));
}

#[repr(C)]
struct Held<T> {
    value: Option<Rc<T>>,
    /// Last, because PHP puts the slots of declared properties behind it.
    object: zend_object,
}

/// Makes every object of this class, and of classes that extend it, hold a `T`: none until [`set_held`].
pub(crate) fn hold<T: Native>(class: &mut ClassEntry) {
    class.__bindgen_anon_2.create_object = Some(create::<T>);
    class.ce_flags |= ext_php_rs::ffi::ZEND_ACC_NOT_SERIALIZABLE;
}

/// # Safety
/// `object` must be null or made by `create::<T>`.
pub(crate) unsafe fn held<T: Native>(object: *mut zend_object) -> Option<Rc<T>> {
    if object.is_null() {
        return None;
    }
    // SAFETY: see above.
    unsafe { (*whole::<T>(object)).value.clone() }
}

/// # Safety
/// `object` must be made by `create::<T>`.
pub(crate) unsafe fn set_held<T: Native>(object: *mut zend_object, value: Rc<T>) {
    // SAFETY: see above. The old value is dropped after the field has changed: dropping may run PHP code.
    let _old = unsafe { (*whole::<T>(object)).value.replace(value) };
}

fn whole<T>(object: *mut zend_object) -> *mut Held<T> {
    object.wrapping_byte_sub(offset_of!(Held<T>, object)).cast()
}

unsafe extern "C" fn create<T: Native>(class: *mut zend_class_entry) -> *mut zend_object {
    let handlers = T::handlers().get_or_init(|| {
        // SAFETY: PHP's standard handlers are a constant.
        let standard = unsafe { std_object_handlers };
        zend_object_handlers {
            offset: offset_of!(Held<T>, object) as c_int,
            free_obj: Some(free::<T>),
            clone_obj: None,
            get_gc: Some(gc::<T>),
            ..standard
        }
    });
    // SAFETY: PHP allocates the object with room for its property slots; every field is written before it is read.
    unsafe {
        let whole = ext_php_rs_zend_object_alloc(size_of::<Held<T>>(), class).cast::<Held<T>>();
        (&raw mut (*whole).value).write(None);
        let object = &raw mut (*whole).object;
        zend_object_std_init(object, class);
        object_properties_init(object, class);
        (*object).handlers = handlers;
        object
    }
}

unsafe extern "C" fn free<T: Native>(object: *mut zend_object) {
    run_handler(AssertUnwindSafe(|| {
        // SAFETY: PHP frees an object once, and `create::<T>` made it.
        drop(unsafe { (*whole::<T>(object)).value.take() });
    }));
    // SAFETY: as above.
    unsafe { zend_object_std_dtor(object) };
}

unsafe extern "C" fn gc<T: Native>(object: *mut zend_object, table: *mut *mut zval, count: *mut c_int) -> *mut ZendHashTable {
    // SAFETY: PHP's buffer for the collector, used as PHP's own classes use it; adding copies the value's pointer only.
    unsafe {
        let buffer: *mut GcBuffer = shim::zend_get_gc_buffer_create();
        if let Some(value) = held::<T>(object) {
            value.each_value(&mut |value| shim::heartbus_gc_add(buffer, ptr::from_ref(value).cast_mut()));
        }
        shim::heartbus_gc_use(buffer, table, count);
        zend_std_get_properties(object)
    }
}
