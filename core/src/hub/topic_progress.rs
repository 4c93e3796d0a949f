//! How far a topic has come for one who follows it by its name, over several connections.
//!
//! Owns the position, behind which it goes on after a reconnect: nothing is told twice, and what is missing is told as missing. Does not
//! know who follows, nor how it is asked for.

use crate::model::Position;

#[derive(Debug, Default)]
pub(crate) struct TopicProgress {
    /// Of the last message that was told, or behind which its host wants to go on; `None` before the first answer.
    position: Option<Position>,
    /// It was told that something is missing in front of the next message.
    may_jump: bool,
    /// Of the last message that was told although the topic had begun behind it: it was under way through a filter, or because the server
    /// had put the node into the topic. There are no more of these at [`NONE_UNDER_WAY`].
    under_way: u64,
}

const NONE_UNDER_WAY: u64 = u64::MAX;

/// What becomes of a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageOutcome {
    Tell,
    /// What was in front of it is missing, which is told first.
    TellGap,
    /// It was told before, comes again with what was kept, or nobody wants it any more.
    Drop,
}

impl TopicProgress {
    pub(crate) fn behind(since: Option<Position>) -> Self {
        Self { position: since, ..Self::default() }
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// The server has said where the topic stands, and whether everything comes that was asked for. Whether that is so.
    pub(crate) fn begin(&mut self, newest: Position, recovered: bool) -> bool {
        let all_there_is = Position { offset: 0, epoch: newest.epoch };
        if self.position.is_some() {
            // Whatever was under way comes again.
            self.under_way = NONE_UNDER_WAY;
        }
        let (position, recovered) = match self.position {
            None => (newest, recovered),
            Some(Position { offset: 0, epoch: 0 }) => (all_there_is, recovered),
            // It counts otherwise now: what is kept is all new.
            Some(asked) if asked.epoch != newest.epoch || asked.offset > newest.offset => (all_there_is, false),
            Some(asked) => (asked, recovered),
        };
        (self.position, self.may_jump) = (Some(position), !recovered);
        recovered
    }

    pub(crate) fn receive(&mut self, position: Position) -> MessageOutcome {
        let is_next = match self.position {
            Some(last) if last.epoch == position.epoch && position.offset <= last.offset => return self.receive_under_way(position),
            Some(last) => last.epoch == position.epoch && position.offset == last.offset + 1,
            None => true,
        };
        (self.position, self.under_way) = (Some(position), NONE_UNDER_WAY);
        if std::mem::take(&mut self.may_jump) || is_next { MessageOutcome::Tell } else { MessageOutcome::TellGap }
    }

    /// A message in front of which the topic had begun already: nobody else tells it.
    fn receive_under_way(&mut self, position: Position) -> MessageOutcome {
        if position.offset <= self.under_way {
            return MessageOutcome::Drop;
        }
        self.under_way = position.offset;
        MessageOutcome::Tell
    }

    /// It was told that something may be missing in front of the next message.
    pub(crate) fn may_jump(&mut self) {
        self.may_jump = true;
    }

    /// The connection is over. Nothing of it is under way any more, unless where there is a position to go on from.
    pub(crate) fn pause(&mut self) {
        self.under_way = if self.position.is_some() { self.under_way } else { 0 };
    }

    /// A message was to be told and is not: it has to come again.
    pub(crate) fn take_back(&mut self, position: Position) {
        let is_last_under_way = self.under_way == position.offset && self.position.is_some_and(|own| own.epoch == position.epoch);
        if self.position == Some(position) || is_last_under_way {
            self.position = Some(Position { offset: position.offset.saturating_sub(1), ..position });
        }
    }
}
