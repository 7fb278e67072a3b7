//! What the documents say is true: commands parse, configurations load, generated parts are up to date.
//!
//! `NOWBRIDGE_BLESS=1` writes the generated parts anew.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use nowbridge::cli::Cli;
use nowbridge::config;
use nowbridge::runtime::metrics;

#[test]
fn every_command_of_the_readme_is_one() {
    let readme = read("README.md");
    let mut seen = 0;
    for line in shell_lines(&readme) {
        if let Some(arguments) = ours(&line) {
            seen += 1;
            let parsed = Cli::try_parse_from(words(arguments));
            assert!(parsed.is_ok(), "README: `{line}`: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        } else {
            let known = ["cargo test", "docker compose up", "docker compose exec kafka ", "curl ", "id=$(curl "];
            assert!(known.iter().any(|start| line.starts_with(start)), "README: `{line}` is checked by no test");
        }
    }
    assert!(seen >= 8, "the README shows {seen} commands of ours: does this test still read it right?");
}

#[test]
fn the_readme_lists_every_command() {
    let readme = read("README.md");
    let listed = between(&readme, "## Commands", "`--help`");
    for command in Cli::command().get_subcommands() {
        let named = command.get_subcommands().map(|sub| format!("`{} {}`", command.get_name(), sub.get_name()));
        let mut named: Vec<String> = named.collect();
        if named.is_empty() {
            named.push(format!("`{}`", command.get_name()));
        }
        for name in named {
            assert!(listed.contains(&name), "README, \"Commands\" does not list {name}");
        }
    }
}

#[test]
fn the_configurations_of_the_documents_load() {
    let env = |name: &str| (name == "SERVICENOW_PASSWORD").then(|| "secret".to_owned());
    let readme = read("README.md");
    let text = between(&readme, "<!-- config -->", "<!-- /config -->").trim();
    let text = text.trim_start_matches("```yaml").trim_end_matches("```");
    for (name, text) in [("README.md", text), ("deploy/nowbridge.yaml", &read("deploy/nowbridge.yaml"))] {
        let loaded = config::parse(text, Path::new(name), &env);
        let loaded = loaded.unwrap_or_else(|errors| panic!("the configuration in {name}: {errors}"));
        assert!(!loaded.sinks.is_empty() && !loaded.sources.is_empty(), "{name} shows both ways");
    }
}

#[test]
fn the_commands_of_the_compose_file_are_ours() {
    let compose = read("docker-compose.yml");
    let commands: Vec<&str> = compose.lines().filter_map(|line| line.trim().strip_prefix("command: ")).collect();
    assert_eq!(commands.len(), 3, "simulator, topics, bridge");
    for command in commands {
        let parsed = Cli::try_parse_from(words(&format!("nowbridge {command}")));
        assert!(parsed.is_ok(), "docker-compose.yml: `{command}`: {:?}", parsed.err());
    }
}

#[test]
fn the_metrics_of_the_readme_are_those_of_the_program() {
    let path = root().join("README.md");
    let readme = read("README.md");
    let (from, to) = ("<!-- metrics -->", "<!-- /metrics -->");
    let wanted = format!("\n{}", metrics::table());
    if std::env::var_os("NOWBRIDGE_BLESS").is_some() {
        let blessed =
            readme.replace(&format!("{from}{}{to}", between(&readme, from, to)), &format!("{from}{wanted}{to}"));
        fs::write(path, blessed).expect("the README can be written");
        return;
    }
    let stale = between(&readme, from, to) != wanted;
    assert!(!stale, "README, \"Metrics\" is out of date: NOWBRIDGE_BLESS=1 cargo test --test it docs");
}

#[test]
fn the_pages_of_failures_are_those_of_the_program() {
    let path = root().join("docs/ERRORS.md");
    let wanted = nowbridge::error_catalog::markdown();
    if std::env::var_os("NOWBRIDGE_BLESS").is_some() {
        fs::write(path, wanted).expect("docs/ERRORS.md can be written");
        return;
    }
    assert!(read("docs/ERRORS.md") == wanted, "out of date: NOWBRIDGE_BLESS=1 cargo test --test it docs");
}

#[test]
fn links_to_files_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "docs/PROTOCOL.md", "docs/benchmark/README.md"] {
        let text = read(document);
        let folder = root().join(document).parent().map(Path::to_path_buf).unwrap_or_default();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let there = file.is_empty() || file.contains("://") || folder.join(file).exists();
            assert!(there, "{document} links to {link}, which is not there");
        }
    }
}

#[test]
fn ci_runs_the_test_command_of_the_readme_last() {
    let readme = read("README.md");
    assert!(shell_lines(&readme).contains(&"cargo test".to_owned()));
    assert_eq!(read(".ci/run").lines().last(), Some("cargo test"));
}

/// Arguments of a line that runs this program, the program's name first.
fn ours(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("cargo run") {
        return Some(rest.trim_start_matches(" --quiet"));
    }
    let line = line.strip_prefix("docker compose exec bridge ").unwrap_or(line);
    line.starts_with("nowbridge ").then_some(line)
}

/// Lines of the blocks that are marked as shell.
fn shell_lines(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Words as a shell would split them, for what documents use: blanks and quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    // `cargo run -- demo`: the program's name is not among the words.
    if words.first().is_some_and(|first| first == "--") {
        "nowbridge".clone_into(&mut words[0]);
    }
    words
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("`{from}` is there"));
    rest.split_once(to).unwrap_or_else(|| panic!("`{to}` is there")).0
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
