//! Objects that show moments by the wall clock and measure from them by the monotonic one: a step of the wall clock changes no age.
//!
//! Owns, in front of such an object and invisible to PHP, what each of its moments was on the other clock. The moment itself stays a
//! float in a property, which PHP code may set as well: then that float is all that is known of it. Knows no class.

use crate::clock::{microtime, monotonic};
use ext_php_rs::ffi::{
    ext_php_rs_zend_object_alloc, object_properties_init, std_object_handlers, zend_class_entry, zend_object, zend_object_handlers,
    zend_object_std_init, zend_objects_clone_members,
};
use ext_php_rs::zend::ClassEntry;
use std::ffi::c_int;
use std::mem::offset_of;
use std::sync::OnceLock;

/// As many as an object of any class has.
const MOMENTS: usize = 3;

#[derive(Copy, Clone)]
struct Moment {
    /// What the property was set to.
    shown: f64,
    /// How far the wall clock was ahead of the monotonic one then.
    ahead: f64,
}

#[repr(C)]
struct Aging {
    moments: [Moment; MOMENTS],
    /// Last, because PHP puts the slots of declared properties behind it.
    object: zend_object,
}

/// Gives every object of this class, and of classes that extend it, room for its moments.
pub(crate) fn keep(class: &mut ClassEntry) {
    class.__bindgen_anon_2.create_object = Some(create);
}

/// PHP's own, with the place of the object in what was allocated, and clones that are as old as what they were cloned from.
pub(crate) fn handlers() -> &'static zend_object_handlers {
    static HANDLERS: OnceLock<zend_object_handlers> = OnceLock::new();
    HANDLERS.get_or_init(|| {
        // SAFETY: PHP's standard handlers are a constant.
        let standard = unsafe { std_object_handlers };
        zend_object_handlers { offset: offset_of!(Aging, object) as c_int, clone_obj: Some(clone), ..standard }
    })
}

unsafe extern "C" fn create(class: *mut zend_class_entry) -> *mut zend_object {
    // SAFETY: PHP allocates the object with room for its property slots; every field is written before it is read.
    unsafe {
        let whole = ext_php_rs_zend_object_alloc(size_of::<Aging>(), class).cast::<Aging>();
        (&raw mut (*whole).moments).write([Moment { shown: f64::NAN, ahead: 0.0 }; MOMENTS]);
        let object = &raw mut (*whole).object;
        zend_object_std_init(object, class);
        object_properties_init(object, class);
        (*object).handlers = handlers();
        object
    }
}

unsafe extern "C" fn clone(old: *mut zend_object) -> *mut zend_object {
    // SAFETY: PHP clones what `create` made.
    unsafe {
        let new = create((*old).ce);
        *moments(new) = *moments(old);
        zend_objects_clone_members(new, old);
        new
    }
}

fn moments(object: *mut zend_object) -> *mut [Moment; MOMENTS] {
    object.wrapping_byte_sub(offset_of!(Aging, object)).cast::<Aging>().cast()
}

/// How far the wall clock is ahead of the monotonic one.
pub(crate) fn ahead() -> f64 {
    microtime() - monotonic()
}

/// A property of the object is set to a moment, told by a wall clock that was so far ahead. `object` must be one that [`keep`] is
/// about.
pub(crate) fn note(object: *mut zend_object, place: usize, shown: f64, ahead: f64) {
    // SAFETY: callers pass live objects of such classes.
    unsafe { (*moments(object))[place] = Moment { shown, ahead } };
}

/// Seconds since a moment that a property of the object shows.
pub(crate) fn since(object: *mut zend_object, place: usize, shown: f64) -> f64 {
    // SAFETY: as above.
    let moment = unsafe { (*moments(object))[place] };
    if moment.shown.to_bits() == shown.to_bits() { monotonic() - (shown - moment.ahead) } else { microtime() - shown }
}
