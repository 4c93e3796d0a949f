//! `Heartbus\Host`: a server without PHP code. The engine runs, other processes use it through `Heartbus\Bus`.

use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::heartbeat_server;
use crate::php::{self, Call, Outcome, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::flags::ClassFlags;
use ext_php_rs::types::Zval;
use std::ptr;

pub fn register() -> Result<()> {
    ClassBuilder::new(r"Heartbus\Host")
        .flags(ClassFlags::Final)
        .declare("static run(array $config = []): void", run)
        .declare("private __construct()", construct)
        .registration(|_, arguments| std::mem::forget(arguments))
        .register()
}

fn construct(_: &mut Call) -> Outcome {
    Err(exception::error(r"Heartbus\Host has static methods only"))
}

/// Returns when a signal has stopped the server.
fn run(call: &mut Call) -> Outcome {
    let mut config = ptr::null_mut::<Zval>();
    arguments!(call, c"|a", config)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let given = unsafe { config.as_ref() }.map_or_else(Zval::new_array, |config| config.dereference().shallow_clone());
    let entry = |key: &str| given.array().and_then(|config| config.get(key)).map(|value| value.dereference().shallow_clone());
    let host = entry("host").unwrap_or_else(|| php::text("0.0.0.0"));
    let port = entry("port").unwrap_or_else(|| value(9501i64));
    heartbeat_server::run_alone([host, port, given.shallow_clone()])
}
