//! docs/C-API.md has a table of what the engine offers, and what that is called in PHP and in C. Nothing of the engine's public
//! face may be missing there, nothing in it may be made up, and every function of the header must be somewhere.

use heartbus_core::engine::Stats;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules of the engine that bindings use. Those of which a table would only repeat field by field what the header says
/// already (log records, metrics, numbers) are checked elsewhere: what they are made of is matched exhaustively in ffi/src.
const FACE: &[&str] = &[
    "engine.rs",
    "engine/topics.rs",
    "bus.rs",
    "bus/caller.rs",
    "bus/attachment.rs",
    "bus/folders.rs",
    "inbox.rs",
    "settings.rs",
    "net/bus/places.rs",
    "net/client.rs",
    "net/feed.rs",
    "model.rs",
    "model/question.rs",
    "model/record.rs",
];
const OTHER_MODULES: &[&str] = &["descriptor", "error", "event", "hub", "log", "metrics", "net", "process", "service", "text", "wire"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ffi stands in the repository's root").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    &text[..end]
}

/// `Type::name` for public methods, public fields and variants of public enums, `name` for free functions.
fn public_names(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside: Option<(&str, String)> = None;
    for line in source.lines().take_while(|line| *line != "#[cfg(test)]") {
        if line == "}" {
            inside = None;
        } else if !line.starts_with([' ', '/', '#']) {
            let (kind, rest) = match line {
                _ if line.starts_with("pub fn ") => {
                    names.insert(identifier(&line["pub fn ".len()..]).to_owned());
                    continue;
                }
                _ if line.starts_with("pub struct ") => ("struct", &line["pub struct ".len()..]),
                _ if line.starts_with("pub enum ") => ("enum", &line["pub enum ".len()..]),
                // Not traits: what they promise is for the layers below.
                _ if line.starts_with("impl ") && !line.contains(" for ") => ("impl", &line["impl ".len()..]),
                _ if line.starts_with("impl<") && !line.contains(" for ") => ("impl", line.split_once("> ").map_or("", |(_, owner)| owner)),
                _ => continue,
            };
            inside = line.ends_with('{').then(|| (kind, identifier(rest).to_owned()));
        } else if let (Some((kind, owner)), Some(member)) = (&inside, line.strip_prefix("    ")) {
            let member = match *kind {
                "impl" => member.strip_prefix("pub fn "),
                "struct" => member.strip_prefix("pub "),
                _ => Some(member).filter(|member| member.starts_with(|first: char| first.is_ascii_uppercase())),
            };
            if let Some(member) = member {
                names.insert(format!("{owner}::{}", identifier(member)));
            }
        }
    }
    names
}

/// Structs that are made of rows stand in a macro, as if they were written plainly.
fn without_macros(source: &str) -> String {
    let mut is_inside = false;
    let plain = source.lines().map(|line| {
        is_inside = if is_inside { line != "}" } else { ["settings! {", "choices! {", "numbered! {"].contains(&line) };
        // One deeper are the fields that are no settings.
        let indent = if line.starts_with("            pub ") { "        " } else { "    " };
        if is_inside { line.strip_prefix(indent).unwrap_or(line) } else { line }
    });
    plain.collect::<Vec<_>>().join("\n")
}

fn face() -> BTreeSet<String> {
    FACE.iter().flat_map(|file| public_names(&without_macros(&read(&format!("core/src/{file}"))))).collect()
}

/// The rows of the table, as cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let table = page.split("| PHP | C |\n").nth(1).expect("the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The names of the numbers in the second table of the page.
fn numbers(page: &str) -> Vec<String> {
    let table = page.split("\n| `heartbus_server_stats` |").nth(1).expect("the table of numbers");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| quoted(row).next().expect("a name")).collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn the_table_names_all_that_the_engine_offers_and_nothing_else() {
    let rows = rows(&read("docs/C-API.md"));
    let named: BTreeSet<String> = rows.iter().flat_map(|row| quoted(&row[0]).collect::<Vec<_>>()).collect();
    let face = face();
    let missing: Vec<_> = face.difference(&named).collect();
    assert!(missing.is_empty(), "docs/C-API.md and its translation must say what these are in PHP and in C: {missing:#?}");
    let unknown: Vec<_> = named.difference(&face).collect();
    assert!(unknown.is_empty(), "the table of docs/C-API.md names what the engine does not offer: {unknown:#?}");
    for row in &rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "three cells, each with an answer: {row:?}");
    }
}

