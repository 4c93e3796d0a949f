//! Private state of plain classes: PHP values in private typed properties, as a class written in PHP has them.
//!
//! PHP itself then clones, serializes, compares, dumps and collects the objects as it does those of PHP code. Knows PHP;
//! knows nothing of Heartbus. The C side is state.c.

use crate::php::{self, Outcome, Thrown, pending_exception, text, value};
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_std_read_property, zend_std_write_property, zval};
use ext_php_rs::types::{ZendEmptyArray, ZendHashTable, ZendStr, Zval};
use ext_php_rs::zend::ClassEntry;
use std::ffi::{CStr, CString, c_char};
use std::mem;
use std::ptr;

#[allow(improper_ctypes)]
unsafe extern "C" {
    fn heartbus_declare_private(
        ce: *mut zend_class_entry,
        name: *const c_char,
        len: usize,
        kind_name: *const c_char,
        kind_len: usize,
        nullable: bool,
        is_static: bool,
        initial: *mut zval,
    );
    fn heartbus_static_find(ce: *mut zend_class_entry, name: *const c_char, len: usize) -> *mut zval;
    fn heartbus_static_set(ce: *mut zend_class_entry, name: *const c_char, len: usize, value: *mut zval);
    fn heartbus_table_find(array: *mut zval, key: *const c_char, len: usize) -> *mut zval;
    fn heartbus_table_find_index(array: *mut zval, key: i64) -> *mut zval;
    fn heartbus_table_set(array: *mut zval, key: *const c_char, len: usize, value: *mut zval);
    fn heartbus_table_set_index(array: *mut zval, key: i64, value: *mut zval);
    fn heartbus_table_delete(array: *mut zval, key: *const c_char, len: usize);
    fn heartbus_table_delete_index(array: *mut zval, key: i64);
    fn heartbus_table_open(array: *mut zval, key: *const c_char, len: usize) -> *mut zval;
    fn heartbus_queue_renumber(array: *mut zval);
    fn heartbus_queue_push(array: *mut zval, item: *mut zval);
    fn heartbus_queue_shift(array: *mut zval, item: *mut zval) -> bool;
    fn heartbus_call(name: *const c_char, len: usize, result: *mut zval, count: u32, arguments: *mut zval) -> bool;
    fn heartbus_function_exists(name: *const c_char, len: usize) -> bool;
    fn heartbus_has_method(object: *const zend_object, name: *const c_char, len: usize) -> bool;
    fn heartbus_instance_of(object: *const zend_object, ce: *const zend_class_entry) -> bool;
    fn heartbus_argument_type(number: u32, kind: *const c_char, value: *const zval);
    fn heartbus_catch_exception() -> bool;
    fn heartbus_log_throwable(what: *const c_char) -> bool;
    fn heartbus_throw_division_by_zero();
    fn heartbus_throw_uninitialized(ce: *const zend_class_entry, name: *const c_char);
    fn heartbus_throw(object: *mut zval);
    fn heartbus_current_fiber(result: *mut zval) -> bool;
    fn heartbus_print(text: *const c_char, len: usize);
    fn heartbus_memory_usage(peak: bool) -> usize;
    fn heartbus_date(format: *const c_char, len: usize, result: *mut zval);
    fn heartbus_md5(text: *const c_char, len: usize, digits: *mut c_char);
    fn heartbus_json_encode_lossy(value: *mut zval, pretty: bool, result: *mut zval) -> bool;
    fn heartbus_sort_by_key(array: *mut zval);
    fn heartbus_to_string(value: *mut zval, result: *mut zval) -> bool;
}

/// A private property. The number of its slot is the number of properties declared before it, statics not counted.
#[derive(Copy, Clone)]
pub(crate) struct Field {
    slot: usize,
    name: &'static CStr,
}

impl Field {
    pub(crate) const fn new(slot: usize, name: &'static CStr) -> Self {
        Self { slot, name }
    }

    pub(crate) fn is_same(self, other: Self) -> bool {
        self.slot == other.slot
    }

