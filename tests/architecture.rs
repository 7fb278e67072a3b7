//! Checks the structure that ARCHITECTURE.md describes by reading the sources: which module may use which, which
//! external crates a module may name, how a module starts, how long a file may be, which names are not used, and which
//! protocol rules comments may cite.
//!
//! It reads text, not syntax: comments are removed, strings are not. This is enough for code that rustfmt has
//! formatted.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Maximum number of lines of a file, without the tests at its end.
const MAX_LINES: usize = 400;

/// A file that may be longer. If it becomes short again, it must be removed from the list.
struct LongFile {
    path: &'static str,
    max_lines: usize,
    reason: &'static str,
}

const LONG_FILES: &[LongFile] = &[];

/// Folders that are compiled only for tests.
const TEST_FOLDERS: &[&str] = &["/tests/", "src/engine/simulation/"];

/// Words that do not say what a module or type is for.
const EMPTY_WORDS: &[&str] =
    &["util", "utils", "helper", "helpers", "manager", "handler", "handlers", "common", "misc", "processor"];

/// One source file.
struct Source {
    /// Relative to the package's folder, with `/`.
    path: String,
    /// The top-level module: `engine` for `src/engine/lane.rs`. Empty outside `src`.
    module: String,
    /// Number of `super::` from the file to the crate's root.
    depth: usize,
    /// The whole file.
    text: String,
    /// Without comments, and without the tests at the end.
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
    assert!(wrong.is_empty(), "not allowed by the first table in ARCHITECTURE.md, \"Modules\":\n{wrong}");
    let present: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    for module in modules {
        assert!(present.contains(module), "ARCHITECTURE.md has a line for `{module}`, which does not exist");
    }
}

