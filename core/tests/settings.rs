//! The tables of settings that people read are what the rows say. HEARTBUS_UPDATE=1 writes them anew instead: in the Chinese pages names
//! and defaults only, the rest is a translation.

use heartbus_core::settings::{self, ClientConfig, HistoryRule, Listed, ServerConfig, Settings, ValueKind};
use heartbus_core::wire::{MAX_BODY_LEN, control};
use std::fs;
use std::path::Path;

/// Name, default, text.
type Cells = [String; 3];

/// A table of a page: what stands before it, and what it shall have.
struct Table {
    page: &'static str,
    before: &'static str,
    is_translation: bool,
    rows: Vec<Cells>,
}

fn with_note(text: &str, note: &str) -> String {
    if note.is_empty() { text.to_owned() } else { format!("{text}; {note}") }
}

fn in_php(listed: &[Listed]) -> Vec<Cells> {
    let rows = listed.iter().filter(|row| !row.setting.php.name.is_empty());
    rows.map(|row| {
        let (setting, default) = (&row.setting, row.php_default());
        let names = setting.php_names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        [names, default, with_note(setting.text, setting.php.note)]
    })
    .collect()
}

fn in_c(listed: &[Listed]) -> Vec<Cells> {
    let rows = listed.iter().filter(|row| !row.setting.c.name.is_empty());
    rows.map(|row| {
        let (setting, default) = (&row.setting, row.default.json());
        [format!("`{}`", setting.c.name), format!("`{default}`"), with_note(setting.text, setting.c.note)]
    })
    .collect()
}

fn tables() -> Vec<Table> {
    let (server, client, clients) = (settings::of_server(), settings::of_client(), settings::of_clients());
    let [c_server, c_client, c_clients] =
        ["\n### `heartbus_server_start`\n", "\n### `heartbus_client_connect`\n", "\n### `heartbus_clients_start`\n"];
    let mut tables = Vec::new();
    for (page, before, rows) in [
        ("README.md", "\nServer:\n", in_php(&server)),
        ("README.md", "\nClient:\n", in_php(&client)),
        ("README.zh-CN.md", "\n服务端：\n", in_php(&server)),
        ("README.zh-CN.md", "\n客户端：\n", in_php(&client)),
    ] {
        tables.push(Table { page, before, is_translation: page.contains("zh-CN"), rows });
    }
    for page in ["docs/C-API.md", "docs/C-API.zh-CN.md"] {
        for (before, listed) in [(c_server, &server), (c_client, &client), (c_clients, &clients)] {
            tables.push(Table { page, before, is_translation: page.contains("zh-CN"), rows: in_c(listed) });
        }
    }
    tables
}

/// Where the rows of a table stand in its page, below its head.
fn place(page: &str, before: &str) -> std::ops::Range<usize> {
    let section = page.find(before).unwrap_or_else(|| panic!("no {before:?}")) + before.len();
    let table = section + page[section..].find("\n|").expect("a table") + 1;
    let head: usize = page[table..].lines().take(2).map(|line| line.len() + 1).sum();
    let rows: usize = page[table + head..].lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum();
    table + head..table + head + rows
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The table as it shall be; a translation keeps its own words.
fn wanted(table: &Table, standing: &str) -> String {
    let row = |[name, default, text]: &Cells| {
        let own = standing.lines().map(cells).find(|row| row[0] == name);
        match (table.is_translation, own) {
            (false, _) => format!("| {name} | {default} | {text} |\n"),
            // Words for what is no plain value are translated.
            (true, Some(own)) if default.contains(' ') || ["none", "off"].contains(&default.as_str()) => {
                format!("| {name} | {} | {} |\n", own[1], own[2])
            }
            (true, own) => format!("| {name} | {default} | {} |\n", own.map_or("", |own| own[2])),
        }
    };
    table.rows.iter().map(row).collect()
}

#[test]
fn the_pages_have_a_row_for_every_setting_with_its_default_and_its_text() {
    for table in tables() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(table.page);
        let page = fs::read_to_string(&path).unwrap();
        let place = place(&page, table.before);
        let wanted = wanted(&table, &page[place.clone()]);
        if std::env::var_os("HEARTBUS_UPDATE").is_some() {
            fs::write(&path, format!("{}{wanted}{}", &page[..place.start], &page[place.end..])).unwrap();
        } else {
            assert_eq!(page[place], wanted, "{} is not what the rows of core/src/settings.rs say: run `make settings`", table.page);
        }
        for row in wanted.lines().map(cells) {
            assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{}: each setting has a meaning: {row:?}", table.page);
        }
    }
}

