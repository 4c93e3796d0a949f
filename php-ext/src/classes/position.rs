//! `Heartbus\Position` and `Heartbus\Publication`: where a publication stands in its topic, and what became of it. Plain values.
//!
//! A position is what an application keeps to go on from later, in another process or on another day: it comes back whole from a text,
//! from `serialize()`, `var_export()` and JSON. What it stands for is the hub's affair.

use super::state::instance;
use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Outcome, Thrown, bytes, map, text, value};
use crate::properties::{Property, Type};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::flags::ClassFlags;
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::hub::topics::Position;
use heartbus_core::service::PublicationRecord;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static POSITION: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());
static PUBLICATION: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const OFFSET: Property = Property::new(0, "offset");
const EPOCH: Property = Property::new(1, "epoch");

const OF_PUBLICATION: Property = Property::new(0, "position");
const REACH: Property = Property::new(1, "reach");

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"Heartbus\Position")
        .flags(ClassFlags::Final | ClassFlags::NoDynamicProperties)
        .declare("__construct(int $offset = 0, int $epoch = 0)", construct)
        .declare("static fromString(string $position): self", from_string)
        .declare("__toString(): string", to_string)
        .declare("static __set_state(array $properties): self", set_state)
        .declare("__serialize(): array", serialize)
        .declare("__unserialize(array $data): void", unserialize)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            OFFSET.declare(class, Type::Int, true, None);
            EPOCH.declare(class, Type::Int, true, None);
            POSITION.store(class, Ordering::Relaxed);
        })
        .register()?;
    ClassBuilder::new(r"Heartbus\Publication")
        .flags(ClassFlags::Final | ClassFlags::NoDynamicProperties)
        .declare(r"__construct(?Heartbus\Position $position, int $reach)", construct_publication)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            OF_PUBLICATION.declare(class, Type::Nullable(r"Heartbus\Position"), true, None);
            REACH.declare(class, Type::Int, true, None);
            PUBLICATION.store(class, Ordering::Relaxed);
        })
        .register()
}

/// A new object.
pub(crate) fn position(position: Position) -> Outcome<Zval> {
    let (created, object) = created(&POSITION)?;
    OFFSET.fill(object, value(position.offset as i64));
    EPOCH.fill(object, value(position.epoch as i64));
    Ok(created)
}

/// The position that an argument is; none where it is no such object.
pub(crate) fn read(given: &Zval) -> Outcome<Option<Position>> {
    let Some(object) = instance(given.dereference(), POSITION.load(Ordering::Relaxed)) else { return Ok(None) };
    let number = |property: Property| property.int(object).map(|number| number as u64);
    Ok(Some(Position { offset: number(OFFSET)?, epoch: number(EPOCH)? }))
}

/// The third argument of a function, `?Position $since`, which may be left out.
pub(crate) fn since(function: &str, given: Option<&Zval>) -> Outcome<Option<Position>> {
    let Some(given) = given.map(Zval::dereference).filter(|given| !given.is_null()) else { return Ok(None) };
    let since = read(given)?;
    if since.is_none() {
        let kind = php::type_name(given, false);
        let text = format!("{function}(): Argument #3 ($since) must be of type ?Heartbus\\Position, {kind} given");
        return Err(exception::type_error(&text));
    }
    Ok(since)
}

/// A new object.
pub(crate) fn publication(record: PublicationRecord) -> Outcome<Zval> {
    let of_record = |(offset, epoch)| position(Position { offset, epoch });
    let (created, object) = created(&PUBLICATION)?;
    OF_PUBLICATION.fill(object, record.position.map_or_else(|| Ok(Zval::null()), of_record)?);
    REACH.fill(object, value(record.reach as i64));
    Ok(created)
}

fn created(class: &AtomicPtr<zend_class_entry>) -> Outcome<(Zval, *mut zend_object)> {
    let mut created = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut created, class.load(Ordering::Relaxed)) };
    let object = created.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
    Ok((created, object))
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut offset, mut epoch) = (0i64, 0i64);
    arguments!(call, c"|ll", offset, epoch)?;
    check(offset, epoch).map_err(|()| exception::invalid_argument("The offset and the epoch of a position are 0 or more"))?;
    let this = call.this();
    OFFSET.construct(this, value(offset))?;
    EPOCH.construct(this, value(epoch))
}

fn check(offset: i64, epoch: i64) -> std::result::Result<(), ()> {
    if offset >= 0 && epoch >= 0 { Ok(()) } else { Err(()) }
}

/// `offset@epoch`.
fn to_string(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = text(format!("{}@{}", OFFSET.int(this)?, EPOCH.int(this)?));
    Ok(())
}

fn from_string(call: &mut Call<'_>) -> Outcome {
    let mut given = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", given)?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let numbers = std::str::from_utf8(bytes(given)).ok().and_then(|text| text.split_once('@'));
    let Some((offset, epoch)) = numbers.and_then(|(offset, epoch)| Some((number(offset)?, number(epoch)?))) else {
        return Err(exception::invalid_argument("The text of a position is its offset, @ and its epoch, as in 12@1764000000000000"));
    };
    *call.result = position(Position { offset: offset as u64, epoch: epoch as u64 })?;
    Ok(())
}

fn serialize(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = map([("offset", OFFSET.read(this)?), ("epoch", EPOCH.read(this)?)]);
    Ok(())
}

fn unserialize(call: &mut Call<'_>) -> Outcome {
    let (offset, epoch) = numbers_of(call)?;
    let this = call.this();
    OFFSET.construct(this, value(offset))?;
    EPOCH.construct(this, value(epoch))
}

fn set_state(call: &mut Call<'_>) -> Outcome {
    let (offset, epoch) = numbers_of(call)?;
    *call.result = position(Position { offset: offset as u64, epoch: epoch as u64 })?;
    Ok(())
}

fn numbers_of(call: &Call<'_>) -> Outcome<(i64, i64)> {
    let mut given = ptr::null_mut::<Zval>();
    arguments!(call, c"a", given)?;
    // SAFETY: an argument of this call.
    let given = unsafe { given.as_ref() }.and_then(Zval::array);
    let number = |given: &ZendHashTable, key: &str| given.get(key).map(Zval::dereference).and_then(Zval::long);
    let numbers = given.and_then(|given| Some((number(given, "offset")?, number(given, "epoch")?)));
    match numbers.filter(|(offset, epoch)| check(*offset, *epoch).is_ok()) {
        Some(numbers) => Ok(numbers),
        None => Err(exception::invalid_argument("A position has an offset and an epoch, integers of 0 or more")),
    }
}

fn construct_publication(call: &mut Call<'_>) -> Outcome {
    let (mut position, mut reach) = (ptr::null_mut::<Zval>(), 0i64);
    arguments!(call, c"zl", position, reach)?;
    // SAFETY: an argument of this call.
    let position = unsafe { position.as_ref() }.map_or_else(Zval::null, |position| position.dereference().shallow_clone());
    if !position.is_null() && read(&position)?.is_none() {
        let kind = php::type_name(&position, false);
        return Err(exception::type_error(&format!(
            "Heartbus\\Publication::__construct(): Argument #1 ($position) must be of type ?Heartbus\\Position, {kind} given"
        )));
    }
    let this = call.this();
    OF_PUBLICATION.construct(this, position)?;
    REACH.construct(this, value(reach))
}
