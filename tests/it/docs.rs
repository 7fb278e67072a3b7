//! Checks the documents against the program: commands parse, configurations load, links resolve, and generated parts
//! are up to date. `NOWBRIDGE_BLESS=1` rewrites the generated parts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use nowbridge::cli::Cli;
use nowbridge::config;
use nowbridge::{error_catalog, runtime::metrics};

/// The documents that are written by hand, for users and developers.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "docs/SERVICENOW.md",
    "docs/KAFKA.md",
    "docs/OPERATIONS.md",
    "docs/METRICS.md",
    "docs/PERFORMANCE.md",
    "docs/DOCKER.md",
    "docs/PROTOCOL.md",
];

/// Documents that the program writes.
const GENERATED: [&str; 2] = ["docs/ERRORS.md", "docs/benchmark/README.md"];

/// How many characters README may have, so that it stays readable.
const README_LIMIT: usize = 13_000;

/// First words of commands in the documents that no test can check, or that another test checks.
const OTHER_COMMANDS: [&str; 12] = [
    "break",
    "cargo bench",
    "cargo build",
    "cargo test",
    "curl",
    "docker compose",
    "done",
    "grep",
    "kafka-console-consumer.sh",
    "kcat",
    "kill",
    "sleep",
];

#[test]
fn commands_of_the_documents_parse() {
    let mut count = 0;
    for document in DOCUMENTS.into_iter().chain(GENERATED) {
        for line in blocks(&read(document), "sh").iter().flat_map(|block| block.lines()) {
            for command in shell_commands(line) {
                if let Some(arguments) = nowbridge_arguments(&command) {
                    count += 1;
                    if let Err(error) = Cli::try_parse_from(arguments) {
                        panic!("{document}: `{line}`: {error}");
                    }
                } else {
                    let command = command.join(" ");
                    let known = OTHER_COMMANDS.iter().any(|start| command.starts_with(start));
                    assert!(known, "{document}: `{line}`: no test checks `{command}`");
                }
            }
        }
    }
    assert!(count >= 30, "only {count} nowbridge commands were found: does this test read the documents correctly?");
}

#[test]
fn the_commands_table_of_the_readme_is_complete() {
    let readme = read("README.md");
    let table = between(&readme, "## Commands", "`--help`");
    for command in Cli::command().get_subcommands() {
        let names = command.get_subcommands().map(|sub| format!("`{} {}`", command.get_name(), sub.get_name()));
        let mut names: Vec<String> = names.collect();
        if names.is_empty() {
            names.push(format!("`{}`", command.get_name()));
        }
        for name in names {
            assert!(table.contains(&name), "README, \"Commands\" does not list {name}");
        }
    }
}

#[test]
fn the_readme_is_short() {
    let length = read("README.md").chars().count();
    assert!(length <= README_LIMIT, "README has {length} characters, at most {README_LIMIT}");
}

#[test]
fn configuration_files_load() {
    let mut files: Vec<String> = fs::read_dir(root().join("examples"))
        .expect("the folder of examples")
        .map(|entry| format!("examples/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .filter(|file| has_extension(file, "yaml"))
        .collect();
    assert!(files.len() >= 5, "{files:?}");
    files.extend(["deploy/nowbridge.yaml", "src/config/minimal.yaml", "src/config/example.yaml"].map(str::to_owned));
    for file in files {
        if let Err(errors) = load(&file, &read(&file)) {
            panic!("{file}: {errors}");
        }
    }
}

#[test]
fn configurations_of_the_documents_load() {
    let mut count = 0;
    for document in DOCUMENTS {
        for block in blocks(&read(document), "yaml") {
            count += 1;
            let results: Vec<_> = complete(block).iter().map(|text| load(document, text)).collect();
            let errors: Vec<String> = results.iter().filter_map(|result| result.as_ref().err().cloned()).collect();
            assert!(results.iter().any(Result::is_ok), "{document}:\n{block}\n{}", errors.join("\n"));
        }
    }
    assert!(count >= 5, "only {count} configurations were found");
}

#[test]
fn the_first_configurations_show_both_directions() {
    let readme = read("README.md");
    let readme = between(&readme, "<!-- config -->\n```yaml\n", "```\n<!-- /config -->");
    for (name, text) in [("README.md", readme), ("deploy/nowbridge.yaml", &read("deploy/nowbridge.yaml"))] {
        let config = load(name, text).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        assert!(!config.sinks.is_empty() && !config.sources.is_empty(), "{name} has no sink or no source");
    }
}

#[test]
fn commands_of_the_compose_file_parse() {
    let compose = read("docker-compose.yml");
    let commands: Vec<&str> = compose.lines().filter_map(|line| line.trim().strip_prefix("command: ")).collect();
    assert_eq!(commands.len(), 3, "simulator, topics, bridge");
    for command in commands {
        let words = shell_commands(&format!("nowbridge {command}")).remove(0);
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "docker-compose.yml: `{command}`: {:?}", parsed.err());
    }
}

#[test]
fn the_metrics_table_is_up_to_date() {
    let document = read("docs/METRICS.md");
    let (start, end) = ("<!-- metrics -->", "<!-- /metrics -->");
    let (before, rest) = document.split_once(start).expect("the table's start");
    let (_, after) = rest.split_once(end).expect("the table's end");
    check_generated("docs/METRICS.md", &format!("{before}{start}\n{}{end}{after}", metrics::table()));
}

#[test]
fn the_error_pages_are_up_to_date() {
    check_generated("docs/ERRORS.md", &error_catalog::markdown());
}

#[test]
fn links_resolve() {
    for document in DOCUMENTS.into_iter().chain(GENERATED).chain(["CHANGELOG.md"]) {
        let text = without_code(&read(document));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            check_link(document, link);
        }
    }
}

