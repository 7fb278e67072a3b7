//! Selects the dead letters for a command. Pure: values in, values out.
//!
//! A filter selects keys, not dead letters: if one dead letter of a key matches, all of the key are selected, because
//! they must be applied in order. Dead letters without a key are selected individually.

use std::collections::{BTreeMap, BTreeSet};

use crate::mapping::key_matches;
use crate::model::Position;

/// Identifies a dead letter by its partition and offset in the dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLetterId {
    pub partition: i32,
    pub offset: i64,
}

impl std::fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for DeadLetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
        let (partition, offset) =
            parts.ok_or_else(|| format!("{text:?}: write PARTITION/OFFSET, as `list` shows it"))?;
        Ok(Self { partition, offset })
    }
}

/// A dead letter without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    /// Stable code, such as `rejected`, `parked` or `undecodable`.
    pub code: String,
    /// Message of the instance, the decoder or the mapping.
    pub reason: String,
    /// The alert's key, if known.
    pub key: Option<String>,
    /// Position of its event in the input.
    pub position: Position,
    /// Position of the event before its first redrive, which orders the dead letters of a key.
    pub original: Position,
    /// Position of the original in the user's topic, if the record was repartitioned: `<topic>/<partition>/<offset>`.
    pub origin: Option<String>,
    /// When it was written, Unix milliseconds.
    pub time: i64,
    /// How often its event was redriven before.
    pub redrives: u32,
    /// Size of key, value and headers.
    pub bytes: usize,
}

/// A filter. The default matches all dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The code is one of these; empty: any.
    pub codes: Vec<String>,
    /// The reason contains this text, ignoring case.
    pub reason: Option<String>,
    /// The key matches this pattern; `*` matches any text.
    pub key: Option<String>,
    /// Not older than this, Unix milliseconds.
    pub since: Option<i64>,
    /// Older than this, Unix milliseconds.
    pub until: Option<i64>,
}

impl Filter {
    /// Whether a dead letter matches.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let code = self.codes.is_empty() || self.codes.contains(&letter.code);
        let reason = self.reason.as_ref().is_none_or(|part| {
            let (reason, part) = (letter.reason.to_lowercase(), part.to_lowercase());
            reason.contains(&part)
        });
        let key =
            self.key.as_ref().is_none_or(|pattern| letter.key.as_ref().is_some_and(|key| key_matches(pattern, key)));
        let since = self.since.is_none_or(|since| letter.time >= since);
        let until = self.until.is_none_or(|until| letter.time < until);
        code && reason && key && since && until
    }
}

/// A selected dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectedLetter {
    pub id: DeadLetterId,
    /// It is about the same event as an earlier one, because the bridge wrote it twice around a crash. It gets a
    /// redrive marker and is not redriven.
    pub is_duplicate: bool,
}

/// Dead letters that are processed together: all of one key, or a single one without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterGroup {
    pub key: Option<String>,
    /// In the order of their events.
    pub letters: Vec<SelectedLetter>,
    /// The highest current position of their events in the input.
    pub newest: Position,
    /// Size of all.
    pub bytes: usize,
}

/// The selected dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// In the order in which they are processed.
    pub groups: Vec<DeadLetterGroup>,
    /// Keys that match but were redriven too often already, and how often.
    pub exhausted: BTreeMap<String, u32>,
}

impl Selection {
    /// Returns the number of selected dead letters.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.letters.len()).sum()
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns the selected keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.key.as_deref())
    }

    /// Number of selected dead letters without a key: each is a group of its own.
    pub fn keyless(&self) -> usize {
        self.groups.len() - self.keys().count()
    }
}

/// Selects among open dead letters. Keys of which a dead letter was redriven `max_redrives` times already are left out.
pub fn select(letters: &[DeadLetter], filter: &Filter, max_redrives: u32) -> Selection {
    let matching_keys: BTreeSet<&str> =
        letters.iter().filter(|l| filter.matches(l)).filter_map(|l| l.key.as_deref()).collect();
    let mut by_key: BTreeMap<&str, Vec<&DeadLetter>> = BTreeMap::new();
    let mut groups: Vec<(DeadLetterId, Vec<&DeadLetter>)> = Vec::new();
    for letter in letters {
        match letter.key.as_deref() {
            Some(key) if matching_keys.contains(key) => by_key.entry(key).or_default().push(letter),
            None if filter.matches(letter) => groups.push((letter.id, vec![letter])),
            _ => {}
        }
    }
    groups.extend(by_key.into_values().filter_map(|of_key| Some((of_key.iter().map(|l| l.id).min()?, of_key))));
    // In the order of the first rejection.
    groups.sort_by_key(|(first, _)| *first);
    let mut selection = Selection::default();
    for (id, of_key) in groups {
        let times = of_key.iter().map(|l| l.redrives).max().unwrap_or(0);
        let key = of_key.first().and_then(|l| l.key.clone());
        if times >= max_redrives {
            selection.exhausted.insert(key.unwrap_or_else(|| format!("(letter {id})")), times);
        } else {
            selection.groups.extend(group(key, of_key));
        }
    }
    selection
}