#[test]
fn external_crates_are_named_only_by_allowed_modules() {
    let mut wrong = String::new();
    for (name, allowed) in table("doors") {
        for source in sources() {
            let may_name = allowed.contains(&source.module) || is_test(&source);
            if !may_name && names(&source.code, &name) {
                let _ = writeln!(wrong, "{}: only {allowed:?} may name `{name}`", source.path);
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed by the second table in ARCHITECTURE.md, \"Modules\":\n{wrong}");
}

#[test]
fn every_file_starts_with_module_documentation() {
    let undocumented: Vec<String> =
        all_rust().into_iter().filter(|s| !s.text.trim_start().starts_with("//!")).map(|s| s.path).collect();
    assert!(undocumented.is_empty(), "these files do not start with `//!`: {undocumented:#?}");
}

/// The lint `missing_docs` is off: it also demands a sentence for each field and variant, where most names say enough.
/// This test covers the modules that are public by their path.
#[test]
fn every_public_item_is_documented() {
    let kinds = ["fn ", "async fn ", "const fn ", "struct ", "enum ", "trait ", "type ", "const ", "static "];
    let mut wrong = String::new();
    for source in sources().into_iter().filter(|source| !is_test(source) && is_public(source)) {
        let text = source.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let mut documented = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            let declares =
                line.strip_prefix("pub ").is_some_and(|item| kinds.iter().any(|kind| item.starts_with(kind)));
            if declares && !documented {
                let _ = writeln!(wrong, "{}:{number}: {line}", source.path);
            }
            // Attributes stand between the documentation and the item, and may span lines.
            documented =
                line.starts_with("///") || (documented && (line.starts_with('#') || line.starts_with([')', ']', '"'])));
        }
    }
    assert!(wrong.is_empty(), "these items are public and not documented:\n{wrong}");
}

#[test]
fn files_are_short() {
    let mut wrong = String::new();
    for source in sources() {
        let lines = lines_without_tests(&source);
        let exception = LONG_FILES.iter().find(|file| file.path == source.path);
        let (limit, reason) = exception.map_or((MAX_LINES, "the limit"), |file| (file.max_lines, file.reason));
        if lines > limit {
            let _ = writeln!(wrong, "{}: {lines} lines, at most {limit} ({reason})", source.path);
        }
        if exception.is_some() && lines <= MAX_LINES {
            let _ = writeln!(wrong, "{}: short again, remove it from LONG_FILES", source.path);
        }
    }
    for file in LONG_FILES {
        assert!(root().join(file.path).is_file(), "{} is in LONG_FILES and does not exist", file.path);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn names_contain_no_empty_words() {
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
    assert!(wrong.is_empty(), "these names do not say what they are for: {wrong:#?}");
}

#[test]
fn the_readme_lists_the_top_level() {
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
    assert_eq!(named, present, "left: README.md's layout, right: the folder");
}

#[test]
fn cited_protocol_rules_exist() {
    let rules = defined_rules(&read("docs/PROTOCOL.md"));
    assert!(rules.contains("1") && rules.contains("21") && rules.contains("6c"), "{rules:?}");
    let (mut wrong, mut count) = (String::new(), 0);
    for source in all_rust() {
        for citation in citations(&source.text) {
            count += 1;
            if let Some(problem) = citation.problem(&rules) {
                let _ = writeln!(wrong, "{}:{}: {problem}", source.path, citation.line);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count >= 10, "only {count} citations were found: does this test read them correctly?");
}

/// Reads the table between `<!-- name -->` and `<!-- /name -->` in ARCHITECTURE.md: the words in backticks of its first
/// column, each with those of its second column.
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
            assert!(table.insert(word.clone(), second.clone()).is_none(), "`{word}` is twice in the table {name}");
        }
    }
    assert!(!table.is_empty(), "ARCHITECTURE.md has no table {name}");
    table
}

/// The top-level modules that a file names by a path from the crate's root.
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

/// The first name of a path, or of each path in a braced list.
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

/// `Manager` for `LaneManager`, `handler` for `lane_handler`.
fn last_word(name: &str) -> Option<String> {
    let word = name.rsplit('_').next()?;
    let start = word.rfind(char::is_uppercase).unwrap_or(0);
    Some(word[start..].to_owned())
}

/// Whether code names a crate or a module path such as `tokio` or `std::fs`.
fn names(code: &str, path: &str) -> bool {
    let prefix = format!("{path}::");
    let used = |(at, _): (usize, &str)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    code.match_indices(&prefix).any(used) || code.match_indices(&format!("{path};")).any(used)
}

/// Whether a file is compiled only for tests.
fn is_test(source: &Source) -> bool {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    name == "tests.rs" || name.ends_with("_tests.rs") || TEST_FOLDERS.iter().any(|folder| source.path.contains(folder))
}

/// Whether the module and all its parents are declared `pub mod`.
fn is_public(source: &Source) -> bool {
    let mut path = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
    loop {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let files = match parent {
            "" => vec!["src/lib.rs".to_owned()],
            parent => vec![format!("src/{parent}.rs"), format!("src/{parent}/mod.rs")],
        };
        let declaration = format!("\npub mod {name};");
        let text = files.iter().find_map(|file| fs::read_to_string(root().join(file)).ok()).unwrap_or_default();
        if !text.contains(&declaration) {
            return false;
        }
        if parent.is_empty() {
            return true;
        }
        path = parent.to_owned();
    }
}

fn lines_without_tests(source: &Source) -> usize {
    if is_test(source) {
        return 0;
    }
    source.code.lines().count()
}

/// The files of the library's modules.
fn sources() -> Vec<Source> {
    all_rust().into_iter().filter(|s| !s.module.is_empty() && s.module != "lib" && s.module != "main").collect()
}

/// All Rust files of the package.
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
    assert!(found.len() > 20, "only {} source files were found", found.len());
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
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("there is no `{from}`"));
    rest.split_once(to).unwrap_or_else(|| panic!("there is no `{to}`")).0
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("a file of the package")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A citation of protocol rules.
#[derive(Debug, PartialEq, Eq)]
struct Citation {
    /// Line of its number, from 1.
    line: usize,
    /// The cited rules (`6`, `6c`), or what is wrong with the form of the citation.
    rules: Result<Vec<String>, String>,
}

impl Citation {
    /// What is wrong with it, if anything.
    fn problem(&self, defined: &BTreeSet<String>) -> Option<String> {
        match &self.rules {
            Ok(rules) => {
                let undefined = rules.iter().find(|rule| !defined.contains(*rule))?;
                Some(format!("docs/PROTOCOL.md has no rule {undefined}"))
            }
            Err(problem) => Some(problem.clone()),
        }
    }
}

/// The rules that docs/PROTOCOL.md defines: `6` by a line `6. **...`, and `6c` by a line `- c. ...` below it.
fn defined_rules(protocol: &str) -> BTreeSet<String> {
    let (mut rules, mut current) = (BTreeSet::new(), None);
    for line in protocol.lines() {
        if let Some((number, _)) = line.split_once(". **").filter(|(number, _)| number.parse::<u32>().is_ok()) {
            current = Some(number);
            rules.insert(number.to_owned());
        } else if !line.starts_with(' ') && !line.is_empty() {
            current = None;
        }
        let letter =
            line.trim_start().strip_prefix("- ").and_then(|item| item.split_once(". ")).map(|(letter, _)| letter);
        if let (Some(number), Some(letter)) = (current, letter.filter(|letter| letter.len() == 1)) {
            rules.insert(format!("{number}{letter}"));
        }
    }
    rules
}

/// The citations in a text: `protocol rule 6`, `protocol rule 6c`, `protocol rules 1, 6 and 7`, `protocol rules 5 to
/// 7`, also across the lines of a comment. A number after `rule` without `protocol` is a citation of a wrong form.
fn citations(text: &str) -> Vec<Citation> {
    let (mut flat, mut starts) = (String::new(), Vec::new());
    for line in text.lines() {
        starts.push(flat.len());
        let line = line.trim_start();
        flat.push_str(line.strip_prefix("//").map_or(line, |comment| comment.trim_start_matches(['/', '!'])).trim());
        flat.push(' ');
    }
    let flat = flat.to_ascii_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut citations = Vec::new();
    for (at, _) in flat.match_indices("rule").filter(|(at, _)| !flat[..*at].ends_with(is_word)) {
        let rest = &flat[at + "rule".len()..];
        let plural = rest.starts_with('s');
        let numbers = rest.trim_start_matches('s');
        if !numbers.starts_with(' ') || !numbers[1..].starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let before = flat[..at].trim_end();
        let rules = if before.ends_with("protocol") {
            cited_rules(&numbers[1..], plural)
        } else {
            Err("cite a rule as `protocol rule N`".to_owned())
        };
        let number_at = flat.len() - numbers.len() + 1;
        citations.push(Citation { line: starts.partition_point(|start| *start <= number_at), rules });
    }
    citations
}

/// The rules at the start of a text such as `1, 6c and 7 (...)`.
fn cited_rules(text: &str, plural: bool) -> Result<Vec<String>, String> {
    let (mut rules, mut rest, mut range_start) = (Vec::new(), text, None::<u32>);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let rule = &rest[..end];
        if end > digits + 1 {
            return Err(format!("`{rule}` is no number of a rule"));
        }
        if let Some(start) = range_start.take() {
            match rule.parse::<u32>() {
                Ok(end) if start < end => rules.extend((start + 1..=end).map(|number| number.to_string())),
                _ => return Err(format!("`{start} to {rule}` is no range of rules")),
            }
        } else {
            rules.push(rule.to_owned());
        }
        rest = &rest[end..];
        let separator = [", and ", ", ", " and ", " or ", " to "].into_iter().find(|separator| {
            rest.strip_prefix(separator).is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()))
        });
        let Some(separator) = separator else { break };
        if separator == " to " {
            let start = rule.parse().map_err(|_| format!("a range cannot start with `{rule}`"))?;
            range_start = Some(start);
        }
        rest = &rest[separator.len()..];
    }
    if plural == (rules.len() > 1) {
        Ok(rules)
    } else {
        Err(format!("`protocol rule` with one number, `protocol rules` with several: {rules:?}"))
    }
}

