//! What a server says in its ERROR frames stands in the protocol's table, in both languages.

use heartbus_core::hub::topics::TopicRefusal;
use heartbus_core::wire::FrameError;
use heartbus_core::wire::code::{self, TEXTS};
use heartbus_core::wire::control::RegisterError;
use heartbus_core::wire::topic::BadTopic;
use heartbus_core::wire::topic_frames::BadTopicFrame;

const PAGES: [&str; 2] = [include_str!("../../docs/PROTOCOL.md"), include_str!("../../docs/PROTOCOL.zh-CN.md")];

/// Codes and texts of each row.
fn rows(page: &str) -> Vec<(String, Vec<&str>)> {
    page.lines()
        .filter(|line| line.get(2..5).is_some_and(|code| code.starts_with(['4', '5']) && code.bytes().all(|byte| byte.is_ascii_digit())))
        .map(|row| {
            let codes = row.split('|').nth(1).unwrap_or_default().trim().replace('、', ", ");
            (codes, row.split('`').skip(1).step_by(2).collect())
        })
        .collect()
}

/// Every text with its code: those that are fixed, those of refusals, and those with something of the frame in them, up to there.
fn texts() -> Vec<(u16, String)> {
    let frames = [FrameError::BadMagic(0), FrameError::TooLong(0), FrameError::BadPayload];
    let registers = [RegisterError::InvalidNodeId, RegisterError::MetadataTooLong];
    let names = [BadTopic::Empty, BadTopic::TooLong, BadTopic::ControlCharacter, BadTopic::Wildcard, BadTopic::Misplaced];
    let refusals = [
        TopicRefusal::TooManyTopics,
        TopicRefusal::ServerFull,
        TopicRefusal::FilterHasNoPosition,
        TopicRefusal::TooManySubscriptions,
        TopicRefusal::OfServer,
        TopicRefusal::NoSuchNode,
        TopicRefusal::TooLong,
        TopicRefusal::Refused,
        TopicRefusal::TooManyDecisions,
    ];
    let beginning = |text: String| text.split('0').next().map(str::to_owned).unwrap_or_default();
    let mut all: Vec<(u16, String)> = TEXTS.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
    all.extend(frames.map(|error| (error.code(), beginning(error.answer()))));
    all.extend(registers.map(|error| (error.code(), error.to_string())));
    all.extend(names.map(TopicRefusal::Bad).into_iter().chain(refusals).map(|refusal| (refusal.code(), refusal.to_string())));
    all.push((code::INVALID_REQUEST, BadTopicFrame.to_string()));
    all
}

#[test]
fn every_text_of_an_error_is_in_the_table_with_its_code() {
    for page in PAGES {
        let rows = rows(page);
        for (code, text) in texts() {
            let is_there = |(codes, texts): &(String, Vec<&str>)| {
                codes.split(", ").any(|one| one == code.to_string()) && texts.iter().any(|one| one.starts_with(text.trim_end()))
            };
            assert!(rows.iter().any(is_there), "{code} {text}: in no row");
        }
    }
}

#[test]
fn both_languages_have_the_same_codes_and_texts() {
    let [english, chinese] = PAGES.map(rows);
    assert_eq!(english, chinese);
    assert!(english.len() > 10, "{english:?}");
}
