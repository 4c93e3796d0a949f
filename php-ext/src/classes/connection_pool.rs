//! `PfinalClub\AsyncioHeartbeat\Server\ConnectionPool`: a bounded number of Workerman's connections, by ids of its own.

use super::state::{Field, catch_exception, items, require_instance, set_property};
use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::php::{Call, Outcome, invoke, map, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;

const CONNECTION: &std::ffi::CStr = c"Workerman\\Connection\\TcpConnection";

const CONNECTIONS: Field = Field::new(0, c"connections");
const MAX_CONNECTIONS: Field = Field::new(1, c"maxConnections");
const NEXT_CONNECTION_ID: Field = Field::new(2, c"nextConnectionId");
const TOTAL_CONNECTIONS: Field = Field::new(3, c"totalConnections");
const TOTAL_CLOSED: Field = Field::new(4, c"totalClosed");

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Server\ConnectionPool")
        .declare("__construct(int $maxConnections = 1000000)", construct)
        .declare(r"add(Workerman\Connection\TcpConnection $connection): int", add)
        .declare(r"remove(int $connectionId): ?Workerman\Connection\TcpConnection", remove)
        .declare(r"get(int $connectionId): ?Workerman\Connection\TcpConnection", get)
        .declare("has(int $connectionId): bool", has)
        .declare("getAll(): array", get_all)
        .declare("count(): int", count)
        .declare("clear(): void", clear)
        .declare("getStats(): array", get_stats)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            CONNECTIONS.declare(class, "array", Some(value(ZendEmptyArray)));
            MAX_CONNECTIONS.declare(class, "int", None);
            NEXT_CONNECTION_ID.declare(class, "int", Some(value(1i64)));
            TOTAL_CONNECTIONS.declare(class, "int", Some(value(0i64)));
            TOTAL_CLOSED.declare(class, "int", Some(value(0i64)));
        })
        .register()
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let mut max_connections = 1_000_000i64;
    arguments!(call, c"|l", max_connections)?;
    MAX_CONNECTIONS.set(call.this(), value(max_connections));
    Ok(())
}

fn add(call: &mut Call<'_>) -> Outcome {
    let mut connection = ptr::null_mut::<Zval>();
    arguments!(call, c"z", connection)?;
    let connection = require_instance(connection, 1, CONNECTION)?;
    let this = call.this();
    MAX_CONNECTIONS.require(this)?;
    if CONNECTIONS.table(this).len() >= MAX_CONNECTIONS.int(this) {
        return Err(exception::runtime_exception("Connection pool is full"));
    }
    let id = NEXT_CONNECTION_ID.int(this);
    NEXT_CONNECTION_ID.add(this, 1);
    set_property(&connection, "id", value(id))?;
    CONNECTIONS.table(this).set_index(id, connection);
    TOTAL_CONNECTIONS.add(this, 1);
    call.result.set_long(id);
    Ok(())
}

fn remove(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let this = call.this();
    if let Some(connection) = CONNECTIONS.table(this).get_index(id) {
        CONNECTIONS.table(this).remove_index(id);
        TOTAL_CLOSED.add(this, 1);
        *call.result = connection;
    }
    Ok(())
}

fn get(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    *call.result = CONNECTIONS.table(call.this()).get_index(id).unwrap_or_else(Zval::null);
    Ok(())
}

fn has(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let found = CONNECTIONS.table(call.this()).get_index(id).is_some();
    call.result.set_bool(found);
    Ok(())
}

fn get_all(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = CONNECTIONS.table(call.this()).snapshot();
    Ok(())
}

fn count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let count = CONNECTIONS.table(call.this()).len();
    call.result.set_long(count);
    Ok(())
}

fn clear(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let connections = CONNECTIONS.table(this).snapshot();
    for connection in items(&connections).filter(|connection| connection.is_object()) {
        catch_exception(invoke(connection, c"close", []))?;
    }
    CONNECTIONS.set(this, value(ZendEmptyArray));
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    MAX_CONNECTIONS.require(this)?;
    let (active, max) = (CONNECTIONS.table(this).len(), MAX_CONNECTIONS.int(this));
    let usage = match max {
        // A pool that can hold nothing is full.
        ..=0 => value(100i64),
        // As PHP divides: an integer where nothing is left over.
        _ if active % max == 0 => value(active / max * 100),
        _ => value(active as f64 / max as f64 * 100.0),
    };
    *call.result = map([
        ("active_connections", value(active)),
        ("max_connections", value(max)),
        ("total_connections", value(TOTAL_CONNECTIONS.int(this))),
        ("total_closed", value(TOTAL_CLOSED.int(this))),
        ("usage_percent", usage),
    ]);
    Ok(())
}
