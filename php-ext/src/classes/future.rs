//! `Heartbus\Future`: a result that is not there yet, with the methods of pfinal-asyncio's own Future. `Channel` gives one
//! out where pfinal-asyncio is not installed, and waits with one itself.

use super::state::{self, Field, items};
use super::waiting::Suspension;
use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Callable, Outcome, Thrown, value};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use ext_php_rs::zend::ce;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const DONE: Field = Field::new(0, c"done");
const RESULT: Field = Field::new(1, c"result");
const EXCEPTION: Field = Field::new(2, c"exception");
const CALLBACKS: Field = Field::new(3, c"callbacks");
/// What `Channel::recv()` suspended until the result comes.
const SUSPENSION: Field = Field::new(4, c"suspension");

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"Heartbus\Future")
        .declare("isDone(): bool", is_done)
        .declare("setResult(mixed $result): void", set_result)
        .declare("setException(Throwable $exception): void", set_exception)
        .declare("getResult(): mixed", get_result)
        .declare("hasException(): bool", has_exception)
        .declare("getException(): ?Throwable", get_exception)
        .declare("addDoneCallback(callable $callback): void", add_done_callback)
        .declare("private expire(): void", expire)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            DONE.declare(class, "bool", Some(value(false)));
            RESULT.declare(class, "mixed", Some(Zval::null()));
            EXCEPTION.declare(class, "?Throwable", Some(Zval::null()));
            CALLBACKS.declare(class, "array", Some(value(ZendEmptyArray)));
            SUSPENSION.declare(class, "?object", Some(Zval::null()));
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

pub(crate) fn class() -> *mut zend_class_entry {
    CLASS.load(Ordering::Relaxed)
}

pub(crate) fn create() -> Outcome<Zval> {
    let mut future = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut future, class()) };
    if future.is_object() { Ok(future) } else { Err(Thrown) }
}

/// Lets the result resume whoever suspended.
pub(crate) fn resumes(future: *mut zend_object, suspension: &Suspension) {
    SUSPENSION.set(future, suspension.zval());
}

/// A closure that gives the future the result null, unless it has one by then.
pub(crate) fn expiry(future: *mut zend_object) -> Zval {
    // SAFETY: class entries of internal classes live as long as the process.
    php::method_closure(unsafe { &*class() }, future, "expire")
}

pub(crate) fn done(future: *mut zend_object) -> bool {
    DONE.is_true(future)
}

pub(crate) fn result(future: *mut zend_object) -> Zval {
    RESULT.get(future)
}

/// Marks a future that nobody waits for any more; nothing is called.
pub(crate) fn abandon(future: *mut zend_object) {
    DONE.set(future, value(true));
    SUSPENSION.set(future, Zval::null());
}

/// Runs PHP code: the callbacks, and what was suspended.
pub(crate) fn complete(future: *mut zend_object, result: Zval) -> Outcome {
    DONE.set(future, value(true));
    RESULT.set(future, result);
    settle(future)
}

fn settle(future: *mut zend_object) -> Outcome {
    // The callbacks may drop the last reference of the caller's.
    let kept = php::object(future);
    let callbacks = CALLBACKS.table(future).take();
    for callback in items(&callbacks) {
        state::log_throwable(php::call(callback, [kept.shallow_clone()]), c"Callback error in Future")?;
    }
    let suspension = SUSPENSION.get(future);
    SUSPENSION.set(future, Zval::null());
    Suspension::resume(&suspension)
}

fn pending(call: &mut Call<'_>) -> Outcome<*mut zend_object> {
    let this = call.this();
    if done(this) { Err(exception::runtime_exception("Future already done")) } else { Ok(this) }
}

fn is_done(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let done = done(call.this());
    call.result.set_bool(done);
    Ok(())
}

fn set_result(call: &mut Call<'_>) -> Outcome {
    let mut result = ptr::null_mut::<Zval>();
    arguments!(call, c"z", result)?;
    let this = pending(call)?;
    // SAFETY: an argument of this call.
    complete(this, unsafe { (*result).dereference() }.shallow_clone())
}

fn set_exception(call: &mut Call<'_>) -> Outcome {
    let (mut thrown, class) = (ptr::null_mut::<Zval>(), ptr::from_ref(ce::throwable()).cast_mut());
    call.parse(c"O", [(&raw mut thrown).cast(), class.cast()])?;
    let this = pending(call)?;
    // SAFETY: an argument of this call.
    EXCEPTION.set(this, unsafe { (*thrown).dereference() }.shallow_clone());
    DONE.set(this, value(true));
    settle(this)
}

fn get_result(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    if !done(this) {
        return Err(exception::runtime_exception("Future not done yet"));
    }
    let thrown = EXCEPTION.get(this);
    if thrown.is_object() {
        return Err(state::throw(&thrown));
    }
    *call.result = result(this);
    Ok(())
}

fn has_exception(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let thrown = EXCEPTION.get(call.this());
    call.result.set_bool(thrown.is_object());
    Ok(())
}

fn get_exception(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = EXCEPTION.get(call.this());
    Ok(())
}

fn add_done_callback(call: &mut Call<'_>) -> Outcome {
    let mut callback = ptr::null_mut::<Zval>();
    arguments!(call, c"z", callback)?;
    let callable = Rc::new(Callable::new(callback, 1)?);
    let this = call.this();
    if done(this) {
        return callable.call([php::object(this)]).map(drop);
    }
    CALLBACKS.table(this).push(callable.zval().shallow_clone());
    Ok(())
}

fn expire(call: &mut Call<'_>) -> Outcome {
    let this = call.this();
    if done(this) { Ok(()) } else { complete(this, Zval::null()) }
}
