//! What one turn of a connection may cost, and what things cost.
//!
//! Owns the prices. They are in about nanoseconds of a processor of today, taken from measurements and rounded up, so that a budget
//! says how long a thread is kept; nothing is measured while it is spent, so the same bytes always end a turn at the same place.

/// A turn: short enough that a hundred connections which use theirs up hold nobody up for long.
pub const TURN: u64 = 100_000;
/// What is shared by all that are ready at once. Where they are many, each gets less than [`TURN`].
const ROUND: u64 = 10_000_000;
const LEAST_TURN: u64 = 20_000;

/// A frame, whatever is in it.
pub(super) const FRAME: u64 = 200;
/// A byte of a frame: decoded, and copied for the host.
pub(super) const BYTE: u64 = 2;
/// A block of a compressed message, whatever is in it: tables to make.
pub(super) const BLOCK: u64 = 2_000;
/// A registration: an id to keep, entries in two tables and in the wheel.
pub(super) const REGISTRATION: u64 = 5_000;
/// A node that leaves.
pub const DEPARTURE: u64 = 2_000;
/// A node that is looked at.
pub const NODE: u64 = 100;
/// A frame that is queued for a node, whatever it holds.
pub const DELIVERY: u64 = 300;
/// A subscription that comes or goes: entries in the server's tables and the thread's.
pub(super) const SUBSCRIPTION: u64 = 1_000;
/// A level of the filters is looked at for a publication.
pub const LEVEL: u64 = 200;
/// One write to a socket.
pub const WRITE: u64 = 7_000;
/// An event of state that the host is told.
pub(super) const EVENT: u64 = 200;
/// One read of a socket.
pub const READ: u64 = 2_000;

/// A longer frame is more than a turn by itself. It waits until those who want less have had theirs.
pub const LONG_FRAME: usize = (TURN / BYTE) as usize;

/// What is left of a turn.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
    /// Frames above [`LONG_FRAME`] that may be handled.
    long_frames: u32,
}

impl Budget {
    /// The turn of one of `ready` connections that have something to say.
    pub fn share(ready: usize) -> Self {
        Self::of((ROUND / ready.max(1) as u64).clamp(LEAST_TURN, TURN))
    }

    /// The turn of a connection whose next frame is a long one.
    pub fn long() -> Self {
        Self { left: TURN, long_frames: 1 }
    }

    pub fn of(left: u64) -> Self {
        Self { left, long_frames: 0 }
    }

    /// Everything at once, for who cannot come back.
    pub fn unlimited() -> Self {
        Self { left: u64::MAX, long_frames: u32::MAX }
    }

    #[inline]
    pub fn spend(&mut self, cost: u64) {
        self.left = self.left.saturating_sub(cost);
    }

    /// The bytes of one read that were taken over, most of which is copying.
    pub fn spend_read(&mut self, bytes: usize) {
        self.spend(READ + bytes as u64 / 2);
    }

    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Whether a frame of that length may be handled now.
    #[inline]
    pub(super) fn admits(&mut self, len: usize) -> bool {
        len <= LONG_FRAME || self.admits_long()
    }

    fn admits_long(&mut self) -> bool {
        let is_admitted = self.long_frames > 0;
        self.long_frames = self.long_frames.saturating_sub(1);
        is_admitted
    }
}
