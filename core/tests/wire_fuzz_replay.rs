//! Replays the fuzzer's seeds and corpus through the very properties that the fuzzer checks.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../fuzz/properties/decode_bus.rs"]
mod decode_bus;
#[path = "../../fuzz/properties/decode_v1.rs"]
mod decode_v1;
#[path = "../../fuzz/properties/decode_v2.rs"]
mod decode_v2;
#[path = "../../fuzz/properties/firetower.rs"]
mod firetower;
#[path = "../../fuzz/properties/firetower_session.rs"]
mod firetower_session;
#[path = "../../fuzz/properties/websocket.rs"]
mod websocket;
#[path = "../../fuzz/properties/work.rs"]
mod work;

fn inputs(folder: &str) -> BTreeSet<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// The inputs of the golden vectors.
fn golden(vectors: &str) -> BTreeSet<Vec<u8>> {
    let rows = vectors.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let digits = rows.map(|row| row.split(' ').next().unwrap().trim_matches('-'));
    let byte = |digits: &str, at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    digits.map(|digits| (0..digits.len()).step_by(2).map(|at| byte(digits, at)).collect()).collect()
}

#[test]
fn the_seeds_of_the_decoders_are_the_golden_vectors_and_hold_their_properties() {
    let (v1, v2) = (inputs("seeds/decode_v1"), inputs("seeds/decode_v2"));
    assert!(v1 == golden(include_str!("../../tests/vectors/v1.txt")), "the vectors changed: run fuzz/make-seeds");
    assert!(v2 == golden(include_str!("../../tests/vectors/v2.txt")), "the vectors changed: run fuzz/make-seeds");
    let bus = inputs("seeds/decode_bus");
    assert!(bus == golden(include_str!("../../tests/vectors/bus.txt")), "the vectors changed: run fuzz/make-seeds");
    bus.iter().for_each(|seed| decode_bus::check(seed));
    v1.iter().for_each(|seed| decode_v1::check(seed));
    v2.iter().for_each(|seed| decode_v2::check(seed));
}

#[test]
fn the_corpora_of_the_decoders_hold_their_properties() {
    let (v1, v2) = (inputs("regressions/decode_v1"), inputs("regressions/decode_v2"));
    let bus = inputs("regressions/decode_bus");
    assert!(!v1.is_empty() && !v2.is_empty() && !bus.is_empty());
    bus.iter().for_each(|input| decode_bus::check(input));
    v1.iter().for_each(|input| decode_v1::check(input));
    v2.iter().chain(&v1).for_each(|input| decode_v2::check(input));
}

#[test]
fn what_the_fuzzer_begins_with_for_websocket_and_firetower_holds_their_properties() {
    let (websocket, firetower) = (inputs("seeds/websocket"), inputs("seeds/firetower"));
    let vectors = golden(include_str!("../../tests/vectors/firetower.txt"));
    assert!(websocket.len() >= 6 && firetower.len() >= vectors.len() + 3);
    assert!(vectors.is_subset(&firetower), "the vectors changed: run fuzz/make-seeds");
    for input in websocket.iter().chain(&firetower) {
        websocket::check(input);
        firetower::check(input);
        firetower_session::check(input);
        for cut in 0..input.len() {
            websocket::check(&input[..cut]);
            firetower::check(&input[..cut]);
            firetower_session::check(&input[..cut]);
        }
    }
}
