//! What a server says in its ERROR frames stands in the protocol's table, in both languages.

use std::collections::BTreeSet;

const PAGES: [&str; 2] = [include_str!("../../docs/PROTOCOL.md"), include_str!("../../docs/PROTOCOL.zh-CN.md")];
const CODES: &str = include_str!("../src/wire/code.rs");
/// Where a node is refused, or told that it is gone; its tests are in files of their own.
const SESSION: &str = concat!(include_str!("../src/hub/session/bus.rs"), include_str!("../src/hub/session/bus/registration.rs"));

/// The table's rows.
fn rows(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .filter(|line| line.get(2..5).is_some_and(|code| code.starts_with(['4', '5']) && code.bytes().all(|byte| byte.is_ascii_digit())))
}

/// What stands between the two, everywhere.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

/// The texts that are written out: fixed ones, and the beginnings of those that name somebody.
fn texts() -> BTreeSet<&'static str> {
    let fixed = CODES
        .lines()
        .chain(SESSION.lines())
        .filter(|line| line.contains("const ") && line.contains(": &str = \"Too ") || line.contains("_TEXT: &str"));
    let mut texts: BTreeSet<&str> = fixed.filter_map(|line| line.split('"').nth(1)).collect();
    for sent in between(SESSION, ", code::", ")").chain(between(SESSION, "error(code::", ")")) {
        texts.extend(sent.split('"').nth(1).and_then(|text| text.split(['{', '"']).next()).map(str::trim_end));
    }
    texts
}

#[test]
fn every_text_of_an_error_is_in_the_table() {
    let texts = texts();
    assert!(texts.contains("Too much metadata on this connection") && texts.contains("Too many nodes on this server"), "{texts:?}");
    assert!(texts.contains("Node timed out:") && texts.len() > 10, "{texts:?}");
    for page in PAGES {
        let rows: Vec<&str> = rows(page).collect();
        for text in &texts {
            assert!(rows.iter().any(|row| row.contains(&format!("`{text}"))), "{text}: in no row");
        }
    }
}

#[test]
fn both_languages_have_the_same_codes_and_texts() {
    let [english, chinese] = PAGES.map(|page| {
        rows(page)
            .map(|row| (row.split('|').nth(1).map(|code| code.trim().replace('、', ", ")), row.split('`').skip(1).step_by(2).collect()))
            .collect::<Vec<(_, Vec<_>)>>()
    });
    assert_eq!(english, chinese);
}
