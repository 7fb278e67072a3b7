//! The house rules of ARCHITECTURE.md, checked by reading the sources: who may use whom, which outside crates stay
//! behind which door, how a module opens, how long a file may be, and which names are not used.
//!
//! It reads text, not syntax: comments are cut away, strings are not. That is enough for code that rustfmt has laid out.

#![expect(clippy::expect_used, reason = "a test may stop at what it can't read")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, tests at its end left out.
const LONGEST: usize = 400;

/// Files that are longer, how long they may be, and why. A file that has become short again must leave this list.
const LONGER: &[(&str, usize, &str)] = &[];

/// Folders that are compiled for tests only.
const TEST_FOLDERS: &[&str] = &["/tests/", "src/engine/simulation/"];

/// Words that say nothing about what a thing is for.
const EMPTY_WORDS: &[&str] =
    &["util", "utils", "helper", "helpers", "manager", "handler", "handlers", "common", "misc", "processor"];

/// One source file.
struct Source {
    /// Path below the package's folder, with `/`.
    path: String,
    /// `engine` for `src/engine/lane.rs`.
    module: String,
    /// How many `super::` lead from it to the crate's root.
    depth: usize,
    /// All of it.
    text: String,
    /// Without comments, and without the tests at its end.
    code: String,
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let table = table("dependencies");
    let modules: BTreeSet<&String> = table.keys().collect();
    let mut wrong = String::new();
    for source in sources().into_iter().filter(|source| !is_test(source)) {
        let Some(allowed) = table.get(&source.module) else {
            let _ = writeln!(wrong, "{}: module `{}` is not in the table", source.path, source.module);
            continue;
        };
        for used in used_modules(&source) {
            let known = modules.contains(&used);
            if !known || (used != source.module && !allowed.contains("all") && !allowed.contains(&used)) {
                let _ = writeln!(wrong, "{}: `{}` may not use `{used}`", source.path, source.module);
            }
        }
    }
    assert!(wrong.is_empty(), "against the table in ARCHITECTURE.md, \"The house\":\n{wrong}");
    let present: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    for module in modules {
        assert!(present.contains(module), "ARCHITECTURE.md has a line for `{module}`, which is not there");
    }
}

#[test]
fn outside_crates_stay_behind_their_door() {
    let mut wrong = String::new();
    for (name, doors) in table("doors") {
        for source in sources() {
            let inside = doors.contains(&source.module) || is_test(&source);
            if !inside && names(&source.code, &name) {
                let _ = writeln!(wrong, "{}: only {doors:?} may name `{name}`", source.path);
            }
        }
    }
    assert!(wrong.is_empty(), "against the second table in ARCHITECTURE.md, \"The house\":\n{wrong}");
}