#[test]
fn citations_of_protocol_rules_are_found_and_checked() {
    // Not written as one text, so that this file contains no wrong citations itself.
    let cite = |text: &str| {
        let text = text.replace('@', "rule");
        citations(&text).into_iter().map(|citation| (citation.line, citation.rules.ok())).collect::<Vec<_>>()
    };
    let rules = |rules: &[&str]| Some(rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>());
    assert_eq!(cite("// Protocol @ 6c: a"), [(1, rules(&["6c"]))]);
    assert_eq!(cite("/// a (protocol @s 1, 6 and 7)\nb"), [(1, rules(&["1", "6", "7"]))]);
    assert_eq!(cite("//! a (protocol @s 5 to 7,\n//! 16). b"), [(1, rules(&["5", "6", "7", "16"]))]);
    assert_eq!(cite("x\n    // the protocol\n    // @ 9, whose"), [(3, rules(&["9"]))]);
    assert_eq!(cite("// protocol @\n// 9"), [(2, rules(&["9"]))]);
    assert!(cite("// the @s of the protocol, a business @ and a protocol @").is_empty());
    for wrong in
        ["@ 5", "protocol @s 5", "protocol @ 5, 6", "protocol @ 5ab", "protocol @s 7 to 5", "protocol @s 5a to 7"]
    {
        assert_eq!(cite(wrong), [(1, None)], "{wrong}");
    }
    let defined = defined_rules("5. **Order.** A\n   - a. b\n6. **Claim.**\n\n   - c. d\n\nText\n- e. f\n");
    assert_eq!(defined.iter().map(String::as_str).collect::<Vec<_>>(), ["5", "5a", "6", "6c"]);
    let problem = |rule: &str| Citation { line: 1, rules: Ok(vec![rule.to_owned()]) }.problem(&defined);
    assert!(problem("5a").is_none() && problem("6").is_none());
    assert!(problem("5c").is_some() && problem("7").is_some());
}

#[test]
fn used_modules_and_names_are_found() {
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
    assert_eq!(used("let x = crate::runtime::clock::now();"), ["runtime"]);
    assert_eq!(used("use super::super::sink::Driver;"), ["sink"]);
    assert!(used("use super::event::Event;").is_empty());
    assert!(names("use tokio::sync::mpsc;", "tokio") && names("std::fs::read(x)", "std::fs"));
    assert!(!names("my_tokio::x", "tokio") && !names("crate::runtime::metrics::x()", "metrics"));
    assert_eq!(last_word("LaneManager").as_deref(), Some("Manager"));
}
