//! The pages that people read: links lead somewhere, and a page in two languages has the same parts in both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn pages() -> Vec<PathBuf> {
    let folders = [root(), root().join("docs"), root().join("clients/js")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap()
}

/// What a page consists of: its headings by depth, its tables by their rows, its blocks of code by their language.
fn parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rows = 0;
    let mut is_code = false;
    for line in text.lines().chain([""]) {
        if !is_code && line.starts_with('|') {
            rows += 1;
            continue;
        }
        if rows > 0 {
            parts.push(format!("a table of {rows} lines"));
            rows = 0;
        }
        if line.starts_with("```") {
            is_code = !is_code;
            if is_code {
                parts.push(format!("code {line}"));
            }
        } else if !is_code && line.starts_with('#') {
            parts.push(line.split(' ').next().unwrap().to_owned());
        }
    }
    parts
}

#[test]
fn a_page_in_two_languages_has_the_same_parts_in_both() {
    let mut compared = 0;
    for chinese in pages() {
        let Some(name) = chinese.file_name().unwrap().to_str().unwrap().strip_suffix(".zh-CN.md") else { continue };
        let english = chinese.with_file_name(format!("{name}.md"));
        assert_eq!(parts(&read(&english)), parts(&read(&chinese)), "{name}.md and {name}.zh-CN.md");
        compared += 1;
    }
    assert!(compared >= 6, "{compared} pages are there in two languages");
}

#[test]
fn parts_are_headings_tables_and_code_and_not_what_stands_in_code() {
    let text = "# A\ntext\n| a |\n|---|\n| b |\n## B\n```php\n# no heading\n| no table |\n```\n";
    assert_eq!(parts(text), ["#", "a table of 3 lines", "##", "code ```php"]);
    assert_ne!(parts(text), parts(&text.replace("| b |\n", "")));
}

#[test]
fn links_to_files_of_the_project_lead_to_a_file() {
    let mut followed = 0;
    for page in pages() {
        for link in read(&page).split("](").skip(1) {
            let link = link.split([')', '#', ' ']).next().unwrap();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            assert!(page.with_file_name(link).exists(), "{} has a link to {link}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed} links");
}

#[test]
fn the_list_of_autobahns_cases_names_each_test_of_them_and_no_other() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [
        "src/wire/websocket/tests.rs",
        "tests/websocket/autobahn.rs",
        "tests/websocket/autobahn_load.rs",
        "tests/websocket/autobahn_utf8.rs",
    ];
    let sources: Vec<_> = sources.iter().map(|path| read(&tests.join(path))).collect();
    let functions = sources.iter().flat_map(|source| source.lines()).filter_map(|line| line.strip_prefix("fn case")?.split_once('('));
    let there: BTreeSet<String> = functions.map(|(name, _)| format!("case{name}")).collect();
    assert!(there.len() > 20, "{there:?}");
    for page in ["docs/AUTOBAHN.md", "docs/AUTOBAHN.zh-CN.md"] {
        let text = read(&root().join(page));
        let named: BTreeSet<_> = text.split('`').filter(|word| word.starts_with("case")).map(str::to_owned).collect();
        assert_eq!(named, there, "{page}");
    }
}
