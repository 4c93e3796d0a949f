//! Finds circles between the files of a crate: which file names what another one defines, read from the sources.
//!
//! A path counts as an import of the file that defines what it names, wherever a `use` in between hands it on. So a parent may use its
//! children, and a child what its parent imports or re-exports; a child that uses what its parent defines itself stands in a circle with
//! it as soon as the parent uses the child. `mod child;` alone uses nothing, and test code binds nobody. Methods are not followed: whose
//! they are, the type says that was named.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// The files of one crate, by their paths below its `src`, with their texts.
pub(crate) type Sources = BTreeMap<String, String>;

/// Files that use each other, directly or around some corners.
pub(crate) type Circle = BTreeSet<String>;

/// What one file says of itself.
#[derive(Default)]
struct File {
    /// What it defines at its top, besides modules.
    items: BTreeSet<String>,
    modules: BTreeSet<String>,
    /// Names that a `use` brings in, and where they come from.
    imports: Vec<(String, Path)>,
    /// All that ends in `*`.
    globs: Vec<Path>,
    /// Paths in the code.
    paths: Vec<Path>,
    /// Macros that the whole crate knows by their names.
    macros: BTreeSet<String>,
}

type Path = Vec<String>;

/// In place of the name behind `use a::`.
const EVERYTHING: &str = "*";

/// The circles of a crate, each once.
pub(crate) fn circles(sources: &Sources) -> Vec<Circle> {
    let uses = uses(sources);
    let reach: BTreeMap<&String, BTreeSet<&String>> = uses.keys().map(|file| (file, reached_from(file, &uses))).collect();
    let is_mutual = |one: &String, other: &String| reach[one].contains(other) && reach[other].contains(one);
    let circle_of = |file: &String| uses.keys().filter(|other| is_mutual(file, other)).cloned().collect::<Circle>();
    let all: BTreeSet<Circle> = uses.keys().map(circle_of).filter(|circle| !circle.is_empty()).collect();
    all.into_iter().collect()
}

fn reached_from<'a>(file: &String, uses: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = uses[file].iter().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(&uses[file]);
        }
    }
    reached
}

/// Which other files each file uses.
pub(crate) fn uses(sources: &Sources) -> BTreeMap<String, BTreeSet<String>> {
    let house = House::read(sources);
    let mut uses = BTreeMap::new();
    for (module, (path, file)) in &house.files {
        let mut used = BTreeSet::new();
        let everything = file.globs.iter().map(|glob| [&glob[..], &[EVERYTHING.to_owned()]].concat());
        let named: Vec<Path> =
            file.imports.iter().map(|(_, path)| path.clone()).chain(everything).chain(file.paths.iter().cloned()).collect();
        for named in &named {
            used.extend(house.file_of(module, named, &mut BTreeSet::new()).filter(|used| used != path));
        }
        uses.insert(path.clone(), used);
    }
    uses
}

/// All files of a crate, by the path of their module.
struct House {
    files: BTreeMap<Path, (String, File)>,
}

impl House {
    fn read(sources: &Sources) -> Self {
        let mut files = BTreeMap::new();
        for (path, text) in sources {
            let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut file = File::default();
            file.read(stream, true);
            files.insert(module_of(path), (path.clone(), file));
        }
        // A file that only tests declare is not listed by its parent.
        let declared: BTreeSet<Path> = files.keys().filter(|module| is_declared(module, &files)).cloned().collect();
        files.retain(|module, _| declared.contains(module));
        Self { files }
    }

    /// The file that defines what a path names in a module. A path to a module alone is none: what is taken from it says more.
    fn file_of(&self, module: &Path, named: &[String], seen: &mut BTreeSet<(Path, Path)>) -> Option<String> {
        // Two globs may hand a name to each other for ever.
        if !seen.insert((module.clone(), named.to_vec())) {
            return None;
        }
        let (_, file) = &self.files[module];
        let (first, rest) = named.split_first()?;
        match first.as_str() {
            "crate" => self.file_below(Path::new(), rest, seen),
            "self" => self.file_below(module.clone(), rest, seen),
            "super" => {
                let above = module.split_last()?.1.to_vec();
                if rest.first().is_some_and(|next| next == "super") {
                    self.file_of(&above, rest, seen)
                } else {
                    self.file_below(above, rest, seen)
                }
            }
            _ if file.modules.contains(first) => self.file_below(module.clone(), named, seen),
            _ => {
                let (_, from) = file.imports.iter().find(|(name, _)| name == first)?;
                if rest.is_empty() || from == named {
                    return None;
                }
                self.file_of(module, &[from, rest].concat(), seen)
            }
        }
    }

    /// As [`House::file_of`], for a path that begins in a module.
    fn file_below(&self, mut module: Path, mut named: &[String], seen: &mut BTreeSet<(Path, Path)>) -> Option<String> {
        while let Some((first, rest)) = named.split_first() {
            let below = [&module[..], std::slice::from_ref(first)].concat();
            if !self.files.contains_key(&below) {
                break;
            }
            (module, named) = (below, rest);
        }
        let first = named.first()?;
        let (path, file) = &self.files[&module];
        if first == EVERYTHING || file.items.contains(first) {
            return Some(path.clone());
        }
        if module.is_empty()
            && let Some((path, _)) = self.files.values().find(|(_, file)| file.macros.contains(first))
        {
            return Some(path.clone());
        }
        let handed_on = file.imports.iter().find(|(name, _)| name == first).map(|(_, from)| [from, &named[1..]].concat());
        match handed_on {
            Some(from) => self.file_of(&module, &from, seen),
            // What a macro makes has no name in the text, nor has what a glob brings in from another crate.
            None => file.globs.iter().find_map(|glob| self.file_of(&module, &[glob, named].concat(), seen)).or_else(|| Some(path.clone())),
        }
    }
}

