//! Typed properties of plain classes: declared as PHP code would declare them, read and written in their slots.

use crate::php::{Outcome, pending_exception};
use crate::shim;
use ext_php_rs::ffi::{zend_object, zend_std_read_property, zend_std_write_property};
use ext_php_rs::types::{ZendStr, Zval};
use ext_php_rs::zend::ClassEntry;
use std::ffi::c_int;
use std::ptr;

/// The type of a property.
#[derive(Copy, Clone)]
pub(crate) enum Type {
    Int,
    Float,
    String,
    Array,
    /// An object of this class, or null.
    Nullable(&'static str),
}

impl Type {
    /// PHP's number for it, or 0 and the name of a class.
    fn code(self) -> (c_int, &'static str) {
        match self {
            Self::Int => (4, ""),
            Self::Float => (5, ""),
            Self::String => (6, ""),
            Self::Array => (7, ""),
            Self::Nullable(class) => (0, class),
        }
    }
}

/// A public property. The number of its slot is the number of properties declared before it.
#[derive(Copy, Clone)]
pub(crate) struct Property {
    slot: usize,
    name: &'static str,
}

impl Property {
    pub(crate) const fn new(slot: usize, name: &'static str) -> Self {
        Self { slot, name }
    }

    /// Without an initial value the property is uninitialized until the constructor sets it.
    pub(crate) fn declare(self, class: &mut ClassEntry, kind: Type, readonly: bool, initial: Option<Zval>) {
        let mut initial = initial.unwrap_or_else(|| {
            let mut undefined = Zval::new();
            undefined.u1.type_info = 0;
            undefined
        });
        let (name, (code, class_name)) = (self.name, kind.code());
        let [(name, len), (class_name, class_len)] = [name, class_name].map(|text| (text.as_ptr().cast(), text.len()));
        // SAFETY: called while the class is registered; C copies what PHP keeps.
        unsafe { shim::heartbus_declare_property(class, name, len, code, class_name, class_len, readonly, &raw mut initial) };
    }

    /// Sets the property of a new object, also a readonly one. The value must have the property's type.
    pub(crate) fn fill(self, object: *mut zend_object, value: Zval) {
        // SAFETY: the slot is one of the class's own. A slot that is a reference (`&$object->name`) keeps being one.
        unsafe { *(*self.slot(object)).dereference_mut() = value };
    }

    /// What a constructor does, which PHP code may call again on an object that lives.
    pub(crate) fn construct(self, object: *mut zend_object, value: Zval) -> Outcome {
        if self.is_initialized(object) {
            return self.write(object, value);
        }
        self.fill(object, value);
        Ok(())
    }

    pub(crate) fn is_initialized(self, object: *mut zend_object) -> bool {
        // SAFETY: the slot is one of the class's own; 0 is the type of undefined values.
        unsafe { (*self.slot(object)).u1.type_info != 0 }
    }

    pub(crate) fn is_same(self, other: Self) -> bool {
        self.slot == other.slot
    }

    /// The float that it holds, without asking anybody.
    pub(crate) fn peek(self, object: *mut zend_object) -> Option<f64> {
        // SAFETY: the slot is one of the class's own.
        unsafe { (*self.slot(object)).dereference() }.double()
    }

    /// Whether it is this text.
    pub(crate) fn holds(self, object: *mut zend_object, text: &str) -> bool {
        // SAFETY: the slot is one of the class's own.
        let held = unsafe { (*self.slot(object)).dereference() }.zend_str();
        held.is_some_and(|held| held.as_bytes() == text.as_bytes())
    }

    /// As PHP code would read it: an uninitialized property throws PHP's own error, an unset one asks `__get`.
    pub(crate) fn read(self, object: *mut zend_object) -> Outcome<Zval> {
        if self.is_initialized(object) {
            // SAFETY: the slot is one of the class's own.
            return Ok(unsafe { (*self.slot(object)).dereference() }.shallow_clone());
        }
        let mut name = ZendStr::new(self.name, false);
        let mut found = Zval::new();
        // SAFETY: 0 is BP_VAR_R.
        let value = unsafe { zend_std_read_property(object, &raw mut *name, 0, ptr::null_mut(), &raw mut found) };
        pending_exception()?;
        // SAFETY: PHP returns a valid value, possibly in `found`.
        Ok(unsafe { (*value).dereference() }.shallow_clone())
    }

    /// As PHP code would write it.
    pub(crate) fn write(self, object: *mut zend_object, mut value: Zval) -> Outcome {
        let mut name = ZendStr::new(self.name, false);
        // SAFETY: PHP copies the value.
        unsafe { zend_std_write_property(object, &raw mut *name, &raw mut value, ptr::null_mut()) };
        pending_exception()
    }

    pub(crate) fn int(self, object: *mut zend_object) -> Outcome<i64> {
        Ok(self.read(object)?.long().unwrap_or_default())
    }

    pub(crate) fn float(self, object: *mut zend_object) -> Outcome<f64> {
        Ok(self.read(object)?.double().unwrap_or_default())
    }

    pub(crate) fn slot(self, object: *mut zend_object) -> *mut Zval {
        // SAFETY: PHP puts the slots of declared properties behind the object, those of the topmost class first.
        unsafe { (&raw mut (*object).properties_table).cast::<Zval>().add(self.slot) }
    }
}