    /// `kind` as PHP writes it; without an initial value the property is uninitialized until a constructor sets it.
    pub(crate) fn declare(self, class: &mut ClassEntry, kind: &str, initial: Option<Zval>) {
        let initial = initial.unwrap_or_else(|| {
            let mut undefined = Zval::new();
            undefined.u1.type_info = 0;
            undefined
        });
        declare(class, self.name, kind, false, initial);
    }

    fn slot(self, object: *mut zend_object) -> *mut Zval {
        // SAFETY: PHP puts the slots of declared properties behind the object, those of the topmost class first. A slot
        // that is a reference stays one: what it refers to is the value.
        unsafe { (*(&raw mut (*object).properties_table).cast::<Zval>().add(self.slot)).dereference_mut() }
    }

    pub(crate) fn get(self, object: *mut zend_object) -> Zval {
        // SAFETY: the slot is one of the class's own, and holds a value or none.
        let slot = unsafe { &*self.slot(object) };
        // SAFETY: 0 is the type of undefined values; they must not be copied.
        if unsafe { slot.u1.type_info } == 0 { Zval::null() } else { slot.shallow_clone() }
    }

    /// The value must have the property's type.
    pub(crate) fn set(self, object: *mut zend_object, value: Zval) {
        // SAFETY: the slot is one of the class's own. The old value is dropped last: that may run PHP code.
        let _old = unsafe { mem::replace(&mut *self.slot(object), value) };
    }

    pub(crate) fn int(self, object: *mut zend_object) -> i64 {
        self.get(object).long().unwrap_or_default()
    }

    pub(crate) fn float(self, object: *mut zend_object) -> f64 {
        self.get(object).double().unwrap_or_default()
    }

    pub(crate) fn is_true(self, object: *mut zend_object) -> bool {
        self.get(object).is_true()
    }

    pub(crate) fn add(self, object: *mut zend_object, more: i64) {
        self.set(object, value(self.int(object).wrapping_add(more)));
    }

    /// The array that the property holds.
    pub(crate) fn table(self, object: *mut zend_object) -> Table {
        let slot = self.slot(object);
        // SAFETY: the slot is one of the class's own; an array property without an array was never initialized.
        unsafe {
            if !(*slot).is_array() {
                slot.write(value(ZendEmptyArray));
            }
        }
        Table(slot)
    }

    /// The object that the property holds; throws PHP's own error when there is none yet.
    pub(crate) fn object(self, this: *mut zend_object) -> Outcome<Zval> {
        self.require(this)?;
        Ok(self.get(this))
    }

    /// Throws PHP's own error when no constructor has set the property: that of a subclass need not call its parent's.
    pub(crate) fn require(self, this: *mut zend_object) -> Outcome {
        if !self.get(this).is_null() {
            return Ok(());
        }
        // SAFETY: the object is alive, and PHP copies the name.
        unsafe { heartbus_throw_uninitialized((*this).ce, self.name.as_ptr()) };
        Err(Thrown)
    }
}

fn declare(class: &mut ClassEntry, name: &CStr, kind: &str, is_static: bool, mut initial: Zval) {
    let (kind, nullable) = kind.strip_prefix('?').map_or((kind, false), |kind| (kind, true));
    let name = name.to_bytes();
    // SAFETY: called while the class is registered; C copies what PHP keeps.
    unsafe {
        heartbus_declare_private(
            class,
            name.as_ptr().cast(),
            name.len(),
            kind.as_ptr().cast(),
            kind.len(),
            nullable,
            is_static,
            &raw mut initial,
        );
    }
}

const INSTANCE: &CStr = c"instance";

/// Gives a class the private static property in which it keeps its only object.
pub(crate) fn declare_singleton(class: &mut ClassEntry, name: &str) {
    declare(class, INSTANCE, &format!("?{name}"), true, Zval::null());
}

