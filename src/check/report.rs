//! The outcome of the checks, and their table.

use std::fmt;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Not looked at, because something it rests on failed or is not there.
    Skipped,
    /// The bridge can run, and a person should know.
    Warn,
    /// The bridge can't do its work like this.
    Fail,
}

impl Outcome {
    /// Its word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skipped => "skipped",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable: `kafka.reach`, `instance.prod.login`, `sink.incidents.columns`.
    pub id: String,
    /// What was looked at, in words.
    pub what: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was observed.
    pub detail: String,
    /// What to do; empty where nothing is.
    pub remedy: String,
}

/// All checks, in the order they were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// How many went like this.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|c| c.outcome == outcome).count()
    }

    /// True where nothing failed: warnings do not keep the bridge from running.
    pub fn is_well(&self) -> bool {
        self.count(Outcome::Fail) == 0
    }

    /// The check of this id.
    pub fn get(&self, id: &str) -> Option<&Check> {
        self.checks.iter().find(|c| c.id == id)
    }
}

/// Width at which details and remedies break.
const WIDTH: usize = 100;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.checks.iter().map(|c| c.id.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            writeln!(f, "{:<7}  {:<widest$}  {}", check.outcome.word(), check.id, check.what)?;
            wrapped(f, "", &check.detail, widest)?;
            if !check.remedy.is_empty() {
                wrapped(f, "to do: ", &check.remedy, widest)?;
            }
        }
        if !self.checks.is_empty() {
            writeln!(f)?;
        }
        let counts = [
            (Outcome::Pass, "passed"),
            (Outcome::Warn, "warned"),
            (Outcome::Fail, "failed"),
            (Outcome::Skipped, "skipped"),
        ];
        for (index, (outcome, word)) in counts.into_iter().enumerate() {
            write!(f, "{}{} {word}", if index == 0 { "" } else { ", " }, self.count(outcome))?;
        }
        writeln!(f)
    }
}

/// A text below its check, indented to the column of `what`.
fn wrapped(f: &mut fmt::Formatter<'_>, label: &str, text: &str, widest: usize) -> fmt::Result {
    let indent = 7 + 2 + widest + 2;
    let room = WIDTH.saturating_sub(indent).max(40);
    let mut line = label.to_owned();
    let mut length = line.chars().count();
    let mut begun = !label.is_empty();
    for word in text.split_whitespace() {
        let long = word.chars().count();
        if length > 0 && length + long + usize::from(!line.ends_with(' ')) > room && begun {
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
        begun = true;
    }
    if line.trim().is_empty() { Ok(()) } else { writeln!(f, "{:indent$}{}", "", line.trim_end()) }
}
