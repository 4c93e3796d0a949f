//! A WebSocket: from its handshake on, messages in which a protocol is spoken that the handshake has chosen.
//!
//! Owns the handshake's checks, what a peer has sent of a message, pings and closes. What the frames in messages mean is the bus session's
//! within: `heartbus.v2` carries them as they are, `heartbus.json` spells them as JSON. Who names neither speaks Firetower's JSON, which is `of_firetower`'s.

mod of_firetower;

use super::bus::BusSession;
use super::context::{Context, Look, Next};
use super::firetower::client::{FiretowerClient, write_heartbeat};
use crate::hub::budget;
use crate::hub::link::{Answered, Eviction, Link};
use crate::hub::memory::Part;
use crate::hub::replies::Replies;
use crate::hub::wheel::TimerKey;
use crate::hub::{NodeRef, Timer, TimerKind};
use crate::model::{CloseReason, ConnectedBy};
use crate::settings::ServerConfig;
use crate::wire::websocket::deflate::Inflater;
use crate::wire::websocket::handshake::{self, RequestError, UpgradeRequest};
use crate::wire::websocket::{self, CloseCode, Incoming, Limits, Opcode, Received, Violation, WebSocketFront};
use crate::wire::{Frame, Framing, Payload, code, text, v2};
use std::borrow::Cow;
use std::sync::Arc;

/// Frames that a message may be cut into.
const MAX_FRAGMENTS: u32 = 1024;

/// Fragments of so many bytes are no more work than their bytes.
const LONG_FRAGMENT: usize = 16 << 10;

/// Who could not be judged because not everything was read is looked at again after this part of the time.
const UNREAD_PART: u64 = 16;

/// In the query of the path: whose connection it is.
const USER_PARAMETER: &str = "user_id";
const MAX_USER_LEN: usize = 255;

/// The subprotocols in which a bus is spoken.
const SUBPROTOCOLS: [(&str, Framing); 2] = [("heartbus.v2", Framing::WebSocket), ("heartbus.json", Framing::Json)];

pub struct WebSocketSession {
    bus: BusSession,
    incoming: Incoming,
    rest: Option<Box<Rest>>,
    inflating: Option<Box<Inflating>>,
    /// With those who speak Firetower's JSON.
    firetower: Option<Box<FiretowerClient>>,
    /// What is counted of these.
    counted: usize,
    ping: Option<TimerKey>,
    /// When something was read last, in monotonic microseconds.
    heard: u64,
    stage: WebSocketStage,
    deflates: bool,
    awaits_pong: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum WebSocketStage {
    /// The request has not come.
    Handshake,
    Open,
    /// The last frame, or a refusal, was sent.
    Closed,
}

/// What is left of a message whose turn was over.
struct Rest {
    is_text: bool,
    bytes: Vec<u8>,
    done: usize,
}

/// A compressed message that is inflated over several turns.
struct Inflating {
    is_text: bool,
    payload: Vec<u8>,
    inflater: Inflater,
}

impl Inflating {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.payload.capacity() + self.inflater.memory()
    }
}

impl WebSocketSession {
    /// Within which time the request has to come and somebody to register runs already.
    pub(super) fn new(bus: BusSession) -> Self {
        Self {
            bus,
            incoming: Incoming::default(),
            rest: None,
            inflating: None,
            firetower: None,
            counted: 0,
            ping: None,
            heard: 0,
            stage: WebSocketStage::Handshake,
            deflates: false,
            awaits_pong: false,
        }
    }

    pub(super) fn bus(&self) -> &BusSession {
        &self.bus
    }

    pub(super) fn bus_mut(&mut self) -> &mut BusSession {
        &mut self.bus
    }

    fn link(&self) -> &Arc<Link> {
        self.bus.link()
    }

    /// Something is to be written although nothing was read.
    pub(super) fn is_replaying(&self) -> bool {
        self.bus.has_work() || self.firetower.as_ref().is_some_and(|client| client.has_work())
    }

    /// What is kept of messages that are not done with, for the host's sake or that of a turn.
    pub(super) fn refused_len(&self) -> Option<usize> {
        let rest = || self.rest.as_ref().map(|rest| rest.bytes.len() - rest.done);
        self.bus.refused_len().or_else(rest).or_else(|| self.inflating.as_ref().map(|inflating| inflating.payload.len()))
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.counted + self.bus.kept_bytes()
    }