/// `hub/node.rs` and `hub/node/mod.rs` are `["hub", "node"]`.
fn module_of(path: &str) -> Path {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Path::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn is_declared(module: &Path, files: &BTreeMap<Path, (String, File)>) -> bool {
    let Some((name, above)) = module.split_last() else { return true };
    let above = above.to_vec();
    files.get(&above).is_some_and(|(_, file)| file.modules.contains(name)) && is_declared(&above, files)
}

impl File {
    fn read(&mut self, stream: TokenStream, is_top: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut place = 0;
        let mut is_exported = false;
        while place < tokens.len() {
            match &tokens[place] {
                TokenTree::Punct(hash) if hash.as_char() == '#' => {
                    let attribute = tokens[place + 1..].iter().take(2).find_map(|token| group(token, Delimiter::Bracket));
                    let text = attribute.map(|attribute| attribute.stream().to_string().replace(' ', "")).unwrap_or_default();
                    is_exported |= text == "macro_export";
                    place = if text == "cfg(test)" { end_of_item(&tokens, place + 2) } else { place + 1 };
                    continue;
                }
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    let name = tokens.get(place + 1).and_then(ident);
                    match (word.as_str(), name) {
                        ("use", _) if !is_bound(&tokens, place) => {
                            let end = end_of_item(&tokens, place);
                            self.read_use(Path::new(), &tokens[place + 1..end - 1]);
                            place = end;
                            continue;
                        }
                        ("mod", Some(name)) if is_top => drop(self.modules.insert(name)),
                        ("fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static", Some(name)) if is_top => {
                            self.items.insert(name);
                        }
                        ("macro_rules", None) => {
                            if let (Some(name), true) = (tokens.get(place + 2).and_then(ident), std::mem::take(&mut is_exported)) {
                                self.macros.insert(name.clone());
                                self.items.insert(name);
                            }
                        }
                        _ => {}
                    }
                    let path = path_at(&tokens, place);
                    // Both a name and its last part are one token after the other: `a::b`.
                    place += 3 * path.len() - 2;
                    if path.len() > 1 {
                        self.paths.push(path);
                    }
                    continue;
                }
                TokenTree::Group(group) => self.read(group.stream(), false),
                _ => {}
            }
            place += 1;
        }
    }

    /// One branch of a `use`: `a::{b, c::*}` behind what stands before it.
    fn read_use(&mut self, before: Path, tokens: &[TokenTree]) {
        let mut path = before;
        let mut place = 0;
        while let Some(token) = tokens.get(place) {
            match token {
                TokenTree::Ident(word) if *word == "as" => {
                    let name = tokens.get(place + 1).map(ToString::to_string).unwrap_or_default();
                    return self.imports.push((name, path));
                }
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(star) if star.as_char() == '*' => return self.globs.push(path),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
                    inner.split(is_comma).filter(|branch| !branch.is_empty()).for_each(|branch| self.read_use(path.clone(), branch));
                    return;
                }
                _ => {}
            }
            place += 1;
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        self.imports.push((path.last().cloned().unwrap_or_default(), path));
    }
}

fn ident(token: &TokenTree) -> Option<String> {
    if let TokenTree::Ident(ident) = token { Some(ident.to_string()) } else { None }
}

fn group(token: &TokenTree, delimiter: Delimiter) -> Option<&Group> {
    if let TokenTree::Group(group) = token { Some(group).filter(|group| group.delimiter() == delimiter) } else { None }
}

/// The place behind an item that begins here: its braces, or its semicolon.
fn end_of_item(tokens: &[TokenTree], from: usize) -> usize {
    let is_use = tokens[from..].iter().find_map(ident).is_some_and(|word| word == "use");
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(semicolon) => semicolon.as_char() == ';',
        token => !is_use && group(token, Delimiter::Brace).is_some(),
    };
    tokens[from..].iter().position(ends).map_or(tokens.len(), |end| from + end + 1)
}

/// `impl Trait + use<'a>` brings nothing in.
fn is_bound(tokens: &[TokenTree], place: usize) -> bool {
    matches!(tokens.get(place + 1), Some(TokenTree::Punct(bracket)) if bracket.as_char() == '<')
}

/// `a::b::c`, as far as there are names.
fn path_at(tokens: &[TokenTree], from: usize) -> Path {
    let is_colon = |place: usize| matches!(tokens.get(place), Some(TokenTree::Punct(colon)) if colon.as_char() == ':');
    let mut path: Path = tokens.get(from).and_then(ident).into_iter().collect();
    let mut place = from;
    while is_colon(place + 1) && is_colon(place + 2) {
        let Some(next) = tokens.get(place + 3).and_then(ident) else { break };
        path.push(next);
        place += 3;
    }
    path
}
