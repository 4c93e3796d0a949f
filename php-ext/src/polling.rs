//! `poll()` and `getEventStream()`, which servers and clients have in common: one turn of all that runs in this process, and the stream
//! that says when one is due.

use crate::arguments;
use crate::php::{Call, Outcome};
use crate::ranges::{self, LONGEST};
use crate::runtime::Runtime;

pub(crate) fn poll(call: &mut Call<'_>) -> Outcome {
    let mut timeout = 0f64;
    arguments!(call, c"|d", timeout)?;
    let timeout = ranges::seconds("poll(): timeout", timeout, 0.0..=LONGEST)?;
    call.result.set_long(Runtime::current().poll(timeout)? as i64);
    Ok(())
}

pub(crate) fn get_event_stream(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let runtime = Runtime::current();
    runtime.adopt_waiting()?;
    *call.result = runtime.stream()?;
    Ok(())
}