    /// Payloads of frames are unmasked where they are.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, input: &mut [u8]) -> (usize, Next) {
        if !input.is_empty() {
            self.heard = cx.now.mono;
            self.awaits_pong = false;
        }
        let (mut consumed, mut next) = match self.stage {
            WebSocketStage::Handshake => self.shake_hands(cx, input),
            WebSocketStage::Open => (0, self.go_on(cx)),
            WebSocketStage::Closed => (input.len(), Next::Continue),
        };
        while next == Next::Continue && self.stage == WebSocketStage::Open {
            let (len, verdict) = self.frame(cx, &mut input[consumed..]);
            consumed += len;
            next = verdict;
            if len == 0 {
                break;
            }
        }
        self.count();
        (consumed, next)
    }

    /// The frame at the front, if it is whole and the turn allows it.
    fn frame(&mut self, cx: &mut Context<'_>, input: &mut [u8]) -> (usize, Next) {
        let limits = limits(cx.hub.limits());
        let header = match websocket::front(input, self.deflates, &limits) {
            WebSocketFront::Incomplete(_) => return (0, Next::Continue),
            WebSocketFront::Broken(violation) => return (input.len(), self.violate(cx, violation)),
            WebSocketFront::Whole(_) if cx.budget.is_used_up() => return (0, Next::Again),
            WebSocketFront::Whole(header) => header,
        };
        let len = header.len();
        cx.budget.spend(budget::FRAME + budget::BYTE * len as u64 / 4);
        // What completes a message is paid for with it, and long fragments are how browsers send long messages.
        let is_free = !matches!(header.opcode, Opcode::Ping | Opcode::Pong) && (header.is_final || len >= LONG_FRAGMENT);
        let is_free = is_free || self.bus.may_send_more(cx);
        let next = match self.incoming.frame(&header, &mut input[..len], &limits) {
            Ok(Some(Received::Ping(_) | Received::Pong(_))) if !is_free => Next::Continue,
            Ok(Some(received)) => self.received(cx, received),
            Ok(None) => {
                if !is_free {
                    self.incoming.skip();
                }
                Next::Continue
            }
            Err(violation) => self.violate(cx, violation),
        };
        (len, next)
    }

    fn received(&mut self, cx: &mut Context<'_>, received: Received<'_>) -> Next {
        let (is_text, bytes) = match received {
            Received::Text(Cow::Borrowed(text)) => (true, Cow::Borrowed(text.as_bytes())),
            Received::Text(Cow::Owned(text)) => (true, Cow::Owned(text.into_bytes())),
            Received::Binary(bytes) => (false, bytes),
            Received::Compressed { is_text, payload } => {
                let mut inflater = std::mem::take(&mut cx.seldom.inflater);
                inflater.begin();
                return self.inflate(cx, is_text, payload, inflater);
            }
            Received::Skipped if self.firetower.is_some() => return Next::Continue,
            Received::Skipped => return self.within(cx, BusSession::skip_over_limit),
            Received::Ping(payload) => {
                let out = cx.replies.raw();
                websocket::write_header(Opcode::Pong, false, payload.len(), out);
                out.extend_from_slice(payload);
                return Next::Continue;
            }
            Received::Pong(_) => return Next::Continue,
            Received::Close(code, _) => {
                websocket::write_close(code, "", cx.replies.raw());
                self.stage = WebSocketStage::Closed;
                return Next::Close(CloseReason::PeerClosed);
            }
        };
        match self.message(cx, is_text, &bytes) {
            Ok((done, next)) => {
                if done < bytes.len() && matches!(next, Next::Wait | Next::Again | Next::Later) {
                    self.rest = Some(Box::new(Rest { is_text, bytes: bytes.into_owned(), done }));
                }
                next
            }
            Err(violation) => self.violate(cx, violation),
        }
    }

    /// Inflates a message as far as the turn allows: it may be short and long work.
    fn inflate(&mut self, cx: &mut Context<'_>, is_text: bool, payload: Cow<'_, [u8]>, mut inflater: Inflater) -> Next {
        let (max, turn) = (limits(cx.hub.limits()).max_message, &mut *cx.budget);
        let result = inflater.go_on(&payload, max, |bytes| {
            turn.spend(budget::BLOCK + budget::BYTE * bytes as u64);
            !turn.is_used_up()
        });
        if result == Ok(false) {
            self.inflating = Some(Box::new(Inflating { is_text, payload: payload.into_owned(), inflater }));
            return Next::Again;
        }
        let received = result.map_err(Violation::from).and_then(|_| websocket::inflated(is_text, inflater.bytes()));
        let next = match received {
            Ok(received) => self.received(cx, received),
            Err(violation) => self.violate(cx, violation),
        };
        cx.seldom.inflater = inflater;
        next
    }

    /// Goes on with a message that was begun in an earlier turn, if there is one.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Next {
        let next = self.within(cx, BusSession::resume);
        if next != Next::Continue {
            return next;
        }
        if self.firetower.is_some() {
            let next = self.go_on_with_firetower(cx);
            if next != Next::Continue {
                return next;
            }
        }
        if let Some(inflating) = self.inflating.take() {
            let Inflating { is_text, payload, inflater } = *inflating;
            return self.inflate(cx, is_text, payload.into(), inflater);
        }
        let Some(mut rest) = self.rest.take() else { return Next::Continue };
        match self.message(cx, rest.is_text, &rest.bytes[rest.done..]) {
            Ok((done, next)) => {
                rest.done += done;
                if rest.done < rest.bytes.len() && next != Next::Continue {
                    self.rest = Some(rest);
                }
                next
            }
            Err(violation) => self.violate(cx, violation),
        }
    }

    /// How much of a message was done, and how it goes on.
    fn message(&mut self, cx: &mut Context<'_>, is_text: bool, bytes: &[u8]) -> Result<(usize, Next), Violation> {
        if self.firetower.is_some() {
            if self.bus.is_deciding() {
                return Ok(if self.bus.keep_message(cx, bytes) { (bytes.len(), Next::Continue) } else { (0, Next::Wait) });
            }
            let next = self.of_firetower(cx, bytes);
            return Ok((if next == Next::Wait { 0 } else { bytes.len() }, next));
        }
        let (framing, begin) = (self.link().framing(), cx.replies.len());
        if is_text != (framing == Framing::Json) {
            let why = if is_text { "frames come in binary messages" } else { "JSON comes in text messages" };
            return Err(Violation { code: CloseCode::UNSUPPORTED, why });
        }
        let (done, next) = if is_text { self.text(cx, bytes) } else { self.bus.receive(cx, bytes) };
        cx.replies.wrap(begin, framing);
        if done < bytes.len() && next == Next::Continue {
            return Err(Violation { code: CloseCode::PROTOCOL_ERROR, why: "a message that does not end with a frame" });
        }
        Ok((done, next))
    }

    fn text(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> (usize, Next) {
        // It was checked, and is UTF-8.
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let (is_done, next) = match text::parse(text) {
            Ok(message) => {
                let payload = Payload::from(&*message.payload);
                self.bus.take(cx, Frame { frame_type: message.frame_type, channel_id: message.channel_id, payload }, bytes.len())
            }
            Err(error) => (true, self.bus.skip_text(cx, error.0)),
        };
        (if is_done { bytes.len() } else { 0 }, next)
    }

    /// The peer broke a rule: it is told which, and the connection ends.
    #[cold]
    fn violate(&mut self, cx: &mut Context<'_>, violation: Violation) -> Next {
        cx.counters.websocket_violations.up();
        cx.connection_log.failed(&violation.why, self.link(), cx.now);
        websocket::write_close(Some(violation.code), violation.why, cx.replies.raw());
        self.stage = WebSocketStage::Closed;
        if violation.code == CloseCode::TOO_LONG {
            cx.counters.frames_too_long.up();
            return Next::Close(CloseReason::FrameTooLong);
        }
        Next::Close(CloseReason::BrokenStream)
    }

    fn shake_hands(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Next) {
        let (request, len) = match handshake::parse(input) {
            Ok(None) => return (0, Next::Continue),
            Ok(Some(found)) => found,
            Err(error) => return (input.len(), self.refuse(cx, error)),
        };
        let framing = match choose(&request, cx.hub.limits()) {
            Ok(framing) => framing,
            Err(error) => return (input.len(), self.refuse(cx, error)),
        };
        let allows = cx.hub.limits().websocket_compression;
        self.deflates = allows && request.deflate.is_some();
        let subprotocol = SUBPROTOCOLS.iter().find(|(_, spoken)| *spoken == framing).map(|(name, _)| *name);
        cx.replies.raw().extend_from_slice(request.accept(subprotocol, allows).as_bytes());
        cx.counters.websockets.up();
        self.link().set_framing(framing);
        if framing == Framing::Firetower {
            let client = self.firetower.insert(Box::default());
            if let Some(user) = request.query(USER_PARAMETER).filter(|user| user.len() <= MAX_USER_LEN) {
                client.belongs_to(cx, self.bus.link(), &user);
            }
            self.bus.needs_nobody(cx);
        }
        self.bus.begin(cx, ConnectedBy::WebSocket);
        self.stage = WebSocketStage::Open;
        let deadline = cx.now.mono + cx.hub.heartbeat_timeout();
        self.ping = Some(cx.wheel.insert(deadline, Timer::new(self.link().slot(), TimerKind::Ping)));
        (len, Next::Continue)
    }

    #[cold]
    fn refuse(&mut self, cx: &mut Context<'_>, error: RequestError) -> Next {
        cx.counters.websockets_refused.up();
        cx.connection_log.failed(&error.why, self.link(), cx.now);
        cx.replies.raw().extend_from_slice(error.answer().as_bytes());
        self.stage = WebSocketStage::Closed;
        Next::Close(CloseReason::BrokenStream)
    }

    pub(super) fn node_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, node: NodeRef, look: Look) -> Next {
        self.within(cx, |bus, cx| bus.node_timer(cx, timer, node, look))
    }

    pub(super) fn register_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, look: Look) -> Next {
        let next = self.within(cx, |bus, cx| bus.register_timer(cx, timer, look));
        if matches!(next, Next::Close(_)) && self.stage == WebSocketStage::Handshake {
            cx.counters.websockets_refused.up();
            cx.replies.raw().extend_from_slice(RequestError::TOO_LATE.answer().as_bytes());
            self.stage = WebSocketStage::Closed;
        }
        next
    }

    pub(super) fn evict(&mut self, cx: &mut Context<'_>, eviction: Eviction) -> Next {
        self.within(cx, |bus, cx| bus.evict(cx, eviction))
    }

    pub(super) fn decide(&mut self, cx: &mut Context<'_>, answered: Answered) -> Option<Next> {
        self.within(cx, |bus, cx| bus.decide(cx, answered))
    }

    pub(super) fn decision_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey) -> Option<Next> {
        self.within(cx, |bus, cx| bus.decision_timer(cx, timer))
    }

    /// What the bus session answers meanwhile stands in messages.
    fn within<T>(&mut self, cx: &mut Context<'_>, work: impl FnOnce(&mut BusSession, &mut Context<'_>) -> T) -> T {
        let begin = cx.replies.len();
        let done = work(&mut self.bus, cx);
        cx.replies.wrap(begin, self.link().framing());
        done
    }

    /// The peer has been silent for a while: it is asked whether it is there, and has as long to answer.
    pub(super) fn ping_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, look: Look) -> Next {
        if self.ping != Some(timer) || !cx.wheel.has_fired(timer) {
            return Next::Continue;
        }
        let time = cx.hub.heartbeat_timeout();
        if self.firetower.is_some() && look == Look::NotYet {
            // Whether or not something was heard.
            write_heartbeat(cx.replies.raw());
        }
        let deadline = match look {
            Look::NotYet if self.firetower.is_some() && cx.now.mono < self.heard + time => cx.now.mono + time,
            _ if cx.now.mono < self.heard + time => self.heard + time,
            Look::NotYet if !self.awaits_pong => {
                self.awaits_pong = true;
                websocket::write_header(Opcode::Ping, false, 0, cx.replies.raw());
                cx.now.mono + time
            }
            Look::NotYet => return Next::Look,
            Look::Stopped => cx.now.mono + time,
            Look::Unread => cx.now.mono + time / UNREAD_PART,
            Look::Empty if !self.awaits_pong => cx.now.mono + time,
            Look::Empty => {
                cx.wheel.remove(timer);
                self.ping = None;
                cx.counters.websocket_ping_timeouts.up();
                return Next::Close(CloseReason::HeartbeatTimeout);
            }
        };
        cx.wheel.rearm(timer, deadline);
        Next::Continue
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Next {
        if let Some(timer) = self.ping.take() {
            cx.wheel.remove(timer);
        }
        (self.incoming, self.rest, self.inflating) = (Incoming::default(), None, None);
        if let Some(client) = &mut self.firetower
            && client.end(cx, self.bus.link()) == Next::Again
        {
            return Next::Again;
        }
        self.count();
        self.bus.close_of(cx, reason, self.firetower.as_ref().and_then(|client| client.user()))
    }

    /// The server stops: within which time to come back.
    pub(super) fn say_that_we_stop(&self, replies: &mut Replies, window_ms: u32) {
        match self.stage {
            WebSocketStage::Handshake => replies.raw().extend_from_slice(RequestError::STOPPING.answer().as_bytes()),
            // Firetower's clients are told nothing, and closed without a word.
            WebSocketStage::Open if self.firetower.is_some() => {}
            WebSocketStage::Open => {
                let begin = replies.len();
                replies.speak(self.link().dialect());
                replies.shutting_down(window_ms);
                replies.wrap(begin, self.link().framing());
            }
            WebSocketStage::Closed => {}
        }
    }

    /// Why it ends, in the last frame, unless there was one.
    pub(super) fn write_close(&self, replies: &mut Replies, reason: CloseReason) {
        if self.stage == WebSocketStage::Open && self.firetower.is_none() {
            websocket::write_close(Some(close_code(reason)), reason.as_str(), replies.raw());
        }
    }

    /// Counts what is kept now.
    fn count(&mut self) {
        let work = self.firetower.as_ref().map_or(0, |client| client.kept_bytes());
        let inflating = self.inflating.as_ref().map_or(0, |inflating| inflating.memory());
        let rest = self.rest.as_ref().map_or(0, |rest| size_of::<Rest>() + rest.bytes.capacity());
        let kept = self.incoming.bytes() + work + inflating + rest;
        self.link().memory().change(Part::Input, self.counted, kept);
        self.counted = kept;
    }
}