#[test]
fn a_new_module_of_the_engine_is_noticed() {
    for module in read("core/src/lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(
            FACE.contains(&format!("{module}.rs").as_str()) || OTHER_MODULES.contains(&module),
            "is core/src/{module}.rs for bindings?"
        );
    }
}

#[test]
fn every_function_of_the_header_is_in_the_table_and_exists() {
    let page = read("docs/C-API.md");
    let declared: BTreeSet<String> = read("ffi/abi.txt")
        .lines()
        .filter_map(|line| line.strip_prefix("function ")?.split('(').next()?.split([' ', '*']).next_back().map(str::to_owned))
        .collect();
    let table: String = rows(&page).into_iter().map(|row| row[2].clone()).collect();
    let named: BTreeSet<String> =
        quoted(&table).map(|name| name.trim_end_matches("()").to_owned()).filter(|name| name.starts_with("heartbus_")).collect();
    // Those that belong to no capability of the engine stand in the text.
    let in_text: BTreeSet<String> = quoted(&page).map(|name| identifier(&name).to_owned()).collect();
    for function in &declared {
        assert!(named.contains(function) || in_text.contains(function), "docs/C-API.md does not name {function}");
    }
    let types = read("include/heartbus.h");
    for name in &named {
        assert!(types.contains(name.as_str()), "docs/C-API.md names {name}, which the header does not have");
    }
}

/// `NumbersTest` of the PHPUnit tests holds what PHP's `getStats()` says against the same table.
#[test]
fn the_page_and_its_translation_name_every_number_of_a_server_in_its_order() {
    let names: Vec<&str> = Stats::default().list().into_iter().map(|(name, _)| name).collect();
    for page in ["docs/C-API.md", "docs/C-API.zh-CN.md"] {
        assert_eq!(numbers(&read(page)), names, "{page}");
    }
}

#[test]
fn the_translation_has_the_same_table_and_the_same_programs() {
    let (english, chinese) = (read("docs/C-API.md"), read("docs/C-API.zh-CN.md"));
    let names = |page: &str| -> Vec<Vec<Vec<String>>> {
        rows(page).iter().map(|row| row.iter().map(|cell| quoted(cell).collect()).collect()).collect()
    };
    for (english, chinese) in names(&english).into_iter().zip(names(&chinese)) {
        assert_eq!(english, chinese);
    }
    assert_eq!(rows(&english).len(), rows(&chinese).len());
    let programs = |page: &str| -> Vec<String> { page.split("```").skip(1).step_by(2).map(str::to_owned).collect() };
    assert_eq!(programs(&english), programs(&chinese));
}

#[test]
fn structs_made_of_rows_are_public_names_too() {
    let source = "macro_rules! settings {}\nsettings! {\n    /// A lamp.\n    pub struct Lamp {\n        /// whether it is on\n        \
        pub on: bool = false, Kind::Flag;\n        besides {\n            pub colour: u8 = 0;\n        }\n    }\n}\npub fn free() {}\n";
    let names: Vec<String> = public_names(&without_macros(source)).into_iter().collect();
    assert_eq!(names, ["Lamp::colour", "Lamp::on", "free"]);
}

#[test]
fn what_is_public_is_found() {
    let source = "pub fn free() {}\nfn hidden() {}\npub struct Lamp {\n    pub on: bool,\n    inner: u8,\n}\nimpl Lamp {\n    pub fn light(&self) {\n        \
        pub_like();\n    }\n    fn dim(&self) {}\n}\nimpl Drop for Lamp {\n    fn drop(&mut self) {}\n}\npub enum Colour<N = u8> {\n    /// Red.\n    Red,\n    \
        Other { n: N },\n}\n#[cfg(test)]\npub fn in_a_test() {}\n";
    let names: Vec<String> = public_names(source).into_iter().collect();
    assert_eq!(names, ["Colour::Other", "Colour::Red", "Lamp::light", "Lamp::on", "free"]);
}
