//! What of Autobahn's cases for servers concerns the protocol, as bytes without a socket, by its numbers. All of them are run over sockets
//! by `core/tests/websocket`; `docs/AUTOBAHN.md` is the list.

use super::deflate::Inflater;
use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_message: 17 << 20, max_fragments: 1 << 20 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame from a client, with everything as it is said.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn text(payload: &str) -> Vec<u8> {
    raw(0x81, payload.as_bytes())
}

fn binary(payload: &[u8]) -> Vec<u8> {
    raw(0x82, payload)
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    raw(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// What a peer is told that sends these bytes: each thing in short, and the code by which it ends, if it does.
fn receive_with(mut input: &[u8], may_be_compressed: bool, limits: &Limits) -> (Vec<String>, Option<u16>) {
    let (mut incoming, mut inflater, mut told) = (Incoming::default(), Inflater::default(), Vec::new());
    loop {
        let header = match front(input, may_be_compressed, limits) {
            WebSocketFront::Incomplete(_) => return (told, None),
            WebSocketFront::Broken(violation) => return (told, Some(violation.code.0)),
            WebSocketFront::Whole(header) => header,
        };
        let mut frame = input[..header.len()].to_vec();
        input = &input[header.len()..];
        let short =
            |bytes: &[u8]| if bytes.len() > 40 { format!("{} bytes", bytes.len()) } else { String::from_utf8_lossy(bytes).into_owned() };
        let received = incoming.frame(&header, &mut frame, limits).and_then(|received| match received {
            Some(Received::Compressed { is_text, payload }) => inflated(is_text, inflater.inflate(&payload, limits.max_message)?).map(Some),
            received => Ok(received),
        });
        match received {
            Ok(None) => {}
            Ok(Some(Received::Text(text))) => told.push(format!("text {}", short(text.as_bytes()))),
            Ok(Some(Received::Binary(bytes))) => told.push(format!("binary {}", short(&bytes))),
            Ok(Some(Received::Compressed { .. } | Received::Skipped)) => unreachable!("it was inflated, and nobody skips"),
            Ok(Some(Received::Ping(payload))) => told.push(format!("ping {}", short(payload))),
            Ok(Some(Received::Pong(payload))) => told.push(format!("pong {}", short(payload))),
            Ok(Some(Received::Close(code, reason))) => {
                told.push(format!("close {} {reason}", code.map_or(0, |code| code.0)));
                return (told, None);
            }
            Err(violation) => return (told, Some(violation.code.0)),
        }
    }
}

fn receive(frames: &[Vec<u8>]) -> (Vec<String>, Option<u16>) {
    receive_with(&frames.concat(), false, &LIMITS)
}

fn told(what: &[&str]) -> (Vec<String>, Option<u16>) {
    (what.iter().map(|what| (*what).to_owned()).collect(), None)
}

fn broken(what: &[&str], code: u16) -> (Vec<String>, Option<u16>) {
    (told(what).0, Some(code))
}

#[test]
fn case_1_messages_of_all_lengths() {
    for len in [0_usize, 1, 125, 126, 127, 128, 65535, 65536, 65537] {
        let payload = "*".repeat(len);
        let short = if len > 40 { format!("{len} bytes") } else { payload.clone() };
        assert_eq!(receive(&[text(&payload)]), told(&[&format!("text {short}")]), "1.1 {len}");
        assert_eq!(receive(&[binary(payload.as_bytes())]), told(&[&format!("binary {short}")]), "1.2 {len}");
    }
}

#[test]
fn case_2_pings_and_pongs() {
    assert_eq!(receive(&[raw(0x89, b"")]), told(&["ping "]), "2.1");
    assert_eq!(receive(&[raw(0x89, b"Hello")]), told(&["ping Hello"]), "2.2");
    assert_eq!(receive(&[raw(0x89, &[0, 0xff, 0xfe])]).0.len(), 1, "2.3: not only texts");
    assert_eq!(receive(&[raw(0x89, &[b'x'; 125])]), told(&["ping 125 bytes"]), "2.4");
    assert_eq!(receive(&[raw(0x89, &[b'x'; 126])]), broken(&[], 1002), "2.5");
    assert_eq!(
        receive(&[raw(0x8a, b""), raw(0x8a, b"unasked"), raw(0x89, b"x")]),
        told(&["pong ", "pong unasked", "ping x"]),
        "2.7 to 2.9"
    );
    let many: Vec<_> = (0..10).map(|n| raw(0x89, n.to_string().as_bytes())).collect();
    assert_eq!(receive(&many).0.len(), 10, "2.10");
}

#[test]
fn case_3_reserved_bits() {
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        assert_eq!(
            receive(&[text("before"), raw(0x81 | bits, b"x"), raw(0x89, b"")]),
            broken(&["text before"], 1002),
            "3.1 to 3.7 {bits:#x}"
        );
        assert_eq!(receive(&[raw(0x89 | bits, b"")]), broken(&[], 1002));
    }
}

#[test]
fn case_4_reserved_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(
            receive(&[text("before"), raw(0x80 | opcode, b"x"), raw(0x89, b"")]),
            broken(&["text before"], 1002),
            "4.1, 4.2 {opcode}"
        );
    }
}

