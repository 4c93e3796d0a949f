//! The committed headers, and the list of what the shared library exports, are what the sources say. HEARTBUS_UPDATE=1 writes the
//! headers anew instead (`make header`).

use cbindgen::{Builder, Config};
use heartbus_core::settings::{self, Listed};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ffi stands in the repository's root").to_path_buf()
}

/// Reads the sources one by one in a fixed order; asking cargo for them would want the network on a fresh machine.
fn generate(change: impl FnOnce(&mut Config)) -> String {
    let ffi = repository().join("ffi");
    let mut config = Config::from_file(ffi.join("cbindgen.toml")).expect("cbindgen.toml");
    config.after_includes = Some(version_macros());
    config.header = config.header.map(|header| header.replace(" * @settings@\n", &listed_settings()));
    change(&mut config);
    let mut builder = Builder::new().with_config(config);
    let sources = [
        "version",
        "status",
        "code",
        "event",
        "server",
        "nodes",
        "statistics",
        "clients",
        "client_topics",
        "log",
        "bus",
        "bus_topics",
        "topics",
        "user_data",
    ];
    for source in sources {
        builder = builder.with_src(ffi.join("src").join(source).with_extension("rs"));
    }
    let calls = std::env::temp_dir().join(format!("heartbus-calls-{}-{:?}.rs", std::process::id(), std::thread::current().id()));
    fs::write(&calls, declared_calls()).expect("a file in the folder for temporary ones");
    builder = builder.with_src(&calls);
    let mut header = Vec::new();
    builder.generate().expect("a header").write(&mut header);
    let _ = fs::remove_file(calls);
    String::from_utf8(header).expect("UTF-8")
}

/// The functions of the rows in calls.rs, which are a macro's: cbindgen does not look into one.
fn declared_calls() -> String {
    let source = fs::read_to_string(repository().join("ffi/src/calls.rs")).expect("calls.rs");
    let rows = source.split_once("\ncalls! {\n").and_then(|(_, rest)| rest.split_once("\n}\n")).expect("the rows of calls!").0;
    let mut declared = String::new();
    for row in rows.split("\n\n") {
        let (texts, code): (Vec<&str>, Vec<&str>) = row.lines().map(str::trim).partition(|line| line.starts_with("///"));
        let code = code.join(" ");
        let (names, rest) = code.split_once('(').expect("parameters");
        let parameters = rest.split_once("):").expect("the end of the parameters").0;
        let (server, bus) = names.split_once(", ").expect("two names");
        let (mutability, server) = server.trim_start_matches('*').split_once(' ').expect("const or mut");
        let as_server = format!("/// As {server}.");
        for (name, handle, texts) in [
            (server, format!("server: *{mutability} heartbus_server"), texts.join("\n")),
            (bus, "bus: *mut heartbus_bus".into(), as_server),
        ] {
            declared += &format!(
                "{texts}\n#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn {name}({handle}, {parameters}) -> heartbus_status {{}}\n"
            );
        }
    }
    declared
}

/// The configuration's keys with their defaults and meanings, from the rows of core/src/settings.rs.
fn listed_settings() -> String {
    let mut lines = String::new();
    for (title, listed) in [
        ("Server, heartbus_server_start", settings::of_server()),
        ("Client, heartbus_client_connect", settings::of_client()),
        ("Group of clients, heartbus_clients_start", settings::of_clients()),
    ] {
        if !lines.is_empty() {
            lines.push_str(" *\n");
        }
        writeln!(lines, " * {title}:").expect("a String takes all");
        for Listed { setting, default } in listed.iter().filter(|listed| !listed.setting.c.name.is_empty()) {
            let note = if setting.c.note.is_empty() { String::new() } else { format!("; {}", setting.c.note) };
            let text = format!("{} {}: {}{note}", setting.c.name, default.json(), setting.text).replace('`', "");
            let mut line = String::from(" *    ");
            for word in text.split(' ') {
                if line.len() + word.len() >= 120 {
                    writeln!(lines, "{line}").expect("a String takes all");
                    line = String::from(" *        ");
                }
                write!(line, " {word}").expect("a String takes all");
            }
            writeln!(lines, "{line}").expect("a String takes all");
        }
    }
    // What is said of an address must not end the comment.
    lines.replace("*/", "* /")
}

