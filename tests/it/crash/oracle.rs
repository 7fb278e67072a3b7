//! The oracle: what the rows and the log of an instance say against the reference model, in counts and in words. It
//! judges whoever wrote them: the bridge's notes carry markers, those of others do not. A note is one line here, as
//! all fed notes are; and each write's title ends in `#` and the number of its event, which tells what overtook what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::reference::Ticket;

/// How much is wrong, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistakes {
    /// Alerts with more than one ticket.
    pub doubled: usize,
    /// Alerts without one.
    pub missing: usize,
    /// Alerts of which no ticket has the state, title, impact and urgency that it must have; and tickets of no alert.
    pub wrong: usize,
    /// Notes that stand more often than they were fed.
    pub notes_doubled: usize,
    pub notes_missing: usize,
    /// Notes that stand behind one that was fed later.
    pub notes_disordered: usize,
    /// Alerts with which anything is wrong.
    pub alerts: usize,
}

/// What is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub counts: Mistakes,
    /// All of it for people, alert by alert.
    pub differences: Vec<String>,
}

/// Compares rows, by correlation, with what must be. Markers of notes name `topic`.
pub fn judge(rows: &BTreeMap<String, Vec<Value>>, expected: &BTreeMap<String, Ticket>, topic: &str) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, ticket) in expected {
        let before = verdict.differences.len();
        judge_one(&mut verdict, key, rows.get(key).map_or(&[], Vec::as_slice), ticket, topic);
        verdict.counts.alerts += usize::from(verdict.differences.len() > before);
    }
    for (key, rows) in rows.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        verdict.counts.wrong += 1;
        verdict.counts.alerts += 1;
        verdict.differences.push(format!("{key}: {} tickets of no alert", rows.len()));
    }
    verdict
}

fn judge_one(verdict: &mut Verdict, key: &str, rows: &[Value], ticket: &Ticket, topic: &str) {
    if rows.len() != 1 {
        *(if rows.is_empty() { &mut verdict.counts.missing } else { &mut verdict.counts.doubled }) += 1;
        verdict.differences.push(format!("{key}: {} tickets", rows.len()));
    }
    let must = [ticket.state, &ticket.title, ticket.impact, ticket.urgency];
    let is = |row: &Value| {
        ["state", "short_description", "impact", "urgency"]
            .map(|name| row[name].as_str().unwrap_or_default().to_owned())
    };
    if !rows.is_empty() && !rows.iter().any(|row| is(row) == must) {
        verdict.counts.wrong += 1;
        verdict.differences.push(format!("{key}: is {:?}, must be {must:?}", rows.iter().map(is).collect::<Vec<_>>()));
    }
    let written: Vec<Vec<String>> = rows.iter().map(|row| lines(row, topic)).collect();
    let count = |list: &mut dyn Iterator<Item = &String>, note: &str| list.filter(|other| *other == note).count();
    let mut all: Vec<&String> = written.iter().flatten().chain(&ticket.notes).collect();
    all.sort();
    all.dedup();
    let (mut doubled, mut missing) = (0, 0);
    for note in all {
        let (stands, fed) = (count(&mut written.iter().flatten(), note), count(&mut ticket.notes.iter(), note));
        doubled += stands.saturating_sub(fed);
        missing += fed.saturating_sub(stands);
    }
    let disordered: usize = written.iter().map(|notes| disordered(notes, &ticket.notes)).sum();
    verdict.counts.notes_doubled += doubled;
    verdict.counts.notes_missing += missing;
    verdict.counts.notes_disordered += disordered;
    if doubled + missing + disordered > 0 {
        verdict.differences.push(format!("{key}: notes are {written:?}, must be {:?}", ticket.notes));
    }
}

/// The notes of a row's journal, in the order in which they stand, markers left out.
fn lines(row: &Value, topic: &str) -> Vec<String> {
    let journal = row["journal"].as_array().into_iter().flatten();
    journal
        .flat_map(|entry| entry["value"].as_str().unwrap_or_default().lines())
        .map(str::trim)
        .filter(|line| !(line.is_empty() || is_marker(line, topic)))
        .map(str::to_owned)
        .collect()
}

