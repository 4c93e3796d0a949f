//! Section 6 of Autobahn's cases: a text is UTF-8 over all its fragments, and ends as soon as it is not. Its sequences are those of
//! Markus Kuhn's test file for decoders, by their numbers there and here.

use super::autobahn::{Answers, answers, echo, echoes, octets, quoted};
use super::peer::*;
use super::start;

/// Eleven bytes: the second letter is the one of three bytes.
const GREEK: &str = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}";

struct Sequence {
    number: String,
    is_valid: bool,
    bytes: Vec<u8>,
}

/// The cases 6.5.1 to 6.23.7.
fn sequences() -> Vec<Sequence> {
    let mut all = Vec::new();
    let mut section = |number: u32, is_valid: bool, cases: Vec<Vec<u8>>| {
        let known = all.iter().filter(|known: &&Sequence| known.number.starts_with(&format!("6.{number}."))).count();
        for (case, bytes) in cases.into_iter().enumerate() {
            all.push(Sequence { number: format!("6.{number}.{}", known + case + 1), is_valid, bytes });
        }
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let bytes = |cases: &[&[u8]]| cases.iter().map(|case| case.to_vec()).collect();
    section(5, true, texts(&["hello$world", "hello¢world", "hello€world", "hello\u{24b62}world", GREEK]));
    // Every front of it; those that end within a character are none.
    for len in 1..=GREEK.len() {
        section(6, [2, 5, 7, 9, 11].contains(&len), vec![GREEK.as_bytes()[..len].to_vec()]);
    }
    section(7, true, texts(&["\0", "\u{80}", "\u{800}", "\u{10000}"]));
    section(8, false, bytes(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]));
    section(9, true, texts(&["\u{7f}", "\u{7ff}", "\u{ffff}", "\u{10ffff}"]));
    section(10, false, bytes(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]));
    section(11, true, texts(&["\u{d7ff}", "\u{e000}", "\u{fffd}", "\u{10ffff}"]));
    section(11, false, bytes(&[b"\xf4\x90\x80\x80"]));
    section(12, false, bytes(&[b"\x80", b"\xbf"]));
    section(12, false, (2..=6).map(|len| b"\x80\xbf".iter().copied().cycle().take(len).collect()).collect());
    section(12, false, vec![(0x80..=0xbf).collect()]);
    // First bytes with a space behind each.
    let lonely = [0xc0..=0xdf_u8, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd];
    section(13, false, lonely.map(|firsts| firsts.flat_map(|byte| [byte, b' ']).collect()).to_vec());
    let cut: &[&[u8]] = &[
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ];
    section(14, false, bytes(cut));
    section(15, false, vec![cut.concat()]);
    section(16, false, bytes(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]));
    // Longer than needed: a slash, the last one of each length, and NUL.
    section(17, false, bytes(&[b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"]));
    section(18, false, bytes(&[b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]));
    section(19, false, bytes(&[b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"]));
    let surrogate = |code: u16| [0xed, 0x80 | (code >> 6 & 0x3f) as u8, 0x80 | (code & 0x3f) as u8];
    let single = [0xd800, 0xdb7f, 0xdb80, 0xdbff, 0xdc00, 0xdf80, 0xdfff];
    section(20, false, single.map(|code| surrogate(code).to_vec()).to_vec());
    for high in [0xd800, 0xdb7f, 0xdb80, 0xdbff] {
        section(21, false, [0xdc00, 0xdfff].map(|low| [surrogate(high), surrogate(low)].concat()).to_vec());
    }
    // Noncharacters are valid: the last two of each plane.
    let noncharacters = (0..=16).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    let encoded = |code: u32| char::from_u32(code).unwrap().to_string().into_bytes();
    section(22, true, noncharacters.map(encoded).collect());
    section(23, true, (0xfff9..=0xffff).map(encoded).collect());
    all
}

#[test]
fn cases_6_1_and_6_2_texts_of_nothing_and_of_more_than_ascii() {
    let (server, address) = start();
    let mut peer = WebSocketPeer::json_node(address, "n");
    // 6.1.1: a text of nothing within the JSON.
    echoes(&server, &mut peer, "", usize::MAX);
    // 6.1.3, and 6.1.2 where the text is nothing at all: no JSON, which is told, and no fault of the WebSocket.
    let in_the_middle = |text: &[u8]| [masked(0x01, b""), masked(0x00, text), masked(0x80, b"")];
    in_the_middle(quoted("middle frame payload").as_bytes()).iter().for_each(|frame| peer.raw(frame));
    echo(&server);
    assert_eq!(peer.json()["data"], "middle frame payload");
    let (told, code) = answers(address, &in_the_middle(b""));
    assert!(matches!(&told[..], [(TEXT, error)] if error.starts_with(br#"{"type":"error""#)), "{told:?}");
    assert_eq!(code, None);
    // 6.2.1 to 6.2.4: whole, cut between two characters, and in fragments of one octet.
    for text in ["Hello-µ@ßöäüàá-UTF-8!!", GREEK] {
        let message = quoted(text);
        let between = message.find(['ü', 'σ']).unwrap();
        for piece in [usize::MAX, between, 1] {
            echoes(&server, &mut peer, text, piece);
        }
    }
}

const ENDED: Answers = (Vec::new(), Some(1007));

#[test]
fn cases_6_3_and_6_4_a_text_ends_at_the_latest_with_the_frame_in_which_it_is_no_utf_8() {
    let (_server, address) = start();
    // 6.3.1, 6.3.2
    let surrogate = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    assert_eq!(answers(address, &[masked(TEXT, surrogate)]), ENDED);
    assert_eq!(answers(address, &in_fragments_of_one(surrogate)), ENDED);
    let beyond = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    // 6.4.1, 6.4.2: the third fragment, which would end the message, is not waited for.
    for (first, second) in [(11, 15), (12, 13)] {
        let frames = [masked(0x01, &beyond[..first]), masked(0x00, &beyond[first..second])];
        assert_eq!(answers(address, &frames[..1]), (Vec::new(), None));
        assert_eq!(answers(address, &frames), ENDED);
    }
    // 6.4.3, 6.4.4: within one frame it ends with the frame.
    let frame = masked(TEXT, beyond);
    let header = frame.len() - beyond.len();
    for (first, second) in [(11, 15), (12, 13)] {
        let chops = [&frame[..header + first], &frame[header + first..header + second], &frame[header + second..]];
        assert_eq!(answers(address, &chops.map(<[u8]>::to_vec)), ENDED);
    }
}

/// The last one is empty.
fn in_fragments_of_one(text: &[u8]) -> Vec<Vec<u8>> {
    let frames = text.iter().enumerate().map(|(number, byte)| masked(u8::from(number == 0), &[*byte]));
    frames.chain([masked(0x80, b"")]).collect()
}

#[test]
fn cases_6_5_1_to_6_23_7_each_sequence_whole_cut_in_two_and_by_octets() {
    let (server, address) = start();
    let mut peer = WebSocketPeer::json_node(address, "n");
    let all = sequences();
    assert_eq!((all.len(), all.iter().filter(|sequence| sequence.is_valid).count()), (132, 63));
    for Sequence { number, is_valid, bytes } in &all {
        assert_eq!(std::str::from_utf8(bytes).is_ok(), *is_valid, "{number}");
        if let Ok(text) = std::str::from_utf8(bytes) {
            let message = quoted(text);
            let within = message.len() - 2 - bytes.len().div_ceil(2);
            let (front, rest) = message.as_bytes().split_at(within);
            let cut = [masked(0x01, front), masked(0x80, rest)];
            let whole = [masked(TEXT, message.as_bytes())];
            for writes in [whole.to_vec(), cut.to_vec(), octets(&whole), octets(&cut)] {
                writes.iter().for_each(|bytes| peer.raw(bytes));
                echo(&server);
                assert_eq!(peer.json()["data"], text, "{number}");
            }
        } else {
            let (front, rest) = bytes.split_at(bytes.len() / 2);
            let (whole, cut) = ([masked(TEXT, bytes)], [masked(0x01, front), masked(0x80, rest)]);
            for writes in [whole.to_vec(), cut.to_vec(), octets(&whole), in_fragments_of_one(bytes)] {
                assert_eq!(answers(address, &writes), ENDED, "{number}");
            }
        }
    }
}