#[test]
fn case_5_fragments() {
    let parts = [raw(0x01, b"fragment1"), raw(0x80, b"fragment2")];
    assert_eq!(receive(&[raw(0x09, b"part"), raw(0x80, b"")]), broken(&[], 1002), "5.1: a ping in fragments");
    assert_eq!(receive(&[raw(0x0a, b"part"), raw(0x80, b"")]), broken(&[], 1002), "5.2: a pong in fragments");
    assert_eq!(receive(&parts), told(&["text fragment1fragment2"]), "5.3");
    assert_eq!(
        receive(&[parts[0].clone(), raw(0x89, b"in between"), parts[1].clone()]),
        told(&["ping in between", "text fragment1fragment2"]),
        "5.6"
    );
    for first in [0x80, 0x00] {
        assert_eq!(receive(&[raw(first, b"of nothing"), text("x")]), broken(&[], 1002), "5.9, 5.12");
    }
    assert_eq!(
        receive(&[parts[0].clone(), parts[1].clone(), raw(0x00, b"of nothing")]),
        broken(&["text fragment1fragment2"], 1002),
        "5.15"
    );
    assert_eq!(receive(&[raw(0x01, b"a"), raw(0x81, b"b")]), broken(&[], 1002), "5.18");
    let five = [raw(0x01, b"1"), raw(0x00, b"2"), raw(0x89, b"p"), raw(0x00, b"3"), raw(0x00, b"4"), raw(0x89, b"q"), raw(0x80, b"5")];
    assert_eq!(receive(&five), told(&["ping p", "ping q", "text 12345"]), "5.19");
    assert_eq!(receive(&[raw(0x02, b""), raw(0x00, b""), raw(0x80, b"")]), told(&["binary "]));
}

