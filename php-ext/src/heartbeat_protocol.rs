//! `PfinalClub\AsyncioHeartbeat\Protocol\HeartbeatProtocol`: the numbers of the protocol, for PHP callers. The engine has
//! its own limits.

use crate::arguments;
use crate::declare::Declare;
use crate::message::{self, Fields};
use crate::php::{Call, Outcome, map, text, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::flags::ConstantFlags;
use ext_php_rs::types::Zval;
use heartbus_core::wire::{FrameType, HEADER_LEN, MAX_BODY_LEN, v1};
use std::ptr;

const VERSION: &str = "1.0.0";
const MAX_CHANNEL_ID: i64 = 65_535;

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Protocol\HeartbeatProtocol")
        .constant("VERSION", VERSION, &[], ConstantFlags::Public)?
        .constant("DEFAULT_HEARTBEAT_INTERVAL", 10i64, &[], ConstantFlags::Public)?
        .constant("DEFAULT_HEARTBEAT_TIMEOUT", 30i64, &[], ConstantFlags::Public)?
        .constant("MAX_MESSAGE_LENGTH", i64::from(MAX_BODY_LEN), &[], ConstantFlags::Public)?
        .constant("MIN_MESSAGE_LENGTH", HEADER_LEN as i64, &[], ConstantFlags::Public)?
        .constant("MAX_CHANNEL_ID", MAX_CHANNEL_ID, &[], ConstantFlags::Public)?
        .declare(r"static validateMessage(PfinalClub\AsyncioHeartbeat\Protocol\Message $message): bool", validate_message)
        .declare("static isValidMessageType(int $type): bool", is_valid_message_type)
        .declare("static calculateTimeout(int $heartbeatInterval): int", calculate_timeout)
        .declare("static getInfo(): array", get_info)
        .registration(|_, arguments| std::mem::forget(arguments))
        .register()
}

fn validate_message(call: &mut Call<'_>) -> Outcome {
    let (mut value, class) = (ptr::null_mut::<Zval>(), message::class());
    // "O" takes two: the object, and the class it must have.
    call.parse(c"O", [(&raw mut value).cast(), class.cast()])?;
    // SAFETY: the parser has checked that it is a message.
    let object = unsafe { (*value).object_mut() }.map_or(ptr::null_mut(), ptr::from_mut);
    let message = Fields::of(object)?;
    let valid =
        is_known(message.kind) && (0..=MAX_CHANNEL_ID).contains(&message.channel_id) && message.payload().len() <= MAX_BODY_LEN as usize;
    call.result.set_bool(valid);
    Ok(())
}

fn is_valid_message_type(call: &mut Call<'_>) -> Outcome {
    let mut kind = 0i64;
    arguments!(call, c"l", kind)?;
    call.result.set_bool(is_known(kind));
    Ok(())
}

fn is_known(kind: i64) -> bool {
    u8::try_from(kind).is_ok_and(|kind| FrameType(kind).is_known())
}

fn calculate_timeout(call: &mut Call<'_>) -> Outcome {
    let mut interval = 0i64;
    arguments!(call, c"l", interval)?;
    call.result.set_long(interval.saturating_mul(3));
    Ok(())
}

fn get_info(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = map([
        ("version", text(VERSION)),
        ("magic", text(format!("{:#06X}", v1::MAGIC).replace("0X", "0x"))),
        ("header_length", value(HEADER_LEN as i64)),
        ("max_message_length", value(i64::from(MAX_BODY_LEN))),
        ("max_channel_id", value(MAX_CHANNEL_ID)),
        ("message_types", map(message::TYPES.map(|kind| (kind.name(), value(i64::from(kind.0)))))),
    ]);
    Ok(())
}
