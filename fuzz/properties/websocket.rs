//! What must hold for any bytes given to the server's side of WebSocket. Shared by the fuzz target and by the test that replays its
//! corpus.

use crate::work::bounded;
use heartbus_core::wire::websocket::deflate::Inflater;
use heartbus_core::wire::websocket::{CloseCode, Incoming, Limits, Received, WebSocketFront, front, handshake, inflated};
use std::hash::{DefaultHasher, Hash, Hasher};

const LIMITS: Limits = Limits { max_message: 4096, max_fragments: 8 };

/// What an inflater has, and one message.
const INFLATER: usize = 64 * 1024;

/// A message in fragments lies in a block that had room for more; of what is told a number is kept.
const MEMORY_EACH: u64 = 16;

/// Panics if a property is violated.
pub(crate) fn check(input: &[u8]) {
    check_handshake(input);
    // The first byte decides whether compression was agreed on.
    let Some((first, frames)) = input.split_first() else { return };
    let may_be_compressed = first & 1 == 1;
    let whole = bounded("a stream of frames", MEMORY_EACH, || receive(frames, may_be_compressed), |_| frames.len() + INFLATER);
    for cut in [frames.len() / 3, frames.len() / 2, frames.len().saturating_sub(1)] {
        let front = receive(&frames[..cut], may_be_compressed);
        assert!(whole.0.starts_with(&front.0), "the front of a stream tells something else");
        assert!(front.1.is_none() || front == whole, "the front of a stream ends otherwise");
    }
}

fn check_handshake(input: &[u8]) {
    let parsed = bounded("handshake::parse", 64, || handshake::parse(input), |_| input.len() + 128);
    match parsed {
        Ok(Some((request, len))) => {
            assert!(len <= input.len() && len <= handshake::MAX_LEN);
            assert!(matches!(handshake::parse(&input[..len - 1]), Ok(None)), "a request is there before its last byte");
            let answer = request.accept(request.subprotocols.first().copied(), true);
            assert!(
                answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\n") && answer.matches("\r\n\r\n").count() == 1,
                "{answer}"
            );
        }
        Ok(None) => assert!(input.len() < handshake::MAX_LEN),
        Err(error) => assert!(error.answer().starts_with(&format!("HTTP/1.1 {} ", error.status))),
    }
}

/// What is told, as a number for each, and by which code it ends.
fn receive(mut input: &[u8], may_be_compressed: bool) -> (Vec<u64>, Option<u16>) {
    let (mut incoming, mut told, mut frame) = (Incoming::default(), Vec::new(), Vec::new());
    let (mut inflater, mut inflater_of_turns) = (Inflater::default(), Inflater::default());
    loop {
        let header = match front(input, may_be_compressed, &LIMITS) {
            WebSocketFront::Incomplete(len) => {
                assert!(len == 0 || len > input.len());
                return (told, None);
            }
            WebSocketFront::Broken(violation) => {
                assert!(violation.code.may_be_sent());
                return (told, Some(violation.code.0));
            }
            WebSocketFront::Whole(header) => header,
        };
        assert!((6..=input.len()).contains(&header.len()));
        frame.clear();
        frame.extend_from_slice(&input[..header.len()]);
        input = &input[header.len()..];
        let received = incoming.frame(&header, &mut frame, &LIMITS).and_then(|received| match received {
            Some(Received::Compressed { is_text, payload }) => {
                let bytes = inflater.inflate(&payload, LIMITS.max_message)?;
                // However often it is stopped in between.
                inflater_of_turns.begin();
                while !inflater_of_turns.go_on(&payload, LIMITS.max_message, |_| false)? {}
                assert!(bytes == inflater_of_turns.bytes());
                inflated(is_text, bytes).map(Some)
            }
            received => Ok(received),
        });
        match received {
            Ok(received) => {
                let is_over = matches!(received, Some(Received::Close(..)));
                told.extend(received.map(what));
                if is_over {
                    return (told, None);
                }
            }
            Err(violation) => {
                assert!(violation.code.may_be_sent());
                return (told, Some(violation.code.0));
            }
        }
        assert!(incoming.bytes() <= 2 * LIMITS.max_message + 128);
    }
}

fn what(received: Received<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match received {
        Received::Text(text) => {
            assert!(text.len() <= LIMITS.max_message);
            ("text", text).hash(&mut hasher);
        }
        Received::Binary(bytes) => {
            assert!(bytes.len() <= LIMITS.max_message);
            ("binary", bytes).hash(&mut hasher);
        }
        Received::Compressed { .. } | Received::Skipped => unreachable!("it was inflated, and nobody skips"),
        Received::Ping(payload) => {
            assert!(payload.len() <= 125);
            ("ping", payload).hash(&mut hasher);
        }
        Received::Pong(payload) => ("pong", payload).hash(&mut hasher),
        Received::Close(code, reason) => {
            assert!(code.is_none_or(CloseCode::may_be_sent));
            ("close", code.map(|code| code.0), reason).hash(&mut hasher);
        }
    }
    hasher.finish()
}
