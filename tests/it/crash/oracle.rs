//! The oracle: compares the rows and the write log of an instance with the reference model, in counts and in words. It
//! judges writes of any origin: the bridge's notes contain markers, those of other systems do not. Each note is one
//! line here, as all published notes are; and each write's title ends in `#` and the number of its event, which shows
//! writes out of order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::reference::Ticket;

/// Counts of errors, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Alerts with more than one ticket.
    pub duplicate_tickets: usize,
    /// Alerts without a ticket.
    pub lost_tickets: usize,
    /// Alerts none of whose tickets has the expected state, title, impact and urgency; and tickets without an alert.
    pub wrong_tickets: usize,
    /// Notes that a ticket contains more often than they were published.
    pub duplicate_notes: usize,
    pub lost_notes: usize,
    /// Notes that follow one that was published later.
    pub notes_out_of_order: usize,
    /// Alerts with at least one of these errors.
    pub alerts: usize,
}

/// The differences between rows and the reference model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    pub counts: ErrorCounts,
    /// All differences in words, alert by alert.
    pub differences: Vec<String>,
}

/// The order of an instance's writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOrder {
    /// Writes that carry an older event than the write before them, in words.
    pub out_of_order: Vec<String>,
    /// Number of ghost writes, which are not counted as out of order.
    pub ghost_writes: usize,
}

/// Compares rows, by correlation, with the expected tickets. Markers of notes name `topic`.
pub fn compare(rows: &BTreeMap<String, Vec<Value>>, expected: &BTreeMap<String, Ticket>, topic: &str) -> Comparison {
    let mut comparison = Comparison::default();
    for (key, ticket) in expected {
        let before = comparison.differences.len();
        compare_alert(&mut comparison, key, rows.get(key).map_or(&[], Vec::as_slice), ticket, topic);
        comparison.counts.alerts += usize::from(comparison.differences.len() > before);
    }
    for (key, rows) in rows.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        comparison.counts.wrong_tickets += 1;
        comparison.counts.alerts += 1;
        comparison.differences.push(format!("{key}: {} tickets without an alert", rows.len()));
    }
    comparison
}

fn compare_alert(comparison: &mut Comparison, key: &str, rows: &[Value], ticket: &Ticket, topic: &str) {
    let Comparison { counts, differences } = comparison;
    if rows.len() != 1 {
        *(if rows.is_empty() { &mut counts.lost_tickets } else { &mut counts.duplicate_tickets }) += 1;
        differences.push(format!("{key}: {} tickets", rows.len()));
    }
    let expected = [ticket.state, &ticket.title, ticket.impact, ticket.urgency];
    let actual = |row: &Value| {
        ["state", "short_description", "impact", "urgency"]
            .map(|name| row[name].as_str().unwrap_or_default().to_owned())
    };
    if !rows.is_empty() && !rows.iter().any(|row| actual(row) == expected) {
        counts.wrong_tickets += 1;
        let actual: Vec<_> = rows.iter().map(actual).collect();
        differences.push(format!("{key}: is {actual:?}, expected {expected:?}"));
    }
    let written: Vec<Vec<String>> = rows.iter().map(|row| note_lines(row, topic)).collect();
    let count = |list: &mut dyn Iterator<Item = &String>, note: &str| list.filter(|other| *other == note).count();
    let mut notes: Vec<&String> = written.iter().flatten().chain(&ticket.notes).collect();
    notes.sort();
    notes.dedup();
    let (mut duplicate, mut lost) = (0, 0);
    for note in notes {
        let actual = count(&mut written.iter().flatten(), note);
        let published = count(&mut ticket.notes.iter(), note);
        duplicate += actual.saturating_sub(published);
        lost += published.saturating_sub(actual);
    }
    let out_of_order: usize = written.iter().map(|notes| notes_out_of_order(notes, &ticket.notes)).sum();
    counts.duplicate_notes += duplicate;
    counts.lost_notes += lost;
    counts.notes_out_of_order += out_of_order;
    if duplicate + lost + out_of_order > 0 {
        differences.push(format!("{key}: notes are {written:?}, expected {:?}", ticket.notes));
    }
}

/// The notes of a row's journal, in journal order, without markers.
fn note_lines(row: &Value, topic: &str) -> Vec<String> {
    let journal = row["journal"].as_array().into_iter().flatten();
    journal
        .flat_map(|entry| entry["value"].as_str().unwrap_or_default().lines())
        .map(str::trim)
        .filter(|line| !(line.is_empty() || is_marker(line, topic)))
        .map(str::to_owned)
        .collect()
}

/// Whether a line is the marker of the note above it. A marker names the topic and a position in it; after a rebuild of
/// the ledger, the topic generation too.
pub fn is_marker(line: &str, topic: &str) -> bool {
    let rest = line.strip_prefix('[').and_then(|line| line.strip_prefix(topic));
    rest.is_some_and(|rest| rest.starts_with(['/', '@']) && rest.ends_with(']'))
}