#[test]
fn error_pages_name_existing_documents() {
    let text = error_catalog::markdown();
    let is_separator = |c: char| !(c.is_ascii_alphanumeric() || "/._#-".contains(c));
    for word in text.split(is_separator).map(|word| word.trim_end_matches(['.', '-'])) {
        if word.split('#').next().is_some_and(|file| has_extension(file, "md")) {
            check_link("README.md", word);
        }
    }
}

#[test]
fn ci_ends_with_the_test_command_of_the_readme() {
    let readme = read("README.md");
    assert!(blocks(&readme, "sh").iter().flat_map(|block| block.lines()).any(|line| line == "cargo test"));
    assert_eq!(read(".ci/run").lines().last(), Some("cargo test"));
}

#[test]
fn cargo_commands_name_existing_targets_and_tests() {
    let mut commands: Vec<(&str, String)> = Vec::new();
    for document in DOCUMENTS.into_iter().chain(GENERATED) {
        let text = read(document);
        let lines = blocks(&text, "sh").into_iter().flat_map(str::lines).map(str::to_owned).collect::<Vec<_>>();
        let inline = without_fences(&text).split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        commands.extend(lines.into_iter().chain(inline).map(|command| (document, command)));
    }
    let recipes = read("justfile");
    commands.extend(recipes.lines().filter(|line| line.starts_with("    ")).map(|line| ("justfile", line.to_owned())));
    let mut count = 0;
    for (document, command) in commands {
        for words in shell_commands(&command).iter().map(|words| without_variables(words)) {
            if words.first().is_some_and(|word| word == "cargo") && words.len() > 1 {
                count += 1;
                let problem = cargo_problem(&words[1..]);
                assert!(problem.is_none(), "{document}: `{command}`: {}", problem.expect("a problem"));
            }
        }
    }
    assert!(count >= 20, "only {count} cargo commands were found");
}

/// What is wrong with a cargo command: a target, feature or profile that does not exist, or a filter that matches no
/// test.
fn cargo_problem(words: &[String]) -> Option<String> {
    let manifest = read("Cargo.toml");
    let target = |kind: &str, name: &str| {
        let section = format!("[[{kind}]]\nname = \"{name}\"");
        (!manifest.contains(&section)).then(|| format!("Cargo.toml has no [[{kind}]] `{name}`"))
    };
    let cargo: Vec<&str> = words.iter().map(String::as_str).take_while(|word| *word != "--").collect();
    let value = |option: &str| cargo.iter().position(|word| *word == option).and_then(|at| cargo.get(at + 1)).copied();
    let missing = value("--test").and_then(|name| target("test", name));
    let missing = missing.or_else(|| value("--bench").and_then(|name| target("bench", name)));
    let missing = missing.or_else(|| {
        let feature = value("--features")?;
        (!manifest.contains(&format!("\n{feature} = ["))).then(|| format!("Cargo.toml has no feature `{feature}`"))
    });
    if missing.is_some() {
        return missing;
    }
    if cargo[0] == "run" {
        let arguments = words.iter().skip_while(|word| *word != "--").skip(1).filter(|word| !word.starts_with("{{"));
        let parsed = Cli::try_parse_from(["nowbridge".to_owned()].into_iter().chain(arguments.cloned()));
        return parsed.err().filter(|_| words.iter().any(|word| word == "--")).map(|error| error.to_string());
    }
    let folder = match (cargo[0], value("--test")) {
        ("test", Some("it")) => "tests/it",
        ("test", None) if cargo.contains(&"--lib") => "src",
        _ => return None,
    };
    let filter = cargo.last().filter(|word| !word.starts_with(['-', '{']) && value("--test") != Some(**word))?;
    let names = test_names(folder);
    (!names.iter().any(|name| name.contains(filter))).then(|| format!("no test in {folder} matches `{filter}`"))
}

