//! Numbers among the arguments of a call: what is no number, or beyond all measure, is refused with the argument's name.
//!
//! PHP's own parser lets NAN, INF and 1e300 through wherever a float may stand.

use crate::exception;
use crate::php::Outcome;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::settings::YEAR;
use heartbus_core::wire::php_json::write_f64;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest time that is taken, in seconds: thirty years, which people write for "never". The engine takes a year for as long.
pub(crate) const LONGEST: f64 = 1e9;

/// Shortest time that the engine measures, in seconds.
pub(crate) const SHORTEST: f64 = 0.001;

/// A time in seconds. `what` names the call and the argument: `poll(): timeout`.
pub(crate) fn seconds(what: &str, given: f64, range: RangeInclusive<f64>) -> Outcome<Duration> {
    timeout(what, given, range).map_err(|error| exception::raise(&error))
}

/// A time for the engine.
pub(crate) fn measured(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(SHORTEST, LONGEST)).min(YEAR)
}

/// As [`seconds`], where an exception has to wait.
pub(crate) fn timeout(what: &str, given: f64, range: RangeInclusive<f64>) -> Result<Duration, Error> {
    if range.contains(&given) {
        return Ok(Duration::from_secs_f64(given));
    }
    let [least, most, given] = [*range.start(), *range.end(), given].map(shown);
    Err(Error::new(ErrorKind::InvalidArgument, format!("{what} must be a number of seconds from {least} to {most}, {given} given")))
}

/// For numbers of which the PHP library allows more than makes sense.
pub(crate) fn finite(what: &str, given: f64) -> Outcome<f64> {
    if given.is_finite() {
        Ok(given)
    } else {
        Err(exception::invalid_argument(&format!("{what} must be a number, {} given", shown(given))))
    }
}

/// As PHP writes it.
fn shown(number: f64) -> String {
    if number.is_nan() {
        return "NAN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    let mut text = String::new();
    write_f64(&mut text, number);
    text
}
