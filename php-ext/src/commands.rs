//! What Workerman's commands `status`, `connections`, `stop -g` and `reload -g` ask of the servers in a worker.

use crate::arguments;
use crate::backend::Backend;
use crate::heartbeat_client::fleet;
use crate::heartbeat_server::running;
use crate::php::{Call, Outcome, map, text, value};
use crate::runtime::{Runtime, Source};
use ext_php_rs::types::{ZendHashTable, Zval};
use std::cmp::Ordering;
use std::rc::Rc;

/// Rows that `connections` shows.
const ROWS: usize = 1000;

/// Connections that the log names.
const SHOWN: usize = 5;

/// Of this process: an engine next door is asked in its own.
fn engines() -> impl Iterator<Item = Rc<Backend>> {
    let engines = running().into_iter().filter_map(|server| server.engine());
    engines.filter(|engine| matches!(&**engine, Backend::Here(_)))
}

/// What Workerman counts of its own beside its connections: outgoing ones, and timers.
pub(crate) fn own(call: &mut Call<'_>) -> Outcome {
    let runtime = Runtime::current();
    let timers: usize = runtime.servers().iter().map(|server| server.timers()).sum();
    *call.result = map([("connections", value(fleet::connected(&runtime) as i64)), ("timers", value(timers as i64))]);
    Ok(())
}

/// The keys are those of `ConnectionInterface::$statistics`.
pub(crate) fn statistics(call: &mut Call<'_>) -> Outcome {
    let (mut connections, mut requests, mut refused) = (0, 0, 0);
    for stats in engines().filter_map(|engine| engine.stats().ok()) {
        connections += stats.connections_active as i64;
        requests += stats.counts.messages_in as i64;
        refused += stats.counts.data_out_refused as i64;
    }
    *call.result = map([("connection_count", value(connections)), ("total_request", value(requests)), ("send_fail", value(refused))]);
    Ok(())
}

/// The first connections, as arguments for a row of `loops/workerman.php`.
pub(crate) fn connections(call: &mut Call<'_>) -> Outcome {
    let mut rows = Vec::new();
    for engine in engines() {
        let Backend::Here(engine) = &*engine else { continue };
        let local = engine.local_addr().to_string();
        rows.extend(engine.connections(ROWS - rows.len()).into_iter().map(|found| {
            map([
                ("id", value(found.id as i64)),
                ("local", text(&local)),
                ("remote", text(found.peer.to_string())),
                ("isIpV6", value(found.peer.is_ipv6())),
                ("bytesRead", value(found.bytes_in as i64)),
                ("bytesWritten", value(found.bytes_out as i64)),
                ("waitingIn", value(found.bytes_waiting_in as i64)),
                ("waitingOut", value(found.bytes_waiting_out as i64)),
            ])
        }));
    }
    let mut table = ZendHashTable::with_capacity(rows.len() as u32);
    for row in rows {
        // Fails for arrays that are full or hold references to themselves: this one is neither.
        let _ = table.push(row);
    }
    let mut result = Zval::new();
    result.set_hashtable(table);
    *call.result = result;
    Ok(())
}

pub(crate) fn close_doors(_: &mut Call<'_>) -> Outcome {
    for engine in engines() {
        if let Backend::Here(engine) = &*engine {
            engine.close_door();
        }
    }
    Ok(())
}

/// How many seconds a graceful stop waits for those who stay; null: without end. Asked when it begins.
pub(crate) fn patience(call: &mut Call<'_>) -> Outcome {
    let longest = running().iter().map(|server| server.stop_timeout()).max_by(|one, other| match (one, other) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => one.cmp(other),
    });
    *call.result = longest.flatten().map_or_else(Zval::null, |longest| value(longest.as_secs_f64()));
    Ok(())
}

/// Says whom a graceful stop waits for: connections of the engine's, `own` ones of the application's in this process.
pub(crate) fn waits(call: &mut Call<'_>) -> Outcome {
    let (mut own, mut is_over) = (0i64, false);
    arguments!(call, c"lb", own, is_over)?;
    let (mut connections, mut some) = (0, Vec::new());
    for engine in engines() {
        let Backend::Here(engine) = &*engine else { continue };
        connections += engine.stats().connections_active;
        some.extend(engine.connections(SHOWN).into_iter().map(|found| {
            let peer = found.peer.to_string();
            found.first_node.map_or_else(|| peer.clone(), |node| format!("{node} ({peer})"))
        }));
    }
    some.truncate(SHOWN);
    let some = some.join(", ");
    match is_over {
        false => tracing::warn!(connections, own, some, "A graceful stop waits for connections"),
        true => tracing::warn!(connections, own, some, "A graceful stop has waited long enough: these connections are closed"),
    }
    Ok(())
}

/// The end of the worker: every client is told, and every callback runs that has something to be told.
pub(crate) fn stop_servers(_: &mut Call<'_>) -> Outcome {
    let runtime = Runtime::current();
    for server in running() {
        server.begin_stop(&runtime);
        server.finish_stop(&runtime)?;
    }
    Ok(())
}