/// Paths of all functions below a folder, as the test runner names tests. (Tests of inline modules lack the module.)
fn test_names(folder: &str) -> BTreeSet<String> {
    let base = root().join(folder);
    let (mut names, mut folders) = (BTreeSet::new(), vec![base.clone()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&base).expect("below it").with_extension("");
                let module: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
                let module = module.join("::").trim_end_matches("::mod").to_owned();
                let text = fs::read_to_string(&path).expect("a source file");
                let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
                names.extend(functions.map(|name| format!("{module}::{name}")));
            }
        }
    }
    names
}

/// Compares a file with its generated text, or writes it with `NOWBRIDGE_BLESS=1`.
fn check_generated(file: &str, text: &str) {
    if std::env::var_os("NOWBRIDGE_BLESS").is_some() {
        fs::write(root().join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
        return;
    }
    assert!(read(file) == text, "{file} is out of date; run NOWBRIDGE_BLESS=1 cargo test --test it docs");
}

fn check_link(document: &str, link: &str) {
    if link.contains("://") || link.starts_with("mailto:") {
        return;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let path = root().join(document);
    let path = if file.is_empty() { path } else { path.parent().expect("a folder").join(file) };
    assert!(path.exists(), "{document} links to {link}: there is no such file");
    if let Some(anchor) = anchor {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document} links to {link}: {error}"));
        assert!(anchors(&text).contains(anchor), "{document} links to {link}: there is no such heading");
    }
}

/// The anchors of the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in without_fences(text).lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let mut repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let anchor = if anchors.contains(&anchor) {
            repeated.find(|anchor| !anchors.contains(anchor)).expect("a free number")
        } else {
            anchor
        };
        anchors.insert(anchor);
    }
    anchors
}

/// A configuration block as whole configurations: itself, or, if it is a fragment, with the missing parts added, once
/// for each place where the fragment can belong.
fn complete(block: &str) -> Vec<String> {
    let instance = "instances:\n  prod:\n    url: https://example.service-now.com\n    auth: { basic: { user: nowbridge, \
                    password: secret } }\n";
    let kafka = "kafka:\n  bootstrap: localhost:9092\n";
    let sink = "sinks:\n  incidents:\n    topic: alerts\n";
    if block.starts_with("instances:") {
        vec![block.to_owned()]
    } else if block.starts_with(' ') {
        vec![
            format!("{instance}{kafka}{sink}{block}"),
            format!("{instance}{block}{kafka}{sink}"),
            format!("{instance}{kafka}sources:\n  changes:\n    table: incident\n{block}"),
        ]
    } else {
        let has = |section: &str| block.lines().any(|line| line.starts_with(section));
        let kafka = if has("kafka:") { "" } else { kafka };
        let sink = if has("sinks:") || has("sources:") { "" } else { sink };
        vec![format!("{instance}{kafka}{sink}{block}")]
    }
}

/// Loads a configuration as `nowbridge config check` does. Passwords in variables are set, and secret files and
/// certificates exist.
fn load(name: &str, text: &str) -> Result<config::Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file").display().to_string();
    fs::write(&file, "secret").expect("a file");
    let mut text = text.to_owned();
    for start in ["/run/", "/etc/"] {
        let mut parts = text.split(start);
        let mut replaced = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| c.is_whitespace() || "\"',}".contains(c)).unwrap_or(part.len());
            replaced.push_str(&file);
            replaced.push_str(&part[end..]);
        }
        text = replaced;
    }
    let env = |name: &str| name.ends_with("PASSWORD").then(|| "secret".to_owned());
    config::parse(&text, Path::new(name), &env).map_err(|errors| errors.to_string())
}

