//! What time it is, for those who have no clock.

/// A reading of the clocks, taken once per batch of work and passed down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds of a clock that never goes back, from any origin above 0. Decides everything.
    pub mono: u64,
    /// Microseconds since 1970. Only shown, never decided upon: it may jump.
    pub unix: u64,
}

impl Now {
    /// The Unix time, in seconds, of a moment of the monotonic clock.
    pub fn unix_seconds_of(self, mono: u64) -> f64 {
        (self.unix as i64 - (self.mono as i64 - mono as i64)) as f64 / 1e6
    }
}