/// Whether a line recognises the note above it: it names the topic and a place in it, after the ledger was begun anew the
/// incarnation too.
pub fn is_marker(line: &str, topic: &str) -> bool {
    let place = line.strip_prefix('[').and_then(|line| line.strip_prefix(topic));
    place.is_some_and(|place| place.starts_with(['/', '@']) && place.ends_with(']'))
}

/// How many stand behind one that was fed later. Of a text that was fed several times the next place counts.
fn disordered(written: &[String], fed: &[String]) -> usize {
    let mut used = vec![false; fed.len()];
    let mut last = 0;
    let mut disordered = 0;
    for note in written {
        let free = (0..fed.len()).find(|at| !used[*at] && fed[*at] == *note);
        // What stands once more than it was fed is doubled, which is counted elsewhere.
        let Some(at) = free else { continue };
        used[at] = true;
        disordered += usize::from(at < last);
        last = last.max(at);
    }
    disordered
}

/// Writes of the log that carry an older event than the write before them, in words; and how many ghosts struck. What the
/// instance refused wrote nothing.
pub fn overtaken(entries: &[Value]) -> (Vec<String>, usize) {
    let (mut last, mut overtaken, mut ghosts) = (BTreeMap::<&str, usize>::new(), Vec::new(), 0);
    for entry in entries.iter().filter(|entry| !entry["refused"].is_string()) {
        let Some(title) = entry["fields"]["short_description"].as_str() else { continue };
        let Some(number) = title.rsplit_once('#').and_then(|(_, n)| n.parse::<usize>().ok()) else { continue };
        if entry["was_ghost"] == true {
            ghosts += 1;
            continue;
        }
        let key = entry["correlation_id"].as_str().unwrap_or_default();
        let before = last.insert(key, number);
        if before.is_some_and(|before| before > number) {
            overtaken.push(format!("{key}: #{number} after {before:?}: {entry}"));
        }
    }
    (overtaken, ghosts)
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

    fn judged(rows: Vec<Value>, notes: &[&str]) -> Mistakes {
        let verdict = judge(&BTreeMap::from([("a".to_owned(), rows)]), &ticket(notes), "t");
        assert_eq!(verdict.counts.alerts > 0, !verdict.differences.is_empty());
        Mistakes { alerts: 0, ..verdict.counts }
    }

    #[test]
    fn what_is_right_is_right_with_markers_and_without() {
        let marked = row("2", &["one\n[t/0/1]\n\ntwo\n[t/0/2]", "one\n[t/0/3]"]);
        assert_eq!(judged(vec![marked], &["one", "two", "one"]), Mistakes::default());
        assert_eq!(judged(vec![row("2", &["one\ntwo"])], &["one", "two"]), Mistakes::default());
    }

    #[test]
    fn each_kind_of_wrong_is_counted_as_such() {
        let none = Mistakes::default();
        assert_eq!(judged(vec![], &["one"]), Mistakes { missing: 1, notes_missing: 1, ..none });
        assert_eq!(judged(vec![row("1", &[])], &[]), Mistakes { wrong: 1, ..none });
        // One of the two stands as it must: the alert is doubled, and not wrong besides.
        let two = vec![row("1", &["one"]), row("2", &["two"])];
        assert_eq!(judged(two, &["one", "two"]), Mistakes { doubled: 1, ..none });
        let twice = vec![row("2", &["one", "one", "three", "two"])];
        let notes = Mistakes { notes_doubled: 1, notes_missing: 1, notes_disordered: 1, ..none };
        assert_eq!(judged(twice, &["one", "two", "three", "four"]), notes);
        let stray = judge(&BTreeMap::from([("b".to_owned(), vec![row("2", &[])])]), &BTreeMap::new(), "t");
        assert_eq!((stray.counts.wrong, stray.counts.alerts), (1, 1));
    }

    #[test]
    fn an_older_event_that_is_written_later_is_seen_and_a_ghost_is_not_blamed() {
        let write = |title: &str, ghost| json!({"correlation_id": "a", "fields": {"short_description": title}, "was_ghost": ghost});
        let refused = json!({"correlation_id": "a", "fields": {"short_description": "x #9"}, "refused": "no"});
        let log = [write("x #1", false), refused, write("x #3", false), write("x #1", true), write("x #2", false)];
        let (overtaken, ghosts) = overtaken(&log);
        assert_eq!((overtaken.len(), ghosts), (1, 1));
    }
}
