//! Keeps the walls of the house: which words may stand in which layer, read straight from the sources.
//!
//! Knows paths and text only; it understands as much Rust as it needs to skip comments. Each rule names the reason it
//! exists, and every rule is proven by a planted violation below: a wall nobody can run into is no wall.

#[path = "walls/circles.rs"]
mod circles;

use circles::{Circle, Sources, circles, uses};
use std::fs;
use std::path::{Path, PathBuf};

/// A word that must not stand in the code (comments aside) of the files below `inside`.
struct Ban {
    inside: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

/// The layers whose results must depend on their arguments alone.
const PURE: &[&str] = &["core/src/wire/", "core/src/hub/"];

const BANS: &[Ban] = &[
    Ban { inside: PURE, words: &["tokio", "mio"], why: "the pure layers run under any runtime, or none" },
    Ban { inside: PURE, words: &["TcpStream", "TcpListener", "UdpSocket", "UnixStream"], why: "only net owns sockets" },
    Ban { inside: PURE, words: &["Instant::now", "SystemTime"], why: "time is passed in, so that tests need no sleep" },
    Ban {
        inside: &["core/", "bench/", "fuzz/"],
        words: &["unsafe"],
        why: "unsafe code belongs to the C and PHP boundaries, each block with its reason",
    },
    Ban { inside: &["php-ext/"], words: &["heartbus_ffi", "heartbus-ffi"], why: "php-ext and ffi are twins: neither uses the other" },
    Ban { inside: &["ffi/"], words: &["heartbus_php", "heartbus-php"], why: "php-ext and ffi are twins: neither uses the other" },
    Ban {
        inside: &["core/"],
        words: &["heartbus_ffi", "heartbus-ffi", "heartbus_php", "heartbus-php", "ext_php_rs"],
        why: "the engine does not know its bindings",
    },
    Ban {
        inside: &[""],
        words: &["unbounded_channel", "unbounded", "UnboundedSender"],
        why: "every queue has a bound and a policy for when it is full",
    },
];

/// What a layer may name behind `crate::`. Layers not listed here may name everything.
const DOWNWARDS: &[(&str, &[&str])] = &[
    ("core/src/wire/", &["wire", "model", "settings"]),
    ("core/src/hub/", &["hub", "wire", "model", "settings"]),
    ("core/src/model", &["model"]),
    ("core/src/settings", &["settings", "error"]),
    ("core/src/error", &[]),
    ("core/src/process", &[]),
    ("core/src/descriptor", &[]),
    ("core/src/text", &[]),
];

/// What a layer must not name behind `crate::`, for layers that may name most things.
const NOT_UPWARDS: &[(&str, &[&str])] = &[
    ("core/src/net/", &["engine", "edge", "bus", "stats", "metrics"]),
    ("core/src/edge/", &["engine"]),
    ("core/src/service", ABOVE_NET),
    ("core/src/inbox", ABOVE_NET),
    ("core/src/event", ABOVE_NET),
    ("core/src/log", ABOVE_NET),
];

/// What must not be named by what net itself uses.
const ABOVE_NET: &[&str] = &["net", "engine", "edge", "bus", "stats", "metrics"];

/// The crates whose files must not stand in circles.
const CRATES: &[&str] = &["core", "php-ext", "ffi", "bench"];

/// Work somebody meant to come back to. Split, so that this file passes its own check.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
    concat!("db", "g!"),
];

/// Everything wrong with one file, as `path:line: what (why)`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = |what: &str, why: &str| format!("{path}:{}: {what} ({why})", index + 1);
        for word in LEFTOVERS.iter().filter(|word| has_word(line, word)) {
            found.push(at(word, "finish it, or write an issue"));
        }
        let code = code_of(line, path);
        for ban in BANS.iter().filter(|ban| ban.inside.iter().any(|inside| path.starts_with(inside))) {
            for word in ban.words.iter().filter(|word| has_word(code, word)) {
                found.push(at(word, ban.why));
            }
        }
        if calls_without_arguments(code, "channel") {
            found.push(at("channel()", "every queue has a bound: std's channel() has none, sync_channel(n) does"));
        }
    }
    let roots = crate_roots(text, path);
    for (layer, allowed) in DOWNWARDS.iter().filter(|(layer, _)| path.starts_with(layer)) {
        for (line, root) in roots.iter().filter(|(_, root)| !allowed.contains(&root.as_str())) {
            found.push(format!("{path}:{line}: crate::{root} (imports go down only, {layer} may use {})", allowed.join(", ")));
        }
    }
    for (layer, refused) in NOT_UPWARDS.iter().filter(|(layer, _)| path.starts_with(layer)) {
        for (line, root) in roots.iter().filter(|(_, root)| refused.contains(&root.as_str())) {
            found.push(format!("{path}:{line}: crate::{root} (imports go down only, {layer} is below it)"));
        }
    }
    found
}