#[test]
fn case_6_texts_are_utf_8_also_where_fragments_cut_a_character() {
    let greek = "κόσμε and 🎉";
    assert_eq!(receive(&[text("")]), told(&["text "]), "6.1.1");
    assert_eq!(receive(&[raw(0x01, b""), raw(0x00, b""), raw(0x80, b"")]), told(&["text "]), "6.1.2");
    assert_eq!(receive(&[raw(0x01, b""), raw(0x00, b"middle"), raw(0x80, b"")]), told(&["text middle"]), "6.1.3");
    assert_eq!(receive(&[text(greek)]), told(&[&format!("text {greek}")]), "6.2.1");
    for cut in 0..=greek.len() {
        let (first, second) = greek.as_bytes().split_at(cut);
        assert_eq!(receive(&[raw(0x01, first), raw(0x80, second)]), told(&[&format!("text {greek}")]), "6.2.2, 6.2.3 {cut}");
    }
    let bytes: Vec<_> = greek
        .bytes()
        .enumerate()
        .map(|(n, byte)| {
            raw(
                if n == 0 {
                    0x01
                } else if n + 1 == greek.len() {
                    0x80
                } else {
                    0
                },
                &[byte],
            )
        })
        .collect();
    assert_eq!(receive(&bytes), told(&[&format!("text {greek}")]), "6.2.4");
    let invalid = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    assert_eq!(receive(&[raw(0x81, invalid)]), broken(&[], 1007), "6.3.1");
    assert_eq!(receive(&[raw(0x01, &invalid[..14]), raw(0x00, b"never")]), broken(&[], 1007), "6.4.1: before the message is over");
    let frame = raw(0x81, invalid);
    assert_eq!(receive(&[frame[..frame.len() - 1].to_vec()]), told(&[]), "6.4.3: not before the frame is over");
    for valid in [
        "\u{0}",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{ffff}",
        "\u{fffe}",
        "\u{10000}",
        "\u{10ffff}",
        "\u{fdd0}",
    ] {
        assert_eq!(receive(&[text(valid)]).1, None, "of 6.7, 6.9, 6.11, 6.22");
    }
    for invalid in [
        &b"\xf4\x90\x80\x80"[..],
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\xc0 \xc1 ",
        b"\xe0 ",
        b"\xf0 ",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
    ] {
        assert_eq!(receive(&[raw(0x81, invalid)]), broken(&[], 1007), "of 6.8 to 6.21 {invalid:x?}");
    }
    assert_eq!(receive(&[raw(0x01, b"\xe4\xb8"), raw(0x80, b"")]), broken(&[], 1007), "a character without its end");
    assert_eq!(receive(&[raw(0x01, b"\xe4\xb8"), raw(0x89, b""), raw(0x80, b"\xad")]), told(&["ping ", "text 中"]));
}

#[test]
fn case_7_closing() {
    assert_eq!(
        receive(&[text("x"), close_frame(1000, b""), text("after")]),
        told(&["text x", "close 1000 "]),
        "7.1: nothing counts behind it"
    );
    assert_eq!(receive(&[raw(0x01, b"part"), close_frame(1000, b"")]), told(&["close 1000 "]), "7.1.5");
    assert_eq!(receive(&[raw(0x88, b"")]), told(&["close 0 "]), "7.3.1");
    assert_eq!(receive(&[raw(0x88, b"\x03")]), broken(&[], 1002), "7.3.2");
    assert_eq!(receive(&[close_frame(1000, b"Hello World!")]), told(&["close 1000 Hello World!"]), "7.3.4");
    assert_eq!(receive(&[close_frame(1000, &[b'*'; 123])]).1, None, "7.3.5");
    assert_eq!(receive(&[close_frame(1000, &[b'*'; 124])]), broken(&[], 1002), "7.3.6");
    assert_eq!(receive(&[close_frame(1000, b"\xce\xba\xed\xa0\x80")]), broken(&[], 1007), "7.5.1");
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(receive(&[close_frame(code, b"")]), told(&[&format!("close {code} ")]), "7.7");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(receive(&[close_frame(code, b"x")]), broken(&[], 1002), "7.9, 7.13");
    }
}

#[test]
fn case_9_large_messages_also_in_many_fragments() {
    let payload = vec![b'*'; 16 << 20];
    assert_eq!(receive(&[binary(&payload)]), told(&["binary 16777216 bytes"]), "9.1, 9.2");
    for size in [64, 4096, 65536, 4 << 20] {
        let payload = &payload[..4 << 20];
        let count = payload.len() / size;
        let fragments: Vec<_> = payload
            .chunks(size)
            .enumerate()
            .map(|(n, part)| raw((if n == 0 { 1 } else { 0 }) | if n + 1 == count { 0x80 } else { 0 }, part))
            .collect();
        assert_eq!(receive(&fragments), told(&["text 4194304 bytes"]), "9.3, 9.4 {size}");
    }
}

#[test]
fn case_10_fragments_that_the_sender_chose() {
    let fragments: Vec<_> = [b'*'; 65536]
        .chunks(1300)
        .enumerate()
        .map(|(n, part)| {
            raw(
                if n == 0 {
                    1
                } else if n == 50 {
                    0x80
                } else {
                    0
                },
                part,
            )
        })
        .collect();
    assert_eq!(receive(&fragments), told(&["text 65536 bytes"]), "10.1");
}