/// The only object of a class, made by `create` when there is none. PHP forgets it at the end of the request.
pub(crate) fn singleton(class: *mut zend_class_entry, create: impl FnOnce() -> Outcome<Zval>) -> Outcome<Zval> {
    let (name, len) = (INSTANCE.as_ptr(), INSTANCE.count_bytes());
    // SAFETY: the class declares the property; the pointer is used before anything else runs.
    if let Some(instance) = unsafe { heartbus_static_find(class, name, len).as_ref() } {
        return Ok(instance.dereference().shallow_clone());
    }
    let mut instance = create()?;
    // SAFETY: as above; PHP copies the value.
    unsafe { heartbus_static_set(class, name, len, &raw mut instance) };
    pending_exception()?;
    Ok(instance)
}

/// An array in a property, or an array in such an array. Must not be kept while PHP code runs.
#[derive(Copy, Clone)]
pub(crate) struct Table(*mut Zval);

impl Table {
    /// An array of our own.
    pub(crate) fn of(array: &mut Zval) -> Self {
        Self(array)
    }

    /// The entries, to be walked while anything may happen to the table. A key is an integer or a string.
    pub(crate) fn entries(self) -> Vec<(Zval, Zval)> {
        php::entries(self.array()).map(|(key, value)| (key, value.dereference().shallow_clone())).collect()
    }

    pub(crate) fn array(self) -> &'static ZendHashTable {
        // SAFETY: the value is an array; callers look at it before PHP code can run.
        unsafe { (*self.0).dereference().array().unwrap_or_else(|| unreachable!("a table is an array")) }
    }

    pub(crate) fn len(self) -> i64 {
        self.array().len() as i64
    }

    pub(crate) fn is_empty(self) -> bool {
        self.array().is_empty()
    }

    /// A copy, to be walked while anything may happen to the table.
    pub(crate) fn snapshot(self) -> Zval {
        // SAFETY: the value is an array.
        unsafe { (*self.0).shallow_clone() }
    }

    /// The values, to be walked while anything may happen to the table.
    pub(crate) fn values(self) -> Vec<Zval> {
        php::values(self.array()).map(|value| value.dereference().shallow_clone()).collect()
    }

    pub(crate) fn get(self, key: &[u8]) -> Option<Zval> {
        // SAFETY: C only reads the table; the pointer is used at once.
        unsafe { heartbus_table_find(self.0, key.as_ptr().cast(), key.len()).as_ref() }.map(|value| value.dereference().shallow_clone())
    }

    pub(crate) fn get_index(self, key: i64) -> Option<Zval> {
        // SAFETY: as above.
        unsafe { heartbus_table_find_index(self.0, key).as_ref() }.map(|value| value.dereference().shallow_clone())
    }

    pub(crate) fn set(self, key: &[u8], value: Zval) {
        let mut value = mem::ManuallyDrop::new(value);
        // SAFETY: C separates the array and takes the value over.
        unsafe { heartbus_table_set(self.0, key.as_ptr().cast(), key.len(), (&raw mut value).cast()) };
    }

    pub(crate) fn set_index(self, key: i64, value: Zval) {
        let mut value = mem::ManuallyDrop::new(value);
        // SAFETY: as above.
        unsafe { heartbus_table_set_index(self.0, key, (&raw mut value).cast()) };
    }

    pub(crate) fn remove(self, key: &[u8]) {
        // SAFETY: C separates the array.
        unsafe { heartbus_table_delete(self.0, key.as_ptr().cast(), key.len()) };
    }

    pub(crate) fn remove_index(self, key: i64) {
        // SAFETY: as above.
        unsafe { heartbus_table_delete_index(self.0, key) };
    }

    /// The array under a key; made when there is none.
    pub(crate) fn open(self, key: &[u8]) -> Self {
        // SAFETY: C separates both arrays.
        Self(unsafe { heartbus_table_open(self.0, key.as_ptr().cast(), key.len()) }.cast())
    }

    pub(crate) fn push(self, item: Zval) {
        let mut item = mem::ManuallyDrop::new(item);
        // SAFETY: C separates the array and takes the item over.
        unsafe { heartbus_queue_push(self.0, (&raw mut item).cast()) };
    }

    pub(crate) fn shift(self) -> Option<Zval> {
        let mut item = Zval::new();
        // SAFETY: C writes the item when it returns true.
        unsafe { heartbus_queue_shift(self.0, &raw mut item) }.then_some(item)
    }

    /// Takes all items, numbered from 0.
    pub(crate) fn take(self) -> Zval {
        // SAFETY: the value is an array, before and after.
        let mut all = unsafe { mem::replace(&mut *self.0, value(ZendEmptyArray)) };
        // SAFETY: our own array now.
        unsafe { heartbus_queue_renumber(&raw mut all) };
        all
    }
}