/// The line without its comment. A `//` inside a string is no comment.
fn code_of<'a>(line: &'a str, path: &str) -> &'a str {
    let comment = if path.ends_with(".toml") { "#" } else { "//" };
    let mut quotes = 0;
    for (index, character) in line.char_indices() {
        match character {
            '"' if !line[..index].ends_with('\\') && !line[..index].ends_with('\'') => quotes += 1,
            _ if quotes % 2 == 0 && line[index..].starts_with(comment) => return &line[..index],
            _ => {}
        }
    }
    line
}

/// Whether `word` stands in `text` with no identifier character on either side.
fn has_word(text: &str, word: &str) -> bool {
    let joins = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(index, _)| {
        let after = &text[index + word.len()..];
        !text[..index].ends_with(joins) && (word.ends_with('!') || !after.starts_with(joins))
    })
}

/// `channel()` and `channel::<T>()` as a plain call; a method `.channel()` or `fn channel()` is something else.
fn calls_without_arguments(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(index, _)| {
        let before = code[..index].trim_end();
        let mut after = &code[index + name.len()..];
        if let Some(types) = after.strip_prefix("::<") {
            after = types.split_once(">(").map_or("", |(_, rest)| rest).trim_start();
            after = if after.starts_with(')') { "()" } else { "" };
        }
        let is_whole_word = !code[..index].ends_with(|character: char| character.is_alphanumeric() || character == '_');
        is_whole_word && after.starts_with("()") && !before.ends_with('.') && !before.ends_with("fn")
    })
}

/// The first path segment of every `crate::…` in the code, with its line: `crate::{hub, net::X}` names hub and net.
fn crate_roots(text: &str, path: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|line| format!("{}\n", code_of(line, path))).collect();
    let mut roots = Vec::new();
    for (index, found) in code.match_indices("crate::") {
        if code[..index].ends_with(|character: char| character.is_alphanumeric() || character == '_' || character == '$') {
            continue;
        }
        let line = code[..index].matches('\n').count() + 1;
        let rest = &code[index + found.len()..];
        if !rest.starts_with('{') {
            roots.push((line, first_identifier(rest)));
            continue;
        }
        let mut depth = 0;
        let mut expects_name = false;
        for (offset, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => {}
                character if character.is_whitespace() => continue,
                _ if depth == 1 && expects_name => roots.push((line, first_identifier(&rest[offset..]))),
                _ => {}
            }
            expects_name = depth == 1 && matches!(character, '{' | ',');
            if depth == 0 {
                break;
            }
        }
    }
    roots
}

fn first_identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core stands in the repository's root").to_path_buf()
}

/// The sources below `folder`, without anything that is built, fetched or generated.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    const NOT_OURS: &[&str] = &["target", "build", "vendor", "corpus", "artifacts", "node_modules"];
    const SOURCE: &[&str] = &["rs", "toml", "c", "h", "php", "sh", "py", "go"];
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || path.is_symlink() || NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| SOURCE.iter().any(|source| extension == *source)) {
            into.push(path);
        }
    }
}

