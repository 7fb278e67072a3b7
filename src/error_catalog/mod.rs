//! What can go wrong with a ticket or an alert, a page for each: what was said, what it means, what the bridge did with
//! it, and what a person does about it.
//!
//! Codes (`data_policy`) are what logs, dead letters and metrics carry; numbers (`SN-006`) are their short names for
//! people, printed on the same occasions. Both are stable: a number is never given to something else. It guarantees that
//! each code of the program has a page (a test reads the sources); it decides nothing.

mod alerts;
mod instance;

use std::fmt::{self, Write as _};

/// The page of one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorPage {
    /// Stable number.
    pub number: u16,
    /// The codes that it explains.
    pub codes: &'static [&'static str],
    /// In few words.
    pub title: &'static str,
    /// What the instance, or the bridge, says.
    pub said: &'static str,
    /// What that means.
    pub means: &'static str,
    /// What the bridge does by itself.
    pub does: &'static str,
    /// What a person does.
    pub todo: &'static str,
}

/// All pages, by number.
pub fn pages() -> impl Iterator<Item = &'static ErrorPage> {
    instance::PAGES.iter().chain(alerts::PAGES)
}

/// The page of a code. Statuses without a page of their own share one.
pub fn of_code(code: &str) -> Option<&'static ErrorPage> {
    let has = |wanted: &str| pages().find(|page| page.codes.contains(&wanted));
    has(code).or_else(|| match code.strip_prefix("http_")?.as_bytes() {
        [b'4', _, _] => has("http_4xx"),
        [b'5', _, _] => has("http_5xx"),
        _ => None,
    })
}

/// The page of a code or a number, however it is written: `SN-004`, `sn4`, `4`, `acl`.
pub fn find(name: &str) -> Option<&'static ErrorPage> {
    let lower = name.trim().to_ascii_lowercase();
    let digits = lower.strip_prefix("sn").unwrap_or(&lower).trim_start_matches(['-', '_', ' ']);
    match digits.parse::<u16>() {
        Ok(number) => pages().find(|page| page.number == number),
        Err(_) => of_code(&lower),
    }
}

/// The pages whose texts speak of it.
pub fn search(text: &str) -> Vec<&'static ErrorPage> {
    let wanted = text.to_lowercase();
    let speaks = |page: &&ErrorPage| {
        let all = [page.title, page.said, page.means, page.todo];
        all.iter().any(|part| part.to_lowercase().contains(&wanted)) || page.codes.iter().any(|c| c.contains(&wanted))
    };
    pages().filter(speaks).collect()
}

/// The short name of a code: `SN-006`. Empty where it has no page.
pub fn name(code: &str) -> String {
    of_code(code).map(ErrorPage::name).unwrap_or_default()
}

impl ErrorPage {
    /// Its short name.
    pub fn name(&self) -> String {
        format!("SN-{:03}", self.number)
    }
}

impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}\n", self.name(), self.title)?;
        let parts = [
            ("code", self.codes.join(", ")),
            ("said", self.said.to_owned()),
            ("means", self.means.to_owned()),
            ("nowbridge", self.does.to_owned()),
            ("to do", self.todo.to_owned()),
        ];
        for (title, text) in parts {
            for (at, line) in wrap(&text, 86).into_iter().enumerate() {
                writeln!(f, "{:<11}{line}", if at == 0 { title } else { "" })?;
            }
        }
        Ok(())
    }
}

/// All pages as a document.
pub fn markdown() -> String {
    let mut text = String::from(
        "# What can go wrong, and what to do\n\nGenerated from the program (`nowbridge explain` shows the same). Logs and \
         dead letters name the code, dead letters the number as well.\n\n| number | code | |\n|---|---|---|\n",
    );
    for page in pages() {
        let codes = codes(page);
        let anchor = page.name().to_lowercase();
        let _ = writeln!(text, "| [{}](#{anchor}) | {codes} | {} |", page.name(), page.title);
    }
    for page in pages() {
        let _ = write!(
            text,
            "\n## {}\n\n**{}** ({})\n\n- Said: {}\n- Means: {}\n- nowbridge: {}\n- To do: {}\n",
            page.name(),
            page.title,
            codes(page),
            page.said,
            page.means,
            page.does,
            page.todo
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