/// What a program was compiled with, where heartbus_version() is what it runs with.
fn version_macros() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let [major, minor, patch] = [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
    format!(
        "\n// The version of this header; heartbus_version() is that of the library.\n#define HEARTBUS_VERSION_MAJOR {major}\n\
        #define HEARTBUS_VERSION_MINOR {minor}\n#define HEARTBUS_VERSION_PATCH {patch}\n#define HEARTBUS_VERSION_STRING \"{version}\""
    )
}

fn compare(name: &str, generated: &str) {
    let path = repository().join("include").join(name);
    if std::env::var_os("HEARTBUS_UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("include/");
        fs::write(&path, generated).expect("a writable header");
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).position(|(one, other)| one != other);
    assert!(
        committed == generated,
        "include/{name} is not what the sources say, first in line {}: run `make header` and commit it",
        differs.unwrap_or(committed.lines().count().min(generated.lines().count())) + 1
    );
}

#[test]
fn heartbus_h_is_what_the_sources_say() {
    compare("heartbus.h", &generate(|_| ()));
}

#[test]
fn heartbus_ffi_h_is_the_same_without_what_php_cannot_read() {
    let plain = generate(|config| {
        config.cpp_compat = false;
        config.include_guard = None;
        config.sys_includes.clear();
        config.after_includes = None;
        config.header = Some("/* heartbus.h for PHP's FFI::cdef(), which knows the standard types and no preprocessor. */".into());
    });
    // Its #define is one that FFI::cdef() would not see; heartbus_abi_version() tells the number.
    let plain: String = plain.lines().filter(|line| !line.starts_with("#define")).map(|line| format!("{line}\n")).collect();
    assert!(!plain.lines().any(|line| line.starts_with('#')), "{plain}");
    compare("heartbus_ffi.h", &plain);
}

#[test]
fn every_source_with_an_exported_function_is_read() {
    let header = generate(|_| ());
    for entry in fs::read_dir(repository().join("ffi/src")).expect("ffi/src") {
        let source = fs::read_to_string(entry.expect("a readable entry").path()).expect("UTF-8");
        for line in source.lines().filter(|line| line.contains("pub ") && line.contains("extern \"C\" fn ") && !line.contains("fn $")) {
            let name = line.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).expect("a name");
            assert!(header.contains(&format!(" {name}(")) || header.contains(&format!("*{name}(")), "{name} is not in the header");
        }
    }
}

#[test]
fn the_shared_library_exports_the_functions_of_the_header_and_nothing_else() {
    let exported = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter_map(|line| line.trim().strip_suffix(';'))
            .filter(|line| *line != "*" && !line.starts_with('}'))
            .map(str::to_owned)
            .collect()
    };
    let path = repository().join("ffi/libheartbus.map");
    let header = generate(|_| ());
    let declared = header.split_once("extern \"C\" {").expect("functions come last").1;
    let declared = declared.lines().filter(|line| !line.trim_start().starts_with("//"));
    let declared = declared.filter_map(|line| line.split_once('(')?.0.split([' ', '*']).next_back());
    let declared: BTreeSet<String> = declared.filter(|name| name.starts_with("heartbus_")).map(str::to_owned).collect();
    let mut map = fs::read_to_string(&path).expect("libheartbus.map");
    let (_, listed) = map.split_once("*/").expect("a comment on top");
    if std::env::var_os("HEARTBUS_UPDATE").is_some() {
        // New functions belong to the newest node, which stands first.
        let missing: Vec<_> = declared.difference(&exported(listed)).cloned().collect();
        let (before, rest) = map.split_once("global:\n").expect("a list");
        let (names, after) = rest.split_once("local:").expect("its end");
        let mut names: BTreeSet<String> = names.lines().map(|line| line.trim().trim_end_matches(';').to_owned()).collect();
        names.extend(missing);
        let names: String = names.iter().map(|name| format!("    {name};\n")).collect();
        map = format!("{before}global:\n{names}local:{after}");
        fs::write(&path, &map).expect("a writable map");
    }
    let (_, listed) = map.split_once("*/").expect("a comment on top");
    assert_eq!(exported(listed), declared);
    let abi = header.lines().find_map(|line| line.strip_prefix("#define HEARTBUS_ABI_VERSION ")).expect("the number");
    assert!(map.contains(&format!("\nHEARTBUS_{abi} {{\n")), "symbols are versioned by the ABI, HEARTBUS_{abi}");
}
