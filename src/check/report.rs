//! The report of the checks, and its display as a table.

use std::fmt;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Pass,
    /// Not checked, because a check that it depends on failed or there was nothing to check.
    Skipped,
    /// The bridge can run, but a user should know about it.
    Warn,
    /// The bridge cannot work like this.
    Fail,
}

impl Outcome {
    /// The outcome as shown in the table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pass => "ok",
            Self::Skipped => "skipped",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A stable id: `kafka.reach`, `instance.prod.login`, `sink.incidents.columns`.
    pub id: String,
    /// What was checked.
    pub title: String,
    pub outcome: Outcome,
    /// What was observed.
    pub detail: String,
    /// What to do; empty if the check passed.
    pub remedy: String,
}

/// The results of all checks, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub checks: Vec<Check>,
}

impl Report {
    /// The number of checks with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|c| c.outcome == outcome).count()
    }

    /// Whether no check failed; the bridge can run with warnings.
    pub fn is_ok(&self) -> bool {
        self.count(Outcome::Fail) == 0
    }

    /// The check with this id.
    pub fn find_check(&self, id: &str) -> Option<&Check> {
        self.checks.iter().find(|c| c.id == id)
    }
}

/// Line width of the table.
const WIDTH: usize = 100;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.checks.iter().map(|c| c.id.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            writeln!(f, "{:<7}  {:<widest$}  {}", check.outcome.label(), check.id, check.title)?;
            write_wrapped(f, "", &check.detail, widest)?;
            if !check.remedy.is_empty() {
                write_wrapped(f, "fix: ", &check.remedy, widest)?;
            }
        }
        if !self.checks.is_empty() {
            writeln!(f)?;
        }
        let counts = [
            (Outcome::Pass, "ok"),
            (Outcome::Warn, "warnings"),
            (Outcome::Fail, "failed"),
            (Outcome::Skipped, "skipped"),
        ];
        for (index, (outcome, word)) in counts.into_iter().enumerate() {
            write!(f, "{}{} {word}", if index == 0 { "" } else { ", " }, self.count(outcome))?;
        }
        writeln!(f)
    }
}

/// Writes a text below its check, wrapped and indented to the column of the title.
fn write_wrapped(f: &mut fmt::Formatter<'_>, label: &str, text: &str, widest: usize) -> fmt::Result {
    let indent = 7 + 2 + widest + 2;
    let width = WIDTH.saturating_sub(indent).max(40);
    let mut line = label.to_owned();
    let mut length = line.chars().count();
    let mut has_word = !label.is_empty();
    for word in text.split_whitespace() {
        let long = word.chars().count();
        if length > 0 && length + long + usize::from(!line.ends_with(' ')) > width && has_word {
            writeln!(f, "{:indent$}{}", "", line.trim_end())?;
            line.clear();
            length = 0;
        }
        if length > 0 && !line.ends_with(' ') {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += long;
        has_word = true;
    }
    if line.trim().is_empty() { Ok(()) } else { writeln!(f, "{:indent$}{}", "", line.trim_end()) }
}
