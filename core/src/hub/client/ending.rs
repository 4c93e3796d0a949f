//! How a client's connections end: by whom, with what reason, and when the next one is tried.

use super::backoff::{MAX_WAIT_US, MIN_WAIT_US, backoff};
use super::outbox::ClientOutbox;
use super::{ClientMachine, ClientState, OpenConnection, SECOND, SocketEnd};
use crate::hub::Now;
use crate::model::{ClientEvent, CloseReason};
use crate::settings::micros;
use crate::wire::FrameType;
use bytes::BytesMut;

/// How long a disconnecting client may take to write what waits.
const FLUSH_TIME_US: u64 = SECOND;

impl ClientMachine {
    /// The socket is closed, by whichever side.
    pub fn handle_closed(&mut self, end: SocketEnd, now: Now) {
        let (reason, detail) = match (&mut self.state, end) {
            (ClientState::HangingUp { reason, detail }, _) => (*reason, std::mem::take(detail)),
            (ClientState::Flushing { .. }, _) => (CloseReason::Disconnected, String::new()),
            (ClientState::Open(OpenConnection { last_words: Some(words), .. }), _) => {
                std::mem::replace(words, (CloseReason::Failed, String::new()))
            }
            // Whoever writes to a connection that was reset hears of it, and reading then finds nothing but its end.
            (ClientState::Open(OpenConnection { lost: Some(detail), .. }), _) => (CloseReason::IoError, std::mem::take(detail)),
            (ClientState::Open(_), SocketEnd::Closed) => (CloseReason::PeerClosed, String::new()),
            (ClientState::Open(_), SocketEnd::Lost(detail)) => (CloseReason::IoError, detail),
            _ => return,
        };
        self.end_connection(reason, detail, now);
    }

    /// Something in here failed that should not. What there was of a connection is over; the next one begins anew.
    pub fn handle_failure(&mut self, detail: String, now: Now) {
        match &mut self.state {
            ClientState::Finished => {}
            ClientState::Waiting { until } => *until = now.mono + MAX_WAIT_US,
            _ => self.end_connection(CloseReason::Failed, detail, now),
        }
    }

    /// Says goodbye and does not come back. What the server still sends is not told any more.
    pub fn disconnect(&mut self, now: Now) {
        self.leaving = true;
        self.stop_reading();
        match &self.state {
            ClientState::Open(connection) => {
                if !connection.is_mute {
                    self.outbox.push_control(connection.dialect, FrameType::UNREGISTER, 0, b"");
                }
                self.state = ClientState::Flushing { until: now.mono + FLUSH_TIME_US };
            }
            ClientState::Dialing { .. } => self.end_connection(CloseReason::Disconnected, String::new(), now),
            ClientState::Waiting { .. } => self.finish(),
            ClientState::Flushing { .. } | ClientState::HangingUp { .. } | ClientState::Finished => {}
        }
    }

    /// All clients together keep more than they may, and this one keeps most.
    pub fn keeps_too_much(&mut self) {
        if matches!(self.state, ClientState::Open(_)) {
            self.stop_reading();
            self.hang_up(CloseReason::SlowConsumer, "All clients together keep too much, and this one keeps most".into());
        }
    }

    pub(super) fn hang_up(&mut self, reason: CloseReason, detail: String) {
        self.state = ClientState::HangingUp { reason, detail };
        self.outbox = ClientOutbox::default();
    }

    pub(super) fn stop_reading(&mut self) {
        self.input = BytesMut::new();
        self.take_back();
        self.stalled = None;
        self.paused = false;
    }

    pub(super) fn end_connection(&mut self, reason: CloseReason, detail: String, now: Now) {
        self.stop_reading();
        self.outbox = ClientOutbox::default();
        if let Some(topics) = &mut self.topics {
            topics.stop();
        }
        self.client_log.closed(self.id, reason, &detail, now);
        self.events.push_back(ClientEvent::Close { reason, detail });
        let is_empty = self.others.as_ref().is_some_and(|others| others.len() == 0);
        if self.leaving || is_empty || !self.settings.auto_reconnect {
            return self.finish();
        }
        let max = self.settings.max_reconnect_attempts;
        if max > 0 && self.attempts >= max {
            self.client_log.gave_up(self.id, now);
            return self.finish();
        }
        self.attempts = self.attempts.saturating_add(1);
        let wait = self.time_to_wait(now);
        self.client_log.scheduled(self.id, self.attempts, wait, now);
        self.state = ClientState::Waiting { until: now.mono + wait };
    }

    /// A server that goes away knows best when to come back; but one that does so again and again is not one to be trusted with
    /// that.
    fn time_to_wait(&mut self, now: Now) -> u64 {
        let base = micros(self.settings.reconnect_interval);
        let Some(window) = self.window.take() else {
            return backoff(base, self.attempts, &mut self.random);
        };
        let has_lived = matches!(&self.state, ClientState::Open(connection) if now.mono - connection.since >= MAX_WAIT_US);
        self.goaways = if has_lived { 1 } else { self.goaways.saturating_add(1) };
        let spread = self.random.u64(0..=window.min(MAX_WAIT_US)).max(MIN_WAIT_US);
        match self.goaways {
            1 if window > 0 => spread,
            times => spread.max(backoff(base, times.max(self.attempts), &mut self.random)),
        }
    }

    pub(super) fn finish(&mut self) {
        self.state = ClientState::Finished;
        self.events.push_back(ClientEvent::Finished);
    }
}
