//! What must hold for any bytes given to the decoders of the bus socket. Shared by the fuzz target and by the test that
//! replays its corpus.

use crate::work::bounded;
use bytes::Bytes;
use heartbus_core::hub::batch::BatchReader;
use heartbus_core::wire::bus::{
    FRAME_CAP, FeedMessage, LENGTH_LEN, RequestFrame, Response, Role, SubscriberMessage, VERSION, WorkerMessage, decode, frame,
    parse_greeting, parse_hello, write_hello, write_message, write_refusal, write_welcome,
};

/// A list makes room for no more values than there are bytes left, and none is larger than this.
const MEMORY_EACH: u64 = 512;

/// Panics if a property is violated.
pub(crate) fn check(input: &[u8]) {
    check_hello(input);
    check_greeting(input);
    let mut rest = input;
    while let Ok(Some((body, len))) = frame(rest, FRAME_CAP) {
        assert_eq!(body.len() + LENGTH_LEN, len);
        assert!(frame(&rest[..len - 1], FRAME_CAP) == Ok(None), "a frame is there before its last byte");
        check_body(body);
        rest = &rest[len..];
    }
    check_body(input);
}

fn check_hello(input: &[u8]) {
    let hello = bounded("bus::parse_hello", MEMORY_EACH, || parse_hello(input), |_| input.len());
    let Ok(Some((hello, len))) = hello else { return };
    assert!(len <= input.len());
    assert_eq!(parse_hello(&input[..len - 1]), Ok(None));
    let mut written = Vec::new();
    write_hello(&mut written, hello.version, hello.role.unwrap_or(Role::Client), hello.pid, &hello.package);
    // What was not UTF-8 has become longer, and may have lost its end.
    let (again, _) = parse_hello(&written).expect("our own").expect("all of it");
    assert_eq!((again.version, again.pid), (hello.version, hello.pid));
}

fn check_greeting(input: &[u8]) {
    let greeting = bounded("bus::parse_greeting", MEMORY_EACH, || parse_greeting(input), |_| input.len());
    let Ok(Some((greeting, len))) = greeting else { return };
    assert!(len <= input.len());
    assert!(parse_greeting(&input[..len - 1]).is_ok_and(|greeting| greeting.is_none()));
    let mut written = Vec::new();
    match &greeting {
        Ok(welcome) => write_welcome(&mut written, VERSION, welcome),
        Err(refusal) => write_refusal(&mut written, refusal),
    }
    if let Ok(Some((again, _))) = parse_greeting(&written) {
        assert_eq!(again, greeting);
    }
}

fn check_body(body: &[u8]) {
    let all = |_: &_| body.len();
    if let Ok(ask) = bounded("a request", MEMORY_EACH, || decode::<RequestFrame<'_>>(body), all) {
        let mut again = Vec::new();
        write_message(&mut again, &ask);
        assert_eq!(decode::<RequestFrame<'_>>(&again[LENGTH_LEN..]), Ok(ask));
    }
    if let Ok(word) = bounded("a worker's message", MEMORY_EACH, || decode::<WorkerMessage>(body), |_| body.len()) {
        let mut again = Vec::new();
        write_message(&mut again, &word);
        assert_eq!(decode::<WorkerMessage>(&again[LENGTH_LEN..]), Ok(word));
    }
    if let Ok(said) = bounded("a subscriber's message", MEMORY_EACH, || decode::<SubscriberMessage>(body), |_| body.len()) {
        let mut again = Vec::new();
        write_message(&mut again, &said);
        assert_eq!(decode::<SubscriberMessage>(&again[LENGTH_LEN..]), Ok(said));
    }
    if let Ok(told) = bounded("a message for a subscriber", MEMORY_EACH, || decode::<FeedMessage<'_>>(body), |_: &_| body.len()) {
        let mut again = Vec::new();
        write_message(&mut again, &told);
        assert_eq!(decode::<FeedMessage<'_>>(&again[LENGTH_LEN..]), Ok(told));
    }
    if let Ok(answer) = bounded("a response", MEMORY_EACH, || decode::<Response>(body), |_| body.len()) {
        // By their bytes: a time that is no number equals nothing.
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write_message(&mut first, &answer);
        let again = decode::<Response>(&first[LENGTH_LEN..]).expect("our own");
        write_message(&mut second, &again);
        assert_eq!(first, second);
    }
    check_batch(body);
}

fn check_batch(body: &[u8]) {
    bounded("a batch", MEMORY_EACH, || read_batch(body), |_| body.len());
    let mut reader = BatchReader::default();
    if reader.open(Bytes::copy_from_slice(body)).is_err() {
        return;
    }
    let announced = u32::from_be_bytes([body[9], body[10], body[11], body[12]]) as usize;
    let mut read = 0;
    while let Ok(Some(_)) = reader.next() {
        read += 1;
        assert!(read <= announced);
        // The least that an event takes.
        assert!(read * 18 <= body.len());
    }
    assert!(!reader.is_done() || read <= announced);
}

fn read_batch(body: &[u8]) {
    let mut reader = BatchReader::default();
    let is_open = reader.open(Bytes::copy_from_slice(body)).is_ok();
    while is_open && matches!(reader.next(), Ok(Some(_))) {}
}
