//! `PfinalClub\AsyncioHeartbeat\Protocol\Message`: one frame of the v1 wire as a PHP value. The codec is the engine's.

use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Outcome, Thrown, bytes, map, string, text, value};
use crate::properties::{Property, Type};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::flags::ConstantFlags;
use ext_php_rs::types::{ZendStr, Zval};
use heartbus_core::wire::v1::{self, PackageLen};
use heartbus_core::wire::{Decoded, FrameType, HEADER_LEN};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Protocol\Message";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const TYPE: Property = Property::new(0, "type");
const PAYLOAD: Property = Property::new(1, "payload");
const CHANNEL_ID: Property = Property::new(2, "channelId");

/// The types that the class names.
pub(crate) const TYPES: [FrameType; 8] = [
    FrameType::HEARTBEAT_REQ,
    FrameType::HEARTBEAT_RES,
    FrameType::DATA,
    FrameType::PING,
    FrameType::PONG,
    FrameType::REGISTER,
    FrameType::UNREGISTER,
    FrameType::ERROR,
];

pub(crate) fn register() -> Result<()> {
    let mut class = ClassBuilder::new(NAME)
        .declare("__construct(int $type, string $payload = '', int $channelId = 0)", construct)
        .declare("encode(): string", encode)
        .declare("static decode(string $buffer): ?self", decode)
        .declare("static getPackageLength(string $buffer): int", get_package_length)
        .declare("getTypeName(): string", get_type_name)
        .declare("toArray(): array", to_array)
        .declare("static createHeartbeatRequest(): self", create_heartbeat_request)
        .declare("static createHeartbeatResponse(): self", create_heartbeat_response)
        .declare("static createRegister(string $nodeId, array $metadata = []): self", create_register)
        .declare("static createData(string $payload, int $channelId = 0): self", create_data)
        .declare("static createError(string $message, int $code = 0): self", create_error)
        .constant("MAGIC", i64::from(v1::MAGIC), &[], ConstantFlags::Public)?;
    for kind in TYPES {
        class = class.constant(format!("TYPE_{}", kind.name()), i64::from(kind.0), &[], ConstantFlags::Public)?;
    }
    class
        .constant("HEADER_LENGTH", HEADER_LEN as i64, &[], ConstantFlags::Public)?
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            TYPE.declare(class, Type::Int, false, None);
            PAYLOAD.declare(class, Type::String, false, None);
            CHANNEL_ID.declare(class, Type::Int, false, None);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut kind, mut payload, mut channel_id) = (0i64, ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"l|Sl", kind, payload, channel_id)?;
    let this = call.this();
    TYPE.construct(this, value(kind))?;
    PAYLOAD.construct(this, string(payload))?;
    CHANNEL_ID.construct(this, value(channel_id))
}

fn encode(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let message = Fields::of(call.this())?;
    let payload = message.payload();
    let mut frame = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
    // The original's encoder keeps the low 8 bits of the type.
    let kind = message.kind as u8;
    if v1::encode(kind, message.channel_id, payload, &mut frame).is_err() {
        // What v1 cannot carry: the original's encoder gives a header without a body.
        frame = [&v1::MAGIC.to_be_bytes()[..], &[kind, 0, 0, 0, 0]].concat();
    }
    *call.result = text(frame);
    Ok(())
}

fn decode(call: &mut Call<'_>) -> Outcome {
    let mut buffer = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", buffer)?;
    // As the original, without a limit of its own: the whole frame is in the caller's memory already.
    match v1::decode(bytes(buffer), u32::MAX) {
        Decoded::Incomplete => call.result.set_null(),
        Decoded::Frame { frame, .. } => {
            *call.result = create(i64::from(frame.frame_type.0), text(frame.payload.bytes()), frame.channel_id)?;
        }
        Decoded::Invalid { error, .. } | Decoded::Broken { error } => return Err(exception::runtime_exception(&error.to_string())),
    }
    Ok(())
}

fn get_package_length(call: &mut Call<'_>) -> Outcome {
    let mut buffer = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", buffer)?;
    call.result.set_long(match v1::package_len(bytes(buffer)) {
        PackageLen::Unknown => 0,
        PackageLen::Invalid => -1,
        PackageLen::Total(len) => len as i64,
    });
    Ok(())
}

fn get_type_name(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let kind = TYPE.int(call.this())?;
    *call.result = text(type_name(kind));
    Ok(())
}

fn to_array(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let message = Fields::of(call.this())?;
    *call.result = map([
        ("type", value(message.kind)),
        ("type_name", text(type_name(message.kind))),
        ("channel_id", value(message.channel_id)),
        ("payload", message.payload),
    ]);
    Ok(())
}

fn create_heartbeat_request(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    created(call, FrameType::HEARTBEAT_REQ, map([("timestamp", value(crate::clock::microtime()))]))
}

fn create_heartbeat_response(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    created(call, FrameType::HEARTBEAT_RES, map([("timestamp", value(crate::clock::microtime()))]))
}

fn create_register(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut metadata) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|a", node_id, metadata)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let metadata = unsafe { metadata.as_ref() }.map_or_else(Zval::new_array, Zval::shallow_clone);
    let payload = map([("node_id", string(node_id)), ("metadata", metadata), ("timestamp", value(crate::clock::microtime()))]);
    created(call, FrameType::REGISTER, payload)
}

fn create_data(call: &mut Call<'_>) -> Outcome {
    let (mut payload, mut channel_id) = (ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"S|l", payload, channel_id)?;
    *call.result = create(i64::from(FrameType::DATA.0), string(payload), channel_id)?;
    Ok(())
}

fn create_error(call: &mut Call<'_>) -> Outcome {
    let (mut message, mut code) = (ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"S|l", message, code)?;
    created(call, FrameType::ERROR, map([("message", string(message)), ("code", value(code))]))
}

/// A message whose payload is JSON; empty when PHP cannot encode it, as in the original.
fn created(call: &mut Call<'_>, kind: FrameType, payload: Zval) -> Outcome {
    let payload = php::json_encode(&payload)?.unwrap_or_else(|| text(""));
    *call.result = create(i64::from(kind.0), payload, 0)?;
    Ok(())
}

fn create(kind: i64, payload: Zval, channel_id: i64) -> Outcome<Zval> {
    let mut message = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut message, class()) };
    let object = message.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
    TYPE.fill(object, value(kind));
    PAYLOAD.fill(object, payload);
    CHANNEL_ID.fill(object, value(channel_id));
    Ok(message)
}

pub(crate) fn class() -> *mut zend_class_entry {
    CLASS.load(Ordering::Relaxed)
}

fn type_name(kind: i64) -> &'static str {
    u8::try_from(kind).map_or("UNKNOWN", |kind| FrameType(kind).name())
}

/// What the methods and `HeartbeatProtocol` read of a message.
pub(crate) struct Fields {
    pub kind: i64,
    pub payload: Zval,
    pub channel_id: i64,
}

impl Fields {
    pub(crate) fn of(message: *mut zend_object) -> Outcome<Self> {
        Ok(Self { kind: TYPE.int(message)?, payload: PAYLOAD.read(message)?, channel_id: CHANNEL_ID.int(message)? })
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.payload.zend_str().map_or(&[], ZendStr::as_bytes)
    }
}
