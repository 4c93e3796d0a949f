//! `Heartbus\Peer`: a connection that has no node, as a client of Firetower's. A plain value.

use crate::arguments;
use crate::declare::Declare;
use crate::php::{Call, Outcome, Thrown, string, text, value};
use crate::properties::{Property, Type};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_string};
use ext_php_rs::flags::ClassFlags;
use ext_php_rs::types::Zval;
use std::net::SocketAddr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static PEER: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const CONNECTION_ID: Property = Property::new(0, "connectionId");
const IP: Property = Property::new(1, "ip");
const PORT: Property = Property::new(2, "port");
const USER: Property = Property::new(3, "user");

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"Heartbus\Peer")
        .flags(ClassFlags::Final | ClassFlags::NoDynamicProperties)
        .declare("__construct(int $connectionId, string $ip, int $port, string $user = '')", construct)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            CONNECTION_ID.declare(class, Type::Int, true, None);
            IP.declare(class, Type::String, true, None);
            PORT.declare(class, Type::Int, true, None);
            USER.declare(class, Type::String, true, None);
            PEER.store(class, Ordering::Relaxed);
        })
        .register()
}

pub(crate) fn peer(connection_id: u64, address: SocketAddr, user: Option<&str>) -> Outcome<Zval> {
    let mut created = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut created, PEER.load(Ordering::Relaxed)) };
    let object = created.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
    CONNECTION_ID.fill(object, value(connection_id as i64));
    IP.fill(object, text(address.ip().to_canonical().to_string()));
    PORT.fill(object, value(i64::from(address.port())));
    USER.fill(object, text(user.unwrap_or_default()));
    Ok(created)
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut connection_id, mut port) = (0i64, 0i64);
    let (mut ip, mut user) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"lSl|S", connection_id, ip, port, user)?;
    let this = call.this();
    CONNECTION_ID.construct(this, value(connection_id))?;
    IP.construct(this, string(ip))?;
    PORT.construct(this, value(port))?;
    USER.construct(this, string(user))
}