fn group(key: Option<String>, mut letters: Vec<&DeadLetter>) -> Option<DeadLetterGroup> {
    letters.sort_by_key(|letter| (letter.original, letter.id));
    let newest = letters.iter().map(|letter| letter.position).max()?;
    let bytes = letters.iter().map(|letter| letter.bytes).sum();
    let mut seen = BTreeSet::new();
    let select = |letter: &&DeadLetter| SelectedLetter { id: letter.id, is_duplicate: !seen.insert(letter.position) };
    let letters = letters.iter().map(select).collect();
    Some(DeadLetterGroup { key, letters, newest, bytes })
}

/// Counts dead letters by code and reason, in descending order. Reasons that differ only in numbers and quoted words
/// count as the same.
pub fn histogram<'a>(letters: impl Iterator<Item = &'a DeadLetter>) -> Vec<(usize, String, String)> {
    let mut counts: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    for letter in letters {
        let group = counts.entry((letter.code.clone(), normalized(&letter.reason)));
        let (count, _) = group.or_insert_with(|| (0, letter.reason.clone()));
        *count += 1;
    }
    let mut rows: Vec<_> = counts.into_iter().map(|((code, _), (count, reason))| (count, code, reason)).collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    rows
}

/// Removes numbers and quoted words, which differ between events, from a reason.
fn normalized(reason: &str) -> String {
    let mut normalized = String::new();
    let mut quoted = None;
    for c in reason.chars() {
        match quoted {
            Some(end) if c == end => quoted = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quoted = Some(c),
            None if c.is_ascii_digit() => {
                if !normalized.ends_with('0') {
                    normalized.push('0');
                }
            }
            None => normalized.push(c),
        }
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, key: Option<&str>, code: &str) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId { partition: 0, offset },
            code: code.into(),
            reason: format!("record {offset} of \"x{offset}\" is wrong"),
            key: key.map(str::to_owned),
            position: Position::new(0, 100 + offset, 0),
            original: Position::new(0, 100 + offset, 0),
            origin: None,
            time: 1_000 * offset,
            redrives: 0,
            bytes: 10,
        }
    }

    fn offsets(selection: &Selection) -> Vec<i64> {
        selection.groups.iter().flat_map(|group| &group.letters).map(|letter| letter.id.offset).collect()
    }

    #[test]
    fn all_dead_letters_of_a_key_are_selected_and_those_without_a_key_individually() {
        let letters = [
            letter(1, Some("a"), "rejected"),
            letter(2, Some("b"), "rejected"),
            letter(3, Some("a"), "parked"),
            letter(4, None, "undecodable"),
        ];
        let parked = Filter { codes: vec!["parked".into()], ..Filter::default() };
        let selection = select(&letters, &parked, 3);
        assert_eq!(offsets(&selection), [1, 3]);
        assert_eq!(selection.groups[0].newest, Position::new(0, 103, 0));
        assert_eq!(offsets(&select(&letters, &Filter::default(), 3)), [1, 3, 2, 4]);
        let undecodable = Filter { codes: vec!["undecodable".into()], ..Filter::default() };
        assert_eq!(offsets(&select(&letters, &undecodable, 3)), [4]);
    }

    #[test]
    fn dead_letters_of_a_key_are_in_the_order_of_their_events_even_after_a_redrive() {
        let mut letters = [letter(1, Some("a"), "parked"), letter(2, Some("a"), "rejected")];
        letters[1].original = Position::new(0, 7, 0);
        let selection = select(&letters, &Filter::default(), 3);
        assert_eq!(offsets(&selection), [2, 1]);
        assert_eq!(
            selection.groups[0].newest, letters[1].position,
            "the highest current position, not the newest event"
        );
    }

    #[test]
    fn filters_match_keys_reasons_and_times() {
        let letters = [letter(1, Some("disk:a"), "rejected"), letter(2, Some("net:b"), "rejected")];
        let selected = |filter: Filter| offsets(&select(&letters, &filter, 3));
        assert_eq!(selected(Filter { key: Some("disk:*".into()), ..Filter::default() }), [1]);
        assert_eq!(selected(Filter { reason: Some("RECORD 2".into()), ..Filter::default() }), [2]);
        assert_eq!(selected(Filter { since: Some(2_000), ..Filter::default() }), [2]);
        assert_eq!(selected(Filter { until: Some(2_000), ..Filter::default() }), [1]);
    }

    #[test]
    fn a_duplicate_is_not_redriven_and_a_key_redriven_too_often_is_left_out() {
        let mut letters = [letter(1, Some("a"), "rejected"), letter(2, Some("a"), "rejected")];
        letters[1].position = letters[0].position;
        letters[1].original = letters[0].original;
        let selection = select(&letters, &Filter::default(), 3);
        let duplicates: Vec<bool> = selection.groups[0].letters.iter().map(|letter| letter.is_duplicate).collect();
        assert_eq!(duplicates, [false, true]);
        letters[1].redrives = 3;
        let selection = select(&letters, &Filter::default(), 3);
        assert!(selection.is_empty());
        assert_eq!(selection.exhausted["a"], 3);
    }

    #[test]
    fn reasons_that_differ_only_in_numbers_count_as_the_same() {
        let letters = [letter(1, None, "x"), letter(22, None, "x"), letter(3, None, "y")];
        let rows = histogram(letters.iter());
        assert_eq!(rows.iter().map(|(n, code, _)| (*n, code.as_str())).collect::<Vec<_>>(), [(2, "x"), (1, "y")]);
    }
}
