//! Who is let in at the doors of an I/O thread.
//!
//! Owns what is said to who is not. Whether the server has room for one more connection is [`crate::net::shared`]'s business.

use super::super::connection::{Connection, Phase};
use super::super::door::{Door, Spoken};
use super::super::transport::Transport;
use super::IoThread;
use super::ending::ENDING_TIME_US;
use crate::hub::link::CommandSink;
use crate::hub::{Link, Next, Session, Timer, TimerKind};
use crate::model::{CloseReason, EventMask};
use crate::wire::Dialect;
use mio::Token;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

const ACCEPTS_PER_PASS: usize = 256;
/// Connections refused at the door that may wait for their peer at the same time; more are closed at once.
const MAX_ENDING_REFUSED: usize = 32;

impl IoThread {
    pub(super) fn somebody_knocks(&self) -> bool {
        !self.accept_paused && self.doors.iter().any(|door| door.is_ready)
    }

    /// Lets in who knocks, at each door as many as one pass may.
    pub(super) fn accept(&mut self) {
        for door in 0..self.doors.len() {
            self.accept_at(door);
        }
    }

    fn accept_at(&mut self, door: usize) {
        for _ in 0..ACCEPTS_PER_PASS {
            if self.accept_paused || !self.doors[door].is_ready {
                return;
            }
            if self.shared.hub.is_crowded(EventMask::CONNECT | EventMask::CLOSE, None) {
                // The host is told of every connection, and has no room: whoever wants in waits in the kernel's queue.
                self.accept_paused = true;
                return;
            }
            match self.doors[door].accept() {
                Ok((transport, peer)) => self.welcome(transport, peer, self.doors[door].spoken),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.doors[door].is_ready = false;
                        return;
                    }
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        // No descriptor or memory is left. Nothing spins: the next tick tries again, and whoever wants in
                        // waits in the kernel's queue.
                        self.accept_paused = true;
                        self.state.counters.accept_pauses.up();
                        if self.shared.may_warn_of_accept(self.state.now) {
                            tracing::warn!(%error, "Cannot accept connections, trying again");
                        }
                        return;
                    }
                },
            }
        }
    }

    fn welcome(&mut self, mut transport: Transport, peer: SocketAddr, spoken: Spoken) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.state.counters.connections_total.up();
        let admission = self.shared.admit(peer.ip());
        if admission == Err(CloseReason::NotAllowed) {
            self.state.counters.connections_denied.up();
            self.state.connection_log.connection_refused(peer, CloseReason::NotAllowed, self.state.now);
            return;
        }
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        let sink: Arc<dyn CommandSink> = self.mailbox.clone();
        let link = Arc::new(Link::new(self.shared.hub.next_connection_id(), peer, slot as u32, sink));
        if transport.register(&self.registry, Token(slot)).is_err() {
            if admission.is_ok() {
                self.shared.leave(peer.ip());
            }
            self.state.counters.connections_rejected.up();
            self.state.connection_log.connection_refused(peer, CloseReason::IoError, self.state.now);
            return;
        }
        if let Err(reason) = admission {
            self.state.counters.connections_rejected.up();
            self.state.replies.speak(Dialect::V1);
            self.state.connection_log.connection_refused(peer, reason, self.state.now);
            match spoken {
                Spoken::WebSocket => self.state.replies.refuse_websocket(reason),
                Spoken::Firetower => self.state.replies.refuse_gateway(reason),
                Spoken::Bus if reason == CloseReason::ServerStopped => self.state.replies.shutting_down(0),
                Spoken::Bus => self.state.replies.server_full(),
            }
            if self.ending_refused >= MAX_ENDING_REFUSED {
                // Nothing can be kept for it: what one write does not take is lost with the connection.
                let _ = transport.send(self.state.replies.bytes());
                self.state.replies.clear();
                return;
            }
            self.ending_refused += 1;
            let timer = self.state.wheel.insert(self.state.now.mono + ENDING_TIME_US, Timer::new(slot as u32, TimerKind::Ending));
            entry.insert(Connection::new(transport, Phase::Ending { link, timer: Some(timer) }, false));
            self.respond(slot, Next::Continue);
            return self.flush(slot);
        }
        self.state.connection_log.connection_established(link.connection_id(), peer, self.state.now);
        let cx = &mut self.state.context(&self.shared.hub);
        let session = match spoken {
            Spoken::Bus => Session::open(link, cx),
            Spoken::WebSocket => Session::open_websocket(link, cx),
            Spoken::Firetower => Session::open_gateway(link, cx),
        };
        if spoken == Spoken::Firetower {
            transport.notice_loss_within(self.shared.hub.heartbeat_timeout());
        }
        entry.insert(Connection::new(transport, Phase::Open(session), true));
    }

    /// Lets in who knocked already, and nobody after them.
    pub(super) fn close_doors(&mut self) {
        self.accept_paused = false;
        self.doors.iter_mut().for_each(|door| door.is_ready = true);
        while self.somebody_knocks() {
            self.accept();
        }
        self.doors.drain(..).for_each(Door::close);
    }
}
