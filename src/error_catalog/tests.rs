//! Every code in the sources has a page, and every page can be found and printed.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

#[test]
fn numbers_are_ascending_and_codes_are_unique() {
    let numbers: Vec<u16> = pages().map(|page| page.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let codes: Vec<&str> = pages().flat_map(|page| page.codes).copied().collect();
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
}

#[test]
fn a_page_is_found_by_number_or_code_in_any_spelling() {
    for name in ["SN-004", "sn4", "sn-4", "4", "acl", "ACL"] {
        assert_eq!(find(name).map(|page| page.number), Some(4), "{name}");
    }
    assert_eq!(find("http_418").map(|page| page.number), Some(11), "statuses without their own page share one");
    assert_eq!(find("http_599").map(|page| page.number), Some(13));
    assert_eq!((find("SN-999"), find("nonsense"), find("")), (None, None, None));
    assert!(search("mandatory").iter().any(|page| page.number == 6));
}

/// Returns the codes in the sources: string literals where a failure, a dead letter or a rejection is created.
fn codes_of_the_program() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for folder in ["servicenow", "systems", "mapping", "sink", "engine/dispatcher"] {
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") && !path.to_string_lossy().contains("tests") {
                    let text = std::fs::read_to_string(&path).expect("text");
                    let (code, _) = text.split_once("\n#[cfg(test)]").unwrap_or((&text, ""));
                    codes.extend(literals(code));
                }
            }
        }
    }
    codes
}

fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (before, _) in code.match_indices('"') {
        let rest = &code[before + 1..];
        let Some(end) = rest.find('"') else { continue };
        let word = &rest[..end];
        let line = &code[..before];
        let opened = line.rfind(['(', '{', ';', '}']).map_or(line, |at| &line[at.saturating_sub(40)..]);
        let calls = ["failure(", "ambiguous(", "ambiguous_ended(", "differs(", "reject("]
            .iter()
            .any(|call| opened.contains(call));
        let chosen = line.rfind("let code = ").is_some_and(|at| {
            let condition = line[at..].trim_end().ends_with(['(', ',']);
            !line[at..].contains(';') && !condition && line.trim_end().ends_with('{')
        });
        let makes = line.ends_with("code: ") || calls || chosen;
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if makes && plain {
            found.push(word.to_owned());
        }
    }
    found
}

#[test]
fn every_code_in_the_sources_has_a_page() {
    let codes = codes_of_the_program();
    assert!(codes.len() > 25, "too few codes found in the sources: {codes:?}");
    let without: Vec<_> = codes.iter().filter(|code| page_of_code(code).is_none()).collect();
    assert!(without.is_empty(), "codes without a page: {without:?}");
    // The codes of HTTP statuses are composed, and the engine sets those of parked and ambiguous events.
    let is_composed =
        |code: &str| code.starts_with("http_") || matches!(code, "rejected" | "parked" | "ambiguous_note");
    let unused: Vec<_> =
        pages().flat_map(|page| page.codes).filter(|c| !codes.contains(**c) && !is_composed(c)).collect();
    assert!(unused.is_empty(), "pages of codes that do not occur in the sources: {unused:?}");
}

#[test]
fn every_page_has_a_cause_and_a_resolution_and_fits_a_terminal() {
    for page in pages() {
        let text = page.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("resolution") && !page.resolution.is_empty() && !page.cause.is_empty());
    }
    assert!(markdown().contains("## SN-108"));
}