#[test]
fn case_12_and_13_compressed_messages_also_in_fragments() {
    let mut deflater = deflate::Deflater::default();
    for len in [16, 64, 256, 1024, 4096, 16384, 65536, 131_072] {
        let payload: String = (0..len).map(|n: u64| char::from(b'a' + (n * n % 7) as u8)).collect();
        let deflated = deflater.deflate(payload.as_bytes()).map(<[u8]>::to_vec).unwrap_or_default();
        if deflated.is_empty() {
            continue;
        }
        let short = if len > 40 { format!("text {len} bytes") } else { format!("text {payload}") };
        assert_eq!(receive_with(&raw(0xc1, &deflated), true, &LIMITS), told(&[&short]), "12 {len}");
        let (first, second) = deflated.split_at(deflated.len() / 2);
        let fragments = [raw(0x41, first), raw(0x89, b""), raw(0x80, second)].concat();
        assert_eq!(receive_with(&fragments, true, &LIMITS), told(&["ping ", &short]), "13 {len}");
        assert_eq!(receive_with(&raw(0xc1, &deflated), false, &LIMITS), broken(&[], 1002), "not agreed on");
    }
    let deflated = deflater.deflate(&[b'x'; 200]).unwrap().to_vec();
    assert_eq!(
        receive_with(&[raw(0x41, &deflated), raw(0xc0, b"")].concat(), true, &LIMITS),
        broken(&[], 1002),
        "the bit stands at the beginning only"
    );
    assert_eq!(receive_with(&raw(0xc9, b""), true, &LIMITS), broken(&[], 1002), "a control frame is never compressed");
    assert_eq!(receive_with(&raw(0xc1, b"\xff\xff"), true, &LIMITS), broken(&[], 1007));
    assert_eq!(receive_with(&raw(0xc1, &deflated), true, &Limits { max_message: 199, ..LIMITS }), broken(&[], 1009), "a small bomb");
    let invalid = deflater.deflate(&[0xff; 50]).unwrap().to_vec();
    assert_eq!(receive_with(&raw(0xc1, &invalid), true, &LIMITS), broken(&[], 1007));
    assert_eq!(receive_with(&raw(0xc2, &invalid), true, &LIMITS), told(&["binary 50 bytes"]));
}

#[test]
fn what_a_client_must_not_send_ends_it() {
    let mut unmasked = vec![];
    write_header(Opcode::Text, false, 1, &mut unmasked);
    unmasked.push(b'x');
    assert_eq!(receive(&[unmasked]), broken(&[], 1002));
    assert_eq!(receive(&[vec![0x81, 0x80 | 126, 0, 125]]), broken(&[], 1002), "a length that could be shorter");
    assert_eq!(receive(&[vec![0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]]), broken(&[], 1002));
    assert_eq!(receive(&[vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]]), broken(&[], 1002), "a negative length");
    assert_eq!(
        receive(&[vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]),
        broken(&[], 1009),
        "before a byte of it is kept"
    );
    let limits = Limits { max_message: 10, max_fragments: 3 };
    assert_eq!(receive_with(&text("0123456789"), false, &limits), told(&["text 0123456789"]));
    assert_eq!(receive_with(&text("0123456789a"), false, &limits), broken(&[], 1009));
    assert_eq!(receive_with(&[raw(0x01, b"01234"), raw(0x80, b"56789a")].concat(), false, &limits), broken(&[], 1009));
    assert_eq!(receive_with(&[raw(0x01, b""), raw(0, b""), raw(0, b""), raw(0x80, b"")].concat(), false, &limits), broken(&[], 1008));
}

#[test]
fn a_long_message_may_come_in_more_fragments_than_a_short_one() {
    let limits = Limits { max_message: 1 << 20, max_fragments: 3 };
    let in_fragments_of = |len: usize, count: usize| {
        let fragments: Vec<Vec<u8>> = (0..count)
            .map(|number| raw((u8::from(number == 0) * 2) | if number + 1 == count { 0x80 } else { 0 }, &vec![b'x'; len]))
            .collect();
        receive_with(&fragments.concat(), false, &limits)
    };
    assert_eq!(in_fragments_of(FAIR_FRAGMENT, 1000), told(&["binary 64000 bytes"]));
    // Half as long, there may be half as many, and three.
    assert_eq!(in_fragments_of(FAIR_FRAGMENT / 2, 6), told(&["binary 192 bytes"]));
    assert_eq!(in_fragments_of(FAIR_FRAGMENT / 2, 7), broken(&[], 1008));
}

