//! Replays the fuzzer's seeds and corpus through the very properties that the fuzzer checks.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../fuzz/properties/decode_v1.rs"]
mod decode_v1;

fn inputs(folder: &str) -> BTreeSet<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_seeds_of_the_v1_decoder_are_the_golden_vectors_and_hold_its_properties() {
    let vectors = include_str!("../../tests/vectors/v1.txt");
    let rows = vectors.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let digits = rows.map(|row| row.split(' ').next().unwrap().trim_matches('-'));
    let byte = |digits: &str, at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let expected = digits.map(|digits| (0..digits.len()).step_by(2).map(|at| byte(digits, at)).collect()).collect();
    let seeds = inputs("seeds/decode_v1");
    assert!(seeds == expected, "the vectors changed: run fuzz/make-seeds");
    seeds.iter().for_each(|seed| decode_v1::check(seed));
}

#[test]
fn the_corpus_of_the_v1_decoder_holds_its_properties() {
    let corpus = inputs("regressions/decode_v1");
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|input| decode_v1::check(input));
}
