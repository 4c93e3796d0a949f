//! `PfinalClub\AsyncioHeartbeat\Utils\RateLimiter`: token buckets by key, for PHP callers. The engine has its own.

use super::state::{Field, Table, bytes, to_string};
use crate::arguments;
use crate::clock::monotonic;
use crate::declare::Declare;
use crate::php::{self, Call, Outcome, map, value};
use crate::ranges;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;

const BUCKETS: Field = Field::new(0, c"buckets");
const CAPACITY: Field = Field::new(1, c"capacity");
const REFILL_RATE: Field = Field::new(2, c"refillRate");

const TOKENS: &[u8] = b"tokens";
const LAST_REFILL: &[u8] = b"last_refill";

pub(super) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Utils\RateLimiter")
        .declare("__construct(int $capacity = 100, float $refillRate = 10.0)", construct)
        .declare("allow(string $key, int $tokens = 1): bool", allow)
        .declare("reset(string $key): void", reset)
        .declare("clear(): void", clear)
        .declare("getTokens(string $key): float", get_tokens)
        .declare("cleanup(float $ttl = 300.0): int", cleanup)
        .declare("getStats(): array", get_stats)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            BUCKETS.declare(class, "array", Some(value(ZendEmptyArray)));
            CAPACITY.declare(class, "int", None);
            REFILL_RATE.declare(class, "float", None);
        })
        .register()
}

/// A number of tokens: PHP's own, an integer until a refill makes it a float.
#[derive(Copy, Clone)]
enum Tokens {
    Whole(i64),
    Part(f64),
}

impl Tokens {
    fn of(value: Option<Zval>) -> Self {
        match value.as_ref().and_then(Zval::long) {
            Some(whole) => Self::Whole(whole),
            None => Self::Part(value.and_then(|value| value.double()).unwrap_or_default()),
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Part(part) => part,
        }
    }

    fn zval(self) -> Zval {
        match self {
            Self::Whole(whole) => value(whole),
            Self::Part(part) => value(part),
        }
    }

    fn plus(self, more: Self) -> Self {
        match (self, more) {
            (Self::Whole(a), Self::Whole(b)) => a.checked_add(b).map_or(Self::Part(a as f64 + b as f64), Tokens::Whole),
            (a, b) => Self::Part(a.float() + b.float()),
        }
    }

    fn minus(self, fewer: i64) -> Self {
        match self {
            Self::Whole(whole) => whole.checked_sub(fewer).map_or(Self::Part(whole as f64 - fewer as f64), Tokens::Whole),
            Self::Part(part) => Self::Part(part - fewer as f64),
        }
    }

    fn refilled(self, more: f64, capacity: i64) -> Self {
        let full = self.float() + more;
        if capacity as f64 <= full { Self::Whole(capacity) } else { Self::Part(full) }
    }
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut capacity, mut refill_rate) = (100i64, 10f64);
    arguments!(call, c"|ld", capacity, refill_rate)?;
    ranges::finite("RateLimiter: refillRate", refill_rate)?;
    let this = call.this();
    CAPACITY.set(this, value(capacity));
    REFILL_RATE.set(this, value(refill_rate));
    Ok(())
}

fn fill(limiter: *mut zend_object, bucket: Table, now: f64) {
    bucket.set(TOKENS, value(CAPACITY.int(limiter)));
    bucket.set(LAST_REFILL, value(now));
}

fn allow(call: &mut Call<'_>) -> Outcome {
    let (mut key, mut wanted) = (ptr::null_mut::<zend_string>(), 1i64);
    arguments!(call, c"S|l", key, wanted)?;
    let (this, now) = (call.this(), monotonic());
    CAPACITY.require(this)?;
    let bucket = BUCKETS.table(this).open(php::bytes(key));
    if bucket.is_empty() {
        fill(this, bucket, now);
    }
    let mut tokens = Tokens::of(bucket.get(TOKENS));
    let more = (now - last_refill(bucket)) * REFILL_RATE.float(this);
    if more > 0.0 {
        tokens = tokens.refilled(more, CAPACITY.int(this));
    }
    // Also one from another machine, where more time had passed.
    bucket.set(LAST_REFILL, value(now));
    let allowed = tokens.float() >= wanted as f64;
    bucket.set(TOKENS, if allowed { tokens.minus(wanted) } else { tokens }.zval());
    call.result.set_bool(allowed);
    Ok(())
}

fn last_refill(bucket: Table) -> f64 {
    bucket.get(LAST_REFILL).and_then(|time| time.double()).unwrap_or_default()
}

fn reset(call: &mut Call<'_>) -> Outcome {
    let mut key = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", key)?;
    let this = call.this();
    let buckets = BUCKETS.table(this);
    if buckets.get(php::bytes(key)).is_some() {
        fill(this, buckets.open(php::bytes(key)), monotonic());
    }
    Ok(())
}

fn clear(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    BUCKETS.set(call.this(), value(ZendEmptyArray));
    Ok(())
}

fn get_tokens(call: &mut Call<'_>) -> Outcome {
    let mut key = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", key)?;
    let this = call.this();
    CAPACITY.require(this)?;
    let (buckets, capacity) = (BUCKETS.table(this), CAPACITY.int(this));
    let tokens = match buckets.get(php::bytes(key)) {
        None => capacity as f64,
        Some(_) => {
            let bucket = buckets.open(php::bytes(key));
            let more = (monotonic() - last_refill(bucket)).max(0.0) * REFILL_RATE.float(this);
            Tokens::of(bucket.get(TOKENS)).refilled(more, capacity).float()
        }
    };
    call.result.set_double(tokens);
    Ok(())
}

fn cleanup(call: &mut Call<'_>) -> Outcome {
    let mut ttl = 300f64;
    arguments!(call, c"|d", ttl)?;
    ranges::finite("cleanup(): ttl", ttl)?;
    let (buckets, now) = (BUCKETS.table(call.this()), monotonic());
    let mut cleaned = 0;
    for (key, mut bucket) in buckets.entries() {
        if bucket.is_array() && now - last_refill(Table::of(&mut bucket)) > ttl {
            buckets.remove(bytes(&to_string(&key)?));
            cleaned += 1;
        }
    }
    call.result.set_long(cleaned);
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    CAPACITY.require(this)?;
    let buckets = BUCKETS.table(this);
    let count = buckets.len();
    let mut total = Tokens::Whole(0);
    for mut bucket in buckets.values().into_iter().filter(Zval::is_array) {
        total = total.plus(Tokens::of(Table::of(&mut bucket).get(TOKENS)));
    }
    let average = match total {
        _ if count == 0 => Tokens::Whole(0),
        Tokens::Whole(whole) if whole % count == 0 => Tokens::Whole(whole / count),
        total => Tokens::Part(total.float() / count as f64),
    };
    *call.result = map([
        ("active_buckets", value(count)),
        ("total_tokens", total.zval()),
        ("capacity_per_bucket", value(CAPACITY.int(this))),
        ("refill_rate", value(REFILL_RATE.float(this))),
        ("avg_tokens", average.zval()),
    ]);
    Ok(())
}