#[test]
fn a_frame_is_as_long_as_its_header_says_and_not_there_before_its_last_byte() {
    for frame in [text(""), text("x"), binary(&[0; 126]), binary(&[0; 70_000])] {
        for cut in (0..frame.len()).step_by(1 + frame.len() / 50) {
            let WebSocketFront::Incomplete(len) = front(&frame[..cut], false, &LIMITS) else { panic!("{cut}") };
            assert!(len == 0 || len == frame.len(), "{cut}");
        }
        assert!(matches!(front(&frame, false, &LIMITS), WebSocketFront::Whole(header) if header.len() == frame.len()));
    }
}

#[test]
fn a_message_in_one_frame_is_not_copied_and_nothing_is_kept_after_one_in_many() {
    let mut incoming = Incoming::default();
    let mut frame = text("x");
    let WebSocketFront::Whole(header) = front(&frame, false, &LIMITS) else { panic!() };
    assert!(matches!(incoming.frame(&header, &mut frame, &LIMITS), Ok(Some(Received::Text(Cow::Borrowed("x"))))));
    assert_eq!(incoming.bytes(), 0);
    for (first, kept) in [(0x01, true), (0x80, false)] {
        let mut frame = raw(first, &[b'x'; 1000]);
        let WebSocketFront::Whole(header) = front(&frame, false, &LIMITS) else { panic!() };
        incoming.frame(&header, &mut frame, &LIMITS).unwrap();
        assert_eq!(incoming.bytes() >= 1000, kept);
    }
    assert_eq!((size_of::<Incoming>(), incoming.bytes()), (8, 0));
}

#[test]
fn what_is_written_is_what_the_rfc_shows() {
    let written = |opcode, len| {
        let mut out = Vec::new();
        write_header(opcode, false, len, &mut out);
        assert_eq!(out.len(), header_len(len));
        out
    };
    assert_eq!(written(Opcode::Text, 5), [0x81, 0x05]);
    assert_eq!(written(Opcode::Pong, 5), [0x8a, 0x05]);
    assert_eq!(written(Opcode::Binary, 256), [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(written(Opcode::Binary, 65536), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    let mut out = Vec::new();
    write_close(Some(CloseCode::GOING_AWAY), &"é".repeat(100), &mut out);
    assert_eq!((&out[..4], out.len()), (&[0x88, 124, 0x03, 0xe9][..], 126), "cut between two characters");
    out.clear();
    write_close(None, "not told", &mut out);
    assert_eq!(out, [0x88, 0]);
}

proptest! {
    #[test]
    fn of_any_bytes_the_front_tells_nothing_else_than_all_of_them(bytes in prop::collection::vec(any::<u8>(), 0..400), compressed in any::<bool>()) {
        let limits = Limits { max_message: 200, max_fragments: 4 };
        let whole = receive_with(&bytes, compressed, &limits);
        for cut in 0..bytes.len() {
            let (told, code) = receive_with(&bytes[..cut], compressed, &limits);
            prop_assert!(whole.0.starts_with(&told), "{told:?} of {whole:?}");
            prop_assert!(code.is_none() || whole == (told, code), "{code:?} of {whole:?}");
        }
    }

    #[test]
    fn a_message_in_any_fragments_is_the_message(payload in "\\PC{0,60}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).chain([0, payload.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &payload.as_bytes()[pair[0]..pair[1]]).collect();
        let fragments: Vec<u8> = parts.iter().enumerate().flat_map(|(n, part)| {
            raw(u8::from(n == 0) | if n + 1 == parts.len() { 0x80 } else { 0 }, part)
        }).collect();
        let (told, broken) = receive_with(&fragments, false, &LIMITS);
        let short = if payload.len() > 40 { format!("{} bytes", payload.len()) } else { payload.clone() };
        prop_assert_eq!((told, broken), (vec![format!("text {short}")], None));
    }
}