impl Drop for WebSocketSession {
    fn drop(&mut self) {
        self.link().memory().remove(Part::Input, self.counted);
    }
}

fn limits(config: &ServerConfig) -> Limits {
    Limits { max_message: config.max_frame_bytes as usize + v2::HEADER_LEN, max_fragments: MAX_FRAGMENTS }
}

/// What is spoken, unless nobody may come like this.
fn choose(request: &UpgradeRequest<'_>, config: &ServerConfig) -> Result<Framing, RequestError> {
    if config.websocket_path.as_deref().is_some_and(|path| path != request.path_only()) {
        return Err(RequestError::NOT_FOUND);
    }
    // Who names no origin is no browser, and could name any.
    let is_allowed = |origin: &str| config.websocket_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    if !config.websocket_origins.is_empty() && request.origin.is_some_and(|origin| !is_allowed(origin)) {
        return Err(RequestError::FORBIDDEN);
    }
    let spoken = |wanted: &&str| SUBPROTOCOLS.iter().find(|(name, _)| name == wanted).map(|(_, framing)| *framing);
    Ok(request.subprotocols.iter().find_map(spoken).unwrap_or(Framing::Firetower))
}

/// By which a program in a browser knows what to do next: 4000 and the error code where there is one.
fn close_code(reason: CloseReason) -> CloseCode {
    let of_error = |code: u16| CloseCode(4000 + code);
    match reason {
        CloseReason::ServerStopped => CloseCode::GOING_AWAY,
        CloseReason::ServerFull => CloseCode::TRY_AGAIN_LATER,
        CloseReason::FrameTooLong => CloseCode::TOO_LONG,
        CloseReason::BrokenStream => CloseCode::PROTOCOL_ERROR,
        CloseReason::SlowConsumer => CloseCode::POLICY,
        CloseReason::Failed => CloseCode::INTERNAL,
        CloseReason::RegisterTimeout | CloseReason::HeartbeatTimeout => of_error(code::NODE_TIMED_OUT),
        CloseReason::Replaced => of_error(code::REPLACED),
        CloseReason::NotAuthenticated => of_error(code::NOT_AUTHENTICATED),
        CloseReason::Kicked | CloseReason::NotAllowed => of_error(code::NOT_ALLOWED),
        _ => CloseCode::NORMAL,
    }
}