/// The items of an array that nobody else can change.
pub(crate) fn items(array: &Zval) -> impl Iterator<Item = &Zval> {
    array.array().into_iter().flat_map(php::values).map(Zval::dereference)
}

/// The object of a value, when it is one of this class.
pub(crate) fn instance(value: &Zval, class: *mut zend_class_entry) -> Option<*mut zend_object> {
    let object = value.dereference().object().map(|object| ptr::from_ref(object).cast_mut())?;
    // SAFETY: both are alive.
    unsafe { heartbus_instance_of(object, class) }.then_some(object)
}

/// `$object->name`
pub(crate) fn property(object: &Zval, name: &str) -> Outcome<Zval> {
    let Some(object) = object.object() else { return Ok(Zval::null()) };
    let (mut name, mut found) = (ZendStr::new(name, false), Zval::new());
    // SAFETY: 0 is BP_VAR_R; PHP returns a valid value, possibly in `found`.
    let value = unsafe {
        let object = ptr::from_ref(object).cast_mut();
        let value = zend_std_read_property(object, &raw mut *name, 0, ptr::null_mut(), &raw mut found);
        (*value).dereference().shallow_clone()
    };
    pending_exception()?;
    Ok(value)
}

/// `$object->name = $value`
pub(crate) fn set_property(object: &Zval, name: &str, mut value: Zval) -> Outcome {
    let Some(object) = object.object() else { return Ok(()) };
    let mut name = ZendStr::new(name, false);
    // SAFETY: PHP copies the value.
    unsafe { zend_std_write_property(ptr::from_ref(object).cast_mut(), &raw mut *name, &raw mut value, ptr::null_mut()) };
    pending_exception()
}

/// Calls a function, or a static method as `Class::method`.
pub(crate) fn call<const N: usize>(name: &str, mut arguments: [Zval; N]) -> Outcome<Zval> {
    let mut result = Zval::new();
    // SAFETY: C copies the name; the arguments are ours.
    let calm = unsafe { heartbus_call(name.as_ptr().cast(), name.len(), &raw mut result, N as u32, arguments.as_mut_ptr()) };
    php::settled(calm, result)
}

/// By its name in lower case.
pub(crate) fn function_exists(name: &str) -> bool {
    // SAFETY: C only reads.
    unsafe { heartbus_function_exists(name.as_ptr().cast(), name.len()) }
}

pub(crate) fn has_method(object: *mut zend_object, name: &str) -> bool {
    // SAFETY: C only reads; callers pass live objects.
    unsafe { heartbus_has_method(object, name.as_ptr().cast(), name.len()) }
}

/// An argument that must be an object of a class that PHP code defines. Throws PHP's own `TypeError`.
pub(crate) fn require_instance(argument: *mut Zval, number: u32, class: &'static CStr) -> Outcome<Zval> {
    // SAFETY: an argument of the running call.
    let argument = unsafe { (*argument).dereference() };
    let name = class.to_str().unwrap_or_default();
    // An object of the class exists only when the class does: there is nothing to load.
    if php::class_named(name, false)?.is_some_and(|class| instance(argument, class).is_some()) {
        return Ok(argument.shallow_clone());
    }
    // SAFETY: PHP copies the texts.
    unsafe { heartbus_argument_type(number, class.as_ptr(), argument) };
    Err(Thrown)
}

