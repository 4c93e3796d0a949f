//! `PfinalClub\AsyncioHeartbeat\Utils\ConfigValidator`: the original's checks of its configuration arrays, for PHP callers.

use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Outcome, map, numeric, type_name, value};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::{ZendHashTable, Zval};
use std::net::IpAddr;
use std::ptr;

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Utils\ConfigValidator")
        .declare("static validateServerConfig(array $config): void", validate_server_config)
        .declare("static validateClientConfig(array $config): void", validate_client_config)
        .declare("static validateHost(string $host): bool", validate_host)
        .declare("static validatePort(int $port): bool", validate_port)
        .declare("static getRecommendedServerConfig(): array", get_recommended_server_config)
        .registration(|_, arguments| std::mem::forget(arguments))
        .register()
}

type Validated<T = ()> = std::result::Result<T, String>;

fn validate_server_config(call: &mut Call<'_>) -> Outcome {
    validate(call, server)
}

fn validate_client_config(call: &mut Call<'_>) -> Outcome {
    validate(call, client)
}

fn validate(call: &mut Call<'_>, check: fn(&ZendHashTable) -> Validated) -> Outcome {
    let mut config = ptr::null_mut::<ZendHashTable>();
    arguments!(call, c"h", config)?;
    // SAFETY: an argument of this call; nothing here runs PHP code.
    check(unsafe { &*config }).map_err(|text| exception::invalid_argument(&text))
}

/// As `isset()`: a null counts as missing.
fn value_of<'a>(config: &'a ZendHashTable, key: &str) -> Option<&'a Zval> {
    config.get(key).map(Zval::dereference).filter(|value| !value.is_null())
}

fn server(config: &ZendHashTable) -> Validated {
    let required = |key: &str, kind: &str| -> Validated<f64> {
        let value = value_of(config, key).ok_or_else(|| format!("Missing required config key: {key}"))?;
        let number = if kind == "int" { value.long().map(|number| number as f64) } else { numeric(value) };
        number.ok_or_else(|| format!("Config key '{key}' must be of type {kind}, {} given", type_name(value, true)))
    };
    let workers = required("worker_count", "int")?;
    let timeout = required("heartbeat_timeout", "numeric")?;
    let interval = required("heartbeat_check_interval", "numeric")?;
    let positive = |key: &str| value_of(config, key).is_none_or(|value| value.long().is_some_and(|number| number >= 1));
    let faults = [
        (workers < 1.0, "worker_count must be >= 1"),
        (workers > 128.0, "worker_count should not exceed 128"),
        (timeout < 1.0, "heartbeat_timeout must be >= 1 second"),
        (interval < 1.0, "heartbeat_check_interval must be >= 1 second"),
        (interval >= timeout, "heartbeat_check_interval should be less than heartbeat_timeout"),
        (!positive("max_connections"), "max_connections must be a positive integer"),
        (!positive("channel_max_queue_size"), "channel_max_queue_size must be a positive integer"),
    ];
    first(faults)
}

fn client(config: &ZendHashTable) -> Validated {
    let seconds =
        |key: &str| value_of(config, key).is_none_or(|value| numeric(value).is_some_and(|number| number >= 1.0 || number.is_nan()));
    let attempts = value_of(config, "max_reconnect_attempts").is_none_or(|value| value.long().is_some_and(|number| number >= 0));
    let faults = [
        (!seconds("heartbeat_interval"), "heartbeat_interval must be >= 1 second"),
        (!seconds("reconnect_interval"), "reconnect_interval must be >= 1 second"),
        (!attempts, "max_reconnect_attempts must be >= 0"),
        (!value_of(config, "auto_reconnect").is_none_or(Zval::is_bool), "auto_reconnect must be a boolean"),
    ];
    first(faults)
}

fn first<const N: usize>(faults: [(bool, &str); N]) -> Validated {
    match faults.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, text)) => Err(text.into()),
        None => Ok(()),
    }
}

/// An IP address without brackets, or what PHP's filter takes for the name of a host.
pub(crate) fn is_host(host: &[u8]) -> bool {
    if std::str::from_utf8(host).is_ok_and(|host| host.parse::<IpAddr>().is_ok()) {
        return true;
    }
    // The filter returns the name, and PHP takes "0" for false.
    if host == b"0" {
        return false;
    }
    let has_dot = host.last() == Some(&b'.');
    let name = host.strip_suffix(b".").unwrap_or(host);
    let labels: Vec<_> = name.split(|byte| *byte == b'.').collect();
    name.len() <= 253
        && labels.iter().enumerate().all(|(number, label)| {
            let is_last = number + 1 == labels.len();
            // A last dash passes PHP's filter when a dot follows it, though the dot ends the name.
            let may_end = |byte: &u8| byte.is_ascii_alphanumeric() || (is_last && has_dot && *byte == b'-');
            label.len() <= 63
                && label.first().is_some_and(u8::is_ascii_alphanumeric)
                && label.last().is_some_and(may_end)
                && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        })
}

fn validate_host(call: &mut Call<'_>) -> Outcome {
    let mut host = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", host)?;
    call.result.set_bool(is_host(php::bytes(host)));
    Ok(())
}

fn validate_port(call: &mut Call<'_>) -> Outcome {
    let mut port = 0i64;
    arguments!(call, c"l", port)?;
    call.result.set_bool((1..=65535).contains(&port));
    Ok(())
}

fn get_recommended_server_config(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    // SAFETY: asks the system for a number.
    let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    *call.result = map([
        ("worker_count", value(processors.max(1))),
        ("heartbeat_timeout", value(60i64)),
        ("heartbeat_check_interval", value(20i64)),
        ("max_connections", value(1_000_000i64)),
        ("channel_max_queue_size", value(1000i64)),
    ]);
    Ok(())
}