/// The code blocks of this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let (mut blocks, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(&start) {
        let (block, after) = rest[at + start.len()..].split_once("```").expect("the block ends");
        blocks.push(block);
        rest = after;
    }
    blocks
}

/// The text without code blocks.
fn without_fences(text: &str) -> String {
    let mut inside = false;
    let outside = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The text without code blocks and code in backticks.
fn without_code(text: &str) -> String {
    without_fences(text).split('`').step_by(2).collect()
}

/// The words of a `nowbridge` command from the program's name on; `None` for other commands.
fn nowbridge_arguments(command: &[String]) -> Option<Vec<String>> {
    let words = without_variables(command);
    let in_container = ["docker", "compose", "exec", "bridge"];
    let words = if words.starts_with(&in_container.map(str::to_owned)) { &words[in_container.len()..] } else { words };
    if words.first().is_some_and(|word| word == "nowbridge") {
        return Some(words.to_vec());
    }
    if words.starts_with(&["cargo", "run"].map(str::to_owned)) {
        let arguments = words.iter().skip_while(|word| *word != "--").skip(1).cloned();
        return Some(["nowbridge".to_owned()].into_iter().chain(arguments).collect());
    }
    None
}

/// A command without the variables that are set before its first word.
fn without_variables(command: &[String]) -> &[String] {
    let is_variable = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    &command[command.iter().position(|word| !is_variable(word)).unwrap_or(command.len())..]
}

/// The simple commands of a line as the shell would split it, as far as the documents use its syntax: quotes, `|`, `&`,
/// `;`, redirections, `$(...)` and `for ... do`. Assignments without a command are left out.
fn shell_commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim();
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote, mut started) = (String::new(), None, false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let mut end_word = |commands: &mut Vec<Vec<String>>| {
            if std::mem::take(&mut started) {
                commands.last_mut().expect("one at least").push(std::mem::take(&mut word));
            }
        };
        match (quote, c) {
            (None, '#') if line.starts_with('#') => break,
            (None, '\\') => {
                word.extend(characters.next());
                started = true;
            }
            (None, '"' | '\'') => (quote, started) = (Some(c), true),
            (Some(open), c) if open == c => quote = None,
            (None, '$') if characters.peek() == Some(&'(') => {
                characters.next();
                end_word(&mut commands);
                commands.push(Vec::new());
            }
            (None, '|' | '&' | ';' | ')' | '<' | '>') => {
                end_word(&mut commands);
                commands.push(Vec::new());
            }
            (None, c) if c.is_whitespace() => end_word(&mut commands),
            (_, c) => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        commands.last_mut().expect("one at least").push(word);
    }
    for command in &mut commands {
        if command.first().is_some_and(|word| word == "do") {
            command.remove(0);
        }
    }
    let keyword = |command: &Vec<String>| ["for", "seq", "wait"].contains(&command[0].as_str());
    commands.retain(|command| !without_variables(command).is_empty() && !keyword(command));
    commands
}

#[test]
fn shell_lines_are_split_into_commands() {
    let commands = |line: &str| -> Vec<String> { shell_commands(line).iter().map(|words| words.join("|")).collect() };
    assert_eq!(commands("nowbridge run --config a.yaml &"), ["nowbridge|run|--config|a.yaml"]);
    let pipe = "curl -s \"$ticket\" | grep 'a b' && break; sleep 1";
    assert_eq!(commands(pipe), ["curl|-s|$ticket", "grep|a b", "break", "sleep|1"]);
    assert_eq!(commands("for i in $(seq 60); do curl x; done"), ["curl|x", "done"]);
    assert_eq!(commands("id=$(curl x | grep y)"), ["curl|x", "grep|y"]);
    assert_eq!(commands("kill %2 && wait %2"), ["kill|%2"]);
    assert!(commands("ticket='http://x/?a=b&c=d'").is_empty());
}

/// The text between two others, which must be there.
pub fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("there is no `{start}`"));
    rest.split_once(end).unwrap_or_else(|| panic!("there is no `{end}`")).0
}

/// Reads a file of the repository.
pub fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found == extension)
}
