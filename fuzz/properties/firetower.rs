//! What must hold for any bytes given to the readers of Firetower's formats, and of the JSON that browsers speak. Shared by the fuzz target and by the test that replays its
//! corpus.

use crate::work::bounded;
use heartbus_core::wire::firetower::client::{ClientMessage, parse};
use heartbus_core::wire::firetower::{FireFront, HEADER_LEN, front};
use heartbus_core::wire::text;

const MAX_LEN: u32 = 1 << 20;

/// The texts of a message, in blocks that had room for more; a topic of commas is a list of as many empty names.
const MEMORY_EACH: u64 = 128;

/// Panics if a property is violated.
pub(crate) fn check(input: &[u8]) {
    let mut rest = input;
    loop {
        let found = bounded("firetower::front", 1, || front(rest, MAX_LEN), |_| rest.len());
        match found {
            FireFront::Incomplete | FireFront::Broken { .. } => break,
            FireFront::Invalid { len, .. } => {
                assert!((HEADER_LEN..=rest.len()).contains(&len));
                rest = &rest[len..];
            }
            FireFront::Frame { frame, len } => {
                assert!((HEADER_LEN..=rest.len()).contains(&len));
                assert!(matches!(front(&rest[..len - 1], MAX_LEN), FireFront::Incomplete), "a frame is there before its last byte");
                let mut written = Vec::new();
                frame.write(&mut written).expect("what was read can be written");
                assert_eq!(written, rest[..len]);
                rest = &rest[len..];
            }
        }
    }
    let message = bounded("firetower::client::parse", MEMORY_EACH, || parse(input), |_| input.len());
    match message {
        Ok(ClientMessage::Subscribe(topics) | ClientMessage::Unsubscribe(topics)) => {
            assert!(!topics.is_empty() && topics.len() <= input.len());
        }
        Ok(ClientMessage::Other { topic, data, .. }) => {
            assert!(!topic.is_empty());
            // As it came, byte for byte.
            let is_there = |data: &str| input.windows(data.len().max(1)).any(|part| part == data.as_bytes());
            assert!(data.is_none_or(|data| is_there(data.get())));
        }
        Err(_) => {}
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(message) = bounded("text::parse", MEMORY_EACH, || text::parse(text), |_| input.len())
    {
        assert!((0..=i64::from(u32::MAX)).contains(&message.channel_id) && message.payload.len() <= input.len());
    }
}