/// `catch (\Exception)`: an `\Error` and an `exit()` pass.
pub(crate) fn catch_exception<T>(outcome: Outcome<T>) -> Outcome<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        // SAFETY: clears an exception that PHP has.
        Err(Thrown) => match unsafe { heartbus_catch_exception() } {
            true => Ok(None),
            false => Err(Thrown),
        },
    }
}

/// `catch (\Throwable)`, told to PHP's error log: for callbacks that must not stop the others.
pub(crate) fn log_throwable<T>(outcome: Outcome<T>, what: &'static CStr) -> Outcome<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        // SAFETY: as above.
        Err(Thrown) => match unsafe { heartbus_log_throwable(what.as_ptr()) } {
            true => Ok(None),
            false => Err(Thrown),
        },
    }
}

pub(crate) fn throw(exception: &Zval) -> Thrown {
    // SAFETY: PHP counts its own reference to the object.
    unsafe { heartbus_throw(ptr::from_ref(exception).cast_mut()) };
    Thrown
}

pub(crate) fn division_by_zero() -> Thrown {
    // SAFETY: throws.
    unsafe { heartbus_throw_division_by_zero() };
    Thrown
}

pub(crate) fn current_fiber() -> Option<Zval> {
    let mut fiber = Zval::new();
    // SAFETY: C writes the value when it returns true.
    unsafe { heartbus_current_fiber(&raw mut fiber) }.then_some(fiber)
}

/// As `echo`. Output handlers may run PHP code.
pub(crate) fn print(text: &[u8]) {
    // SAFETY: PHP copies the text.
    unsafe { heartbus_print(text.as_ptr().cast(), text.len()) };
}

pub(crate) fn memory_usage(peak: bool) -> i64 {
    // SAFETY: reads a counter.
    (unsafe { heartbus_memory_usage(peak) }) as i64
}

/// `date($format)`, in PHP's time zone.
pub(crate) fn date(format: &str) -> Zval {
    let mut result = Zval::new();
    // SAFETY: PHP copies the format.
    unsafe { heartbus_date(format.as_ptr().cast(), format.len(), &raw mut result) };
    result
}

pub(crate) fn md5(text: &[u8]) -> String {
    let mut digits = [0u8; 33];
    // SAFETY: C writes 32 digits and a NUL.
    unsafe { heartbus_md5(text.as_ptr().cast(), text.len(), digits.as_mut_ptr().cast()) };
    String::from_utf8_lossy(&digits[..32]).into_owned()
}

/// JSON of whatever can be encoded of a value; never fails for one that cannot.
pub(crate) fn json_lossy(value: &Zval, pretty: bool) -> Outcome<Zval> {
    let mut result = Zval::new();
    // SAFETY: PHP only reads the value.
    let done = unsafe { heartbus_json_encode_lossy(ptr::from_ref(value).cast_mut(), pretty, &raw mut result) };
    pending_exception()?;
    Ok(if done { result } else { text("null") })
}

/// `ksort($array)`
pub(crate) fn sorted_by_key(mut array: Zval) -> Zval {
    // SAFETY: our own reference to the array, which C replaces.
    unsafe { heartbus_sort_by_key(&raw mut array) };
    array
}

/// `(string) $value`, with its warnings.
pub(crate) fn to_string(value: &Zval) -> Outcome<Zval> {
    let mut result = Zval::new();
    // SAFETY: PHP only reads the value.
    let done = unsafe { heartbus_to_string(ptr::from_ref(value).cast_mut(), &raw mut result) };
    pending_exception()?;
    if done { Ok(result) } else { Err(Thrown) }
}

/// The bytes of a string value.
pub(crate) fn bytes(value: &Zval) -> &[u8] {
    value.dereference().zend_str().map_or(&[], ZendStr::as_bytes)
}

/// A text for C; what follows a NUL is cut off.
pub(crate) fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).unwrap_or_default()
}