/// How many notes follow one that was published later. If a text was published several times, its next occurrence
/// counts.
fn notes_out_of_order(written: &[String], published: &[String]) -> usize {
    let mut used = vec![false; published.len()];
    let mut last = 0;
    let mut out_of_order = 0;
    for note in written {
        let unused = (0..published.len()).find(|at| !used[*at] && published[*at] == *note);
        // A note without an occurrence left is a duplicate, which is counted elsewhere.
        let Some(at) = unused else { continue };
        used[at] = true;
        out_of_order += usize::from(at < last);
        last = last.max(at);
    }
    out_of_order
}

/// Finds writes out of order and ghost writes in the log. Rejected writes are ignored: they changed nothing.
pub fn write_order(entries: &[Value]) -> WriteOrder {
    let (mut order, mut last) = (WriteOrder::default(), BTreeMap::<&str, usize>::new());
    for entry in entries.iter().filter(|entry| !entry["error"].is_string()) {
        let Some(title) = entry["fields"]["short_description"].as_str() else { continue };
        let Some(number) = title.rsplit_once('#').and_then(|(_, n)| n.parse::<usize>().ok()) else { continue };
        if entry["ghost_write"] == true {
            order.ghost_writes += 1;
            continue;
        }
        let key = entry["correlation_id"].as_str().unwrap_or_default();
        let before = last.insert(key, number);
        if before.is_some_and(|before| before > number) {
            order.out_of_order.push(format!("{key}: #{number} after {before:?}: {entry}"));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ticket(notes: &[&str]) -> BTreeMap<String, Ticket> {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        let ticket = Ticket { state: "2", title: "disk #4".into(), impact: "2", urgency: "1", notes };
        BTreeMap::from([("a".to_owned(), ticket)])
    }

    fn row(state: &str, journal: &[&str]) -> Value {
        let journal: Vec<Value> = journal.iter().map(|text| json!({"value": text})).collect();
        json!({"state": state, "short_description": "disk #4", "impact": "2", "urgency": "1", "journal": journal})
    }

    fn errors(rows: Vec<Value>, notes: &[&str]) -> ErrorCounts {
        let comparison = compare(&BTreeMap::from([("a".to_owned(), rows)]), &ticket(notes), "t");
        assert_eq!(comparison.counts.alerts > 0, !comparison.differences.is_empty());
        ErrorCounts { alerts: 0, ..comparison.counts }
    }

    #[test]
    fn a_correct_ticket_has_no_errors_with_or_without_markers() {
        let marked = row("2", &["one\n[t/0/1]\n\ntwo\n[t/0/2]", "one\n[t/0/3]"]);
        assert_eq!(errors(vec![marked], &["one", "two", "one"]), ErrorCounts::default());
        assert_eq!(errors(vec![row("2", &["one\ntwo"])], &["one", "two"]), ErrorCounts::default());
    }

    #[test]
    fn each_kind_of_error_is_counted() {
        let none = ErrorCounts::default();
        assert_eq!(errors(vec![], &["one"]), ErrorCounts { lost_tickets: 1, lost_notes: 1, ..none });
        assert_eq!(errors(vec![row("1", &[])], &[]), ErrorCounts { wrong_tickets: 1, ..none });
        // One of the two is correct: the alert has a duplicate ticket, and no wrong one.
        let two = vec![row("1", &["one"]), row("2", &["two"])];
        assert_eq!(errors(two, &["one", "two"]), ErrorCounts { duplicate_tickets: 1, ..none });
        let twice = vec![row("2", &["one", "one", "three", "two"])];
        let notes = ErrorCounts { duplicate_notes: 1, lost_notes: 1, notes_out_of_order: 1, ..none };
        assert_eq!(errors(twice, &["one", "two", "three", "four"]), notes);
        let stray = compare(&BTreeMap::from([("b".to_owned(), vec![row("2", &[])])]), &BTreeMap::new(), "t");
        assert_eq!((stray.counts.wrong_tickets, stray.counts.alerts), (1, 1));
    }

    #[test]
    fn a_later_write_of_an_older_event_is_out_of_order_unless_it_is_a_ghost_write() {
        let write = |title: &str, ghost| json!({"correlation_id": "a", "fields": {"short_description": title}, "ghost_write": ghost});
        let rejected = json!({"correlation_id": "a", "fields": {"short_description": "x #9"}, "error": "no"});
        let log = [write("x #1", false), rejected, write("x #3", false), write("x #1", true), write("x #2", false)];
        let order = write_order(&log);
        assert_eq!((order.out_of_order.len(), order.ghost_writes), (1, 1));
    }
}
