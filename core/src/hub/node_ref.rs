//! The number by which timers, commands and tables mean a node. Owns how it is drawn.

/// Which node of a connection is meant. It is unique among those that are online.
///
/// A node draws one number, which is its own and that of its main channel: a second one would take 16 bytes more of each node, as
/// allocators round. Nobody but [`NodeRef::of_main_channel`] may know that; a node's other channels have numbers that are no node's.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef(u32);

impl NodeRef {
    /// Timers of other kinds have the numbers above, and 0.
    pub const MAX: u32 = u32::MAX - 16;

    /// None of them: the connection itself.
    pub const NONE: Self = Self(0);

    pub fn of_main_channel(channel_id: u32) -> Self {
        Self(channel_id)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }
}