#[test]
fn every_module_opens_by_saying_what_it_is_for() {
    let silent: Vec<String> =
        all_rust().into_iter().filter(|s| !s.text.trim_start().starts_with("//!")).map(|s| s.path).collect();
    assert!(silent.is_empty(), "these files don't open with `//!`: {silent:#?}");
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut wrong = String::new();
    for source in sources() {
        let lines = lines_without_tests(&source);
        let exception = LONGER.iter().find(|(path, ..)| *path == source.path);
        let (limit, why) = exception.map_or((LONGEST, "the rule"), |(_, limit, why)| (*limit, *why));
        if lines > limit {
            let _ = writeln!(wrong, "{}: {lines} lines, at most {limit} ({why})", source.path);
        }
        if exception.is_some() && lines <= LONGEST {
            let _ = writeln!(wrong, "{}: short again, take it off the list of longer files", source.path);
        }
    }
    for (path, ..) in LONGER {
        assert!(root().join(path).is_file(), "{path} is on the list of longer files and is not there");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn names_say_what_a_thing_is_for() {
    let mut wrong = Vec::new();
    for source in all_rust() {
        let bad = |word: &str| EMPTY_WORDS.contains(&word.to_lowercase().as_str());
        if source.path.split('/').any(|part| bad(part.trim_end_matches(".rs"))) {
            wrong.push(source.path.clone());
        }
        for kind in ["struct ", "enum ", "trait ", "mod "] {
            for name in source.code.split(kind).skip(1).map(leading_name) {
                if last_word(name).is_some_and(|word| bad(&word)) {
                    wrong.push(format!("{}: {kind}{name}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these names say nothing: {wrong:#?}");
}

#[test]
fn the_top_level_is_the_one_in_the_readme() {
    let readme = read("README.md");
    let layout = between(&readme, "<!-- layout -->", "<!-- /layout -->");
    let named: BTreeSet<&str> = layout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| !word.starts_with("```"))
        .map(|word| word.trim_end_matches('/'))
        .collect();
    let present: BTreeSet<String> = fs::read_dir(root())
        .expect("the package's folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let present: BTreeSet<&str> = present.iter().map(String::as_str).collect();
    assert_eq!(named, present, "README.md's layout on the left, the folder on the right");
}

/// A table between `<!-- name -->` and `<!-- /name -->` in ARCHITECTURE.md: first column, and the words in
/// backticks (or `all`) of the second.
fn table(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = read("ARCHITECTURE.md");
    let rows = between(&text, &format!("<!-- {name} -->"), &format!("<!-- /{name} -->"));
    let mut table = BTreeMap::new();
    for row in rows.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.trim_matches('|').split('|');
        let words = |cell: Option<&str>| -> BTreeSet<String> {
            cell.unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let (first, second) = (words(cells.next()), words(cells.next()));
        for word in first {
            assert!(table.insert(word.clone(), second.clone()).is_none(), "`{word}` stands twice in the table {name}");
        }
    }
    assert!(!table.is_empty(), "ARCHITECTURE.md has no table {name}");
    table
}

/// Modules of ours that a file names by a path from the root.
fn used_modules(source: &Source) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in source.code.match_indices("crate::") {
        let own = !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if own {
            used.extend(heads(&source.code[at + "crate::".len()..]));
        }
    }
    for (at, _) in source.code.match_indices("super::") {
        if source.code[..at].ends_with("super::") {
            continue;
        }
        let rest = source.code[at..].trim_start_matches("super::");
        let ups = (source.code.len() - at - rest.len()) / "super::".len();
        if ups >= source.depth {
            used.extend(heads(rest));
        }
    }
    used
}

/// The first names of a path or of a braced list of paths.
fn heads(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![leading_name(path).to_owned()] };
    let mut depth = 1;
    let mut heads = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(String::new()),
            c if depth == 1 => heads.iter_mut().last().expect("one at least").push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads.iter().map(|head| leading_name(head.trim()).to_owned()).filter(|head| !head.is_empty()).collect()
}

fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// `Manager` of `LaneManager`, `handler` of `lane_handler`; nothing for a name of one word in capitals.
fn last_word(name: &str) -> Option<String> {
    let word = name.rsplit('_').next()?;
    let start = word.rfind(char::is_uppercase).unwrap_or(0);
    Some(word[start..].to_owned())
}

/// Whether code names a crate or module path such as `tokio` or `std::fs`.
fn names(code: &str, path: &str) -> bool {
    let whole = format!("{path}::");
    let used = |(at, _): (usize, &str)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    code.match_indices(&whole).any(used) || code.match_indices(&format!("{path};")).any(used)
}

/// Code that only tests compile.
fn is_test(source: &Source) -> bool {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    name == "tests.rs" || name.ends_with("_tests.rs") || TEST_FOLDERS.iter().any(|folder| source.path.contains(folder))
}

fn lines_without_tests(source: &Source) -> usize {
    if is_test(source) {
        return 0;
    }
    source.code.lines().count()
}

/// The library's files.
fn sources() -> Vec<Source> {
    all_rust().into_iter().filter(|s| !s.module.is_empty() && s.module != "lib" && s.module != "main").collect()
}

/// All of our Rust files.
fn all_rust() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src"), root().join("tests"), root().join("benches"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(source(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the sources are where this test looks");
    found
}

fn source(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a readable source file");
    let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
    let inside = path.strip_prefix("src/").unwrap_or_default().trim_end_matches(".rs").trim_end_matches("/mod");
    let module = inside.split('/').next().unwrap_or_default().to_owned();
    let depth = inside.split('/').count();
    let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code =
        body.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(String::new(), |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        });
    Source { path, module, depth, text, code }
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("`{from}` is there"));
    rest.split_once(to).unwrap_or_else(|| panic!("`{to}` is there")).0
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("a file of the package")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    let lane = |code: &str| Source {
        path: "src/engine/lane.rs".into(),
        module: "engine".into(),
        depth: 2,
        text: String::new(),
        code: code.into(),
    };
    let used = |code: &str| used_modules(&lane(code)).into_iter().collect::<Vec<_>>();
    assert_eq!(used("use crate::kafka::Producer;"), ["kafka"]);
    assert_eq!(used("use crate::{kafka, model::{Key, Now}};"), ["kafka", "model"]);
    assert_eq!(used("let x = crate::runtime::clock::now();"), ["clock"]);
    assert_eq!(used("use super::super::sink::Driver;"), ["sink"]);
    assert!(used("use super::event::Event;").is_empty());
    assert!(names("use tokio::sync::mpsc;", "tokio") && names("std::fs::read(x)", "std::fs"));
    assert!(!names("my_tokio::x", "tokio") && !names("crate::runtime::metrics::x()", "metrics"));
    assert_eq!(last_word("LaneManager").as_deref(), Some("Manager"));
}