#[test]
fn the_walls_hold() {
    let root = repository();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let itself = Path::new("core/tests/walls.rs");
    let mut found = Vec::new();
    let mut read = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&root).expect("a path below the root");
        if path == itself {
            continue;
        }
        let text = fs::read_to_string(file).expect("sources are UTF-8");
        found.extend(violations(&path.to_string_lossy(), &text));
        read.push(path.to_string_lossy().into_owned());
    }
    // A renamed folder must not turn this check into one that reads nothing.
    for layer in ["core/src/wire/", "core/src/hub/", "core/src/net/", "php-ext/src/", "ffi/src/"] {
        assert!(read.iter().any(|path| path.starts_with(layer)), "no source was found below {layer}");
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_engine_forbids_unsafe_code_in_every_build() {
    let lib = fs::read_to_string(repository().join("core/src/lib.rs")).expect("core/src/lib.rs");
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn a_planted_violation_is_caught() {
    let planted = [
        ("core/src/wire/mod.rs", "use tokio::net::TcpListener;", "tokio"),
        ("core/src/hub/wheel.rs", "let poll = mio::Poll::new();", "mio"),
        ("core/src/hub/node.rs", "let socket: std::net::UnixStream = socket();", "UnixStream"),
        ("core/src/hub/wheel.rs", "let now = std::time::Instant::now();", "Instant::now"),
        ("core/src/hub/wheel.rs", "use std::time::SystemTime;", "SystemTime"),
        ("core/src/net/io.rs", "let x = unsafe { y() };", "unsafe"),
        ("core/src/net/io.rs", "let url = \"http://x\"; unsafe { y() };", "unsafe"),
        ("core/tests/engine.rs", "unsafe fn f() {}", "unsafe"),
        ("core/Cargo.toml", "heartbus-ffi = { path = \"../ffi\" }", "heartbus-ffi"),
        ("php-ext/src/lib.rs", "use heartbus_ffi::hb_server;", "heartbus_ffi"),
        ("ffi/Cargo.toml", "heartbus-php = { path = \"../php-ext\" }", "heartbus-php"),
        ("php-ext/src/lib.rs", "let (a, b) = tokio::sync::mpsc::unbounded_channel();", "unbounded_channel"),
        ("core/src/net/io.rs", "let (a, b) = std::sync::mpsc::channel();", "channel()"),
        ("core/src/net/io.rs", "let (a, b) = channel::<Vec<u8>>();", "channel()"),
        ("core/src/wire/code.rs", "use crate::hub::Node;", "crate::hub"),
        ("core/src/wire/code.rs", "fn f(x: crate::Error) {}", "crate::Error"),
        ("core/src/hub/mod.rs", "use crate::net::Session;", "crate::net"),
        ("core/src/hub/mod.rs", "use crate::{\n    wire::{Frame, Kind},\n    event::Event,\n};", "crate::event"),
        ("core/src/hub/mod.rs", "pub(crate) use crate::inbox::Inbox;", "crate::inbox"),
        ("core/src/net/client.rs", "use crate::engine::Engine;", "crate::engine"),
        ("core/src/net/bus/mod.rs", "use crate::stats::record;", "crate::stats"),
        ("core/src/inbox.rs", "use crate::net::Server;", "crate::net"),
        ("core/src/log/quota.rs", "use crate::engine::Engine;", "crate::engine"),
        ("core/src/process.rs", "use crate::error::Error;", "crate::error"),
        ("php-ext/src/lib.rs", concat!("// TO", "DO: later"), concat!("TO", "DO")),
        ("tests/c/main.c", concat!("/* FIX", "ME */"), concat!("FIX", "ME")),
        ("core/src/net/io.rs", concat!("to", "do!(\"later\")"), concat!("to", "do!")),
        ("core/src/net/io.rs", concat!("unimpl", "emented!()"), concat!("unimpl", "emented!")),
        ("core/src/net/io.rs", concat!("db", "g!(x);"), concat!("db", "g!")),
    ];
    for (path, text, word) in planted {
        let found = violations(path, text);
        assert!(found.iter().any(|violation| violation.contains(word)), "{path}: {text:?} passed: {found:?}");
    }
}

#[test]
fn what_only_looks_like_a_violation_passes() {
    let innocent = [
        ("core/src/wire/mod.rs", "//! Knows no tokio, no TcpStream, no Instant::now."),
        ("core/src/hub/node.rs", "use std::net::IpAddr; // an address is a value, a TcpStream is not"),
        ("core/src/hub/mod.rs", "use crate::{hub::{Node, net_of}, wire::Frame};"),
        ("core/src/hub/mod.rs", "pub(crate) fn f() { $crate::whatever!() }"),
        ("core/src/net/io.rs", "#![forbid(unsafe_code)]"),
        ("core/src/net/io.rs", "let (a, b) = tokio::sync::mpsc::channel(64);"),
        ("core/src/net/io.rs", "let id = node.channel(); fn channel() {}"),
        ("core/src/net/io.rs", "let id = reply_channel();"),
        ("php-ext/src/lib.rs", "unsafe { shim() } // SAFETY: the shim copies"),
        ("php-ext/src/lib.rs", "let mastodon = 1;"),
    ];
    for (path, text) in innocent {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text:?}");
    }
}

/// The files below `src` of a crate.
fn sources_of(name: &str) -> Sources {
    let src = repository().join(name).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let rust = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let texts = rust.map(|file| {
        let path = file.strip_prefix(&src).expect("a path below src").to_string_lossy().into_owned();
        (path, fs::read_to_string(file).expect("sources are UTF-8"))
    });
    texts.collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut told = Vec::new();
    for name in CRATES {
        let sources = sources_of(name);
        assert!(sources.contains_key("lib.rs"), "{name} has no src/lib.rs");
        let uses = uses(&sources);
        for circle in circles(&sources) {
            for file in &circle {
                let used = uses[file].intersection(&circle).cloned().collect::<Vec<_>>().join(", ");
                told.push(format!("{name}/src/{file} uses {used}: they use it, directly or around some corners"));
            }
        }
    }
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
}

/// The types that a file defines for the crate: those of its tests and those that belong to a trait stand further to the right.
fn types_of<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    if path.ends_with("tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let name_of = |line: &'a str| {
        let rest = match line.strip_prefix("pub") {
            // `pub(in crate::x)` has a space within its parentheses.
            Some(rest) if rest.starts_with('(') => rest.split_once(')').map_or("", |(_, rest)| rest).trim_start(),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let rest = ["struct ", "enum ", "union ", "trait ", "type "].iter().find_map(|word| rest.strip_prefix(word))?;
        Some(&rest[..rest.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(rest.len())])
    };
    text.lines().filter_map(name_of).collect()
}

#[test]
fn a_name_of_a_type_stands_once_in_a_crate() {
    let mut told = Vec::new();
    for name in CRATES {
        let mut found: std::collections::BTreeMap<String, String> = Default::default();
        for (path, text) in sources_of(name) {
            for type_name in types_of(&path, &text) {
                if let Some(other) = found.insert(type_name.to_owned(), path.clone()) {
                    told.push(format!("{name}: {type_name} is in {other} and in {path}"));
                }
            }
        }
        assert!(found.len() > 10, "{name} has hardly a type: {found:?}");
    }
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
    let text = "pub struct One;\npub(super) enum Two<T> {\nstruct Three(u8);\n    type Item = u8;\npub trait Four: Five {\ntype Six = One;\n\
        pub(in crate::a) struct Seven;\npublic struct Eight;";
    assert_eq!(types_of("a.rs", text), ["One", "Two", "Three", "Four", "Six", "Seven"]);
    assert_eq!(types_of("a/tests.rs", text), [""; 0]);
}

/// Files of a crate of few words, by their paths.
type Planted<'a> = &'a [(&'a str, &'a str)];

fn planted(files: Planted<'_>) -> Sources {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn circle(files: &[&str]) -> Circle {
    files.iter().map(|file| (*file).to_owned()).collect()
}

#[test]
fn a_planted_circle_is_found() {
    let lib = ("lib.rs", "mod a; mod b; mod c;");
    let cases: &[(Planted<'_>, &[&str])] = &[
        (&[lib, ("a.rs", "use crate::b::B; struct A;"), ("b.rs", "use crate::a::A; struct B;")], &["a.rs", "b.rs"]),
        // Around a corner, in the code, in a list of names, inside a macro.
        (
            &[
                lib,
                ("a.rs", "pub fn a() { vec![crate::b::b()] }"),
                ("b.rs", "use crate::{c::{self, C}}; pub fn b() { c::c() }"),
                ("c.rs", "use super::a; pub struct C; pub fn c() { a::a() }"),
            ],
            &["a.rs", "b.rs", "c.rs"],
        ),
        // Whoever hands a name on does not own it.
        (
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a/mod.rs", "mod inner; pub use inner::A;"),
                ("a/inner.rs", "use crate::b::B; pub struct A;"),
                ("b.rs", "use crate::a::A; pub struct B;"),
            ],
            &["a/inner.rs", "b.rs"],
        ),
        // A child uses what its parent defines, and the parent the child.
        (
            &[
                ("lib.rs", "mod a;"),
                ("a.rs", "mod inner; pub struct A; fn f() { inner::g() }"),
                ("a/inner.rs", "use super::A; pub fn g() {}"),
            ],
            &["a.rs", "a/inner.rs"],
        ),
        (
            &[
                ("lib.rs", "mod a;"),
                ("a.rs", "mod inner; pub use inner::*; pub struct A;"),
                ("a/inner.rs", "use super::*; fn f(a: super::A) {}"),
            ],
            &["a.rs", "a/inner.rs"],
        ),
    ];
    for (files, expected) in cases {
        assert_eq!(circles(&planted(files)), [circle(expected)], "{files:?}");
    }
}

#[test]
fn what_only_looks_like_a_circle_is_none() {
    let cases: &[Planted<'_>] = &[
        // The parent names its children's things, they each other's.
        &[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod one; mod two; pub use one::One; pub use two::Two;"),
            ("a/one.rs", "use super::Two; pub struct One;"),
            ("a/two.rs", "pub struct Two;"),
        ],
        // The children use their parent, which only declares them.
        &[("lib.rs", "mod a;"), ("a.rs", "mod inner; pub struct A;"), ("a/inner.rs", "use super::A; impl A {}")],
        // Tests, comments and texts.
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; // crate::a::A\n const T: &str = \"crate::a::A\"; #[cfg(test)] mod tests { use crate::a::A; }"),
        ],
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "#[cfg(test)] mod tests; pub struct B;"),
            ("b/tests.rs", "use crate::a::A; use super::B;"),
        ],
        // Names of other crates that look like modules of this one.
        &[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", "use other::a::A; pub struct B;")],
    ];
    for files in cases {
        assert_eq!(circles(&planted(files)), Vec::<Circle>::new(), "{files:?}");
    }
}
