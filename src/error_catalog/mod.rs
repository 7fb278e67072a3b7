//! The catalog of errors, one page each: message, cause, what the bridge does, and resolution.
//!
//! Logs, dead letters and metrics contain the code of an error (`data_policy`); dead letters also contain its number
//! (`SN-006`), a short name for users. Both are stable: a number is never reused. Every code in the sources has a page;
//! a test reads the sources to verify this. The catalog does not influence what the bridge does.

mod alerts;
mod instance;

use std::fmt::{self, Write as _};

/// The page of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorPage {
    /// Stable; never reused.
    pub number: u16,
    /// The codes that the page explains.
    pub codes: &'static [&'static str],
    /// At most about 60 characters.
    pub title: &'static str,
    /// The message of the instance (verbatim) or of the bridge.
    pub message: &'static str,
    pub cause: &'static str,
    /// What the bridge does on its own.
    pub bridge_action: &'static str,
    /// What the user has to do.
    pub resolution: &'static str,
}

/// Returns all pages in order of their numbers.
pub fn pages() -> impl Iterator<Item = &'static ErrorPage> {
    instance::PAGES.iter().chain(alerts::PAGES)
}

/// Returns the page of a code. HTTP statuses without their own page share the page of 4xx or 5xx.
pub fn page_of_code(code: &str) -> Option<&'static ErrorPage> {
    let has = |wanted: &str| pages().find(|page| page.codes.contains(&wanted));
    has(code).or_else(|| match code.strip_prefix("http_")?.as_bytes() {
        [b'4', _, _] => has("http_4xx"),
        [b'5', _, _] => has("http_5xx"),
        _ => None,
    })
}

/// Returns the page of a code or a number, in any spelling: `SN-004`, `sn4`, `4`, `acl`.
pub fn find(name: &str) -> Option<&'static ErrorPage> {
    let lower = name.trim().to_ascii_lowercase();
    let digits = lower.strip_prefix("sn").unwrap_or(&lower).trim_start_matches(['-', '_', ' ']);
    match digits.parse::<u16>() {
        Ok(number) => pages().find(|page| page.number == number),
        Err(_) => page_of_code(&lower),
    }
}

/// Returns the pages whose texts contain `text`.
pub fn search(text: &str) -> Vec<&'static ErrorPage> {
    let wanted = text.to_lowercase();
    let matches = |page: &&ErrorPage| {
        let all = [page.title, page.message, page.cause, page.resolution];
        all.iter().any(|part| part.to_lowercase().contains(&wanted)) || page.codes.iter().any(|c| c.contains(&wanted))
    };
    pages().filter(matches).collect()
}

/// Returns the error number of a code, such as `SN-006`; empty if the code has no page.
pub fn error_number(code: &str) -> String {
    page_of_code(code).map(ErrorPage::error_number).unwrap_or_default()
}

impl ErrorPage {
    /// Returns the error number, such as `SN-006`.
    pub fn error_number(&self) -> String {
        format!("SN-{:03}", self.number)
    }
}

impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}\n", self.error_number(), self.title)?;
        let parts = [
            ("code", self.codes.join(", ")),
            ("message", self.message.to_owned()),
            ("cause", self.cause.to_owned()),
            ("nowbridge", self.bridge_action.to_owned()),
            ("resolution", self.resolution.to_owned()),
        ];
        for (label, text) in parts {
            for (at, line) in wrap(&text, 86).into_iter().enumerate() {
                writeln!(f, "{:<11}{line}", if at == 0 { label } else { "" })?;
            }
        }
        Ok(())
    }
}

/// Returns all pages as a Markdown document, `docs/ERRORS.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Errors\n\nGenerated from the program; `nowbridge explain` prints the same. Logs and dead letters contain the \
         code of an error, dead letters also its number.\n\n| Number | Code | Error |\n|---|---|---|\n",
    );
    for page in pages() {
        let codes = codes(page);
        let anchor = page.error_number().to_lowercase();
        let _ = writeln!(text, "| [{}](#{anchor}) | {codes} | {} |", page.error_number(), page.title);
    }
    for page in pages() {
        let _ = write!(
            text,
            "\n## {}\n\n**{}** ({})\n\n- Message: {}\n- Cause: {}\n- nowbridge: {}\n- Resolution: {}\n",
            page.error_number(),
            page.title,
            codes(page),
            page.message,
            page.cause,
            page.bridge_action,
            page.resolution
        );
    }
    text
}

fn codes(page: &ErrorPage) -> String {
    page.codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut();
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