/// What PHP's arrays may hold, as tools that read types spell it.
fn shape(listed: &[Listed]) -> String {
    let rows = listed.iter().filter(|row| !row.setting.php.name.is_empty());
    let keys = rows.flat_map(|row| row.setting.php_names().into_iter().map(move |name| format!("{name}?: {}", php_type(row.setting.kind))));
    keys.collect::<Vec<_>>().join(", ")
}

fn php_type(kind: ValueKind) -> String {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join("|");
    match kind {
        ValueKind::Whole { least, most } if most - least < 3 => {
            (least..=most).map(|number| number.to_string()).collect::<Vec<_>>().join("|")
        }
        ValueKind::Whole { .. } => "int".into(),
        ValueKind::Number { .. } | ValueKind::Seconds | ValueKind::SecondsOrNone => "int|float".into(),
        ValueKind::Flag => "bool".into(),
        ValueKind::Text | ValueKind::Name => "string".into(),
        ValueKind::Account => "string|int".into(),
        ValueKind::Choice(words) => quoted(words),
        ValueKind::Networks => "list<string>".into(),
        ValueKind::Socket => "string|false".into(),
        ValueKind::Door => "string|bool".into(),
        ValueKind::Texts => "list<string>".into(),
        ValueKind::History => format!("array<array{{{}}}>", shape(&HistoryRule::listed())),
        ValueKind::Json => "array<mixed>".into(),
        ValueKind::Any => "mixed".into(),
    }
}

#[test]
fn the_stubs_have_the_type_of_every_setting_of_phps() {
    let [server, client] = [settings::of_server(), settings::of_client()].map(|listed| shape(&listed));
    let wanted = format!(
        "<?php\n\n/** Made from the rows of core/src/settings.rs by `make settings`: what the configuration arrays may hold. */\n\n\
        return [\n    'server' => \"{server}\",\n    'client' => \"{client}\",\n];\n"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../php-ext/stubs/settings.php");
    if std::env::var_os("HEARTBUS_UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let standing = fs::read_to_string(&path).unwrap_or_default();
    assert!(standing == wanted, "php-ext/stubs/settings.php is not what the rows of core/src/settings.rs say: run `make settings`");
}

#[test]
fn a_table_is_found_and_a_translation_keeps_its_words_but_not_its_defaults() {
    let page = "a\nServer:\n\n| Key | |\n|---|---|\n| `a` | 1 | eins |\n| `b` | keine | zwei |\n\n| other |\n";
    let place = place(page, "\nServer:\n");
    assert_eq!(&page[place.clone()], "| `a` | 1 | eins |\n| `b` | keine | zwei |\n");
    let rows = [["`b`", "none", "two"], ["`a`", "5", "one"], ["`c`", "3", "three"]].map(|row| row.map(str::to_owned)).to_vec();
    let table = |is_translation| Table { page: "", before: "", is_translation, rows: rows.clone() };
    assert_eq!(wanted(&table(true), &page[place.clone()]), "| `b` | keine | zwei |\n| `a` | 5 | eins |\n| `c` | 3 |  |\n");
    assert_eq!(wanted(&table(false), &page[place]), "| `b` | none | two |\n| `a` | 5 | one |\n| `c` | 3 | three |\n");
}

#[test]
fn what_the_wire_lays_down_is_the_default_too() {
    assert_eq!(ServerConfig::default().max_frame_bytes, MAX_BODY_LEN);
    assert_eq!(ClientConfig::default().protocol, control::NEWEST_PROTOCOL);
}
