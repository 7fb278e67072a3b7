//! Which letters a command is about. Pure: values in, values out.
//!
//! A filter chooses keys, not letters: a key with one letter that fits goes as a whole, because its letters must be
//! tried again in their order. Letters without a key are chosen one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::mapping::matches;
use crate::model::Position;

/// Where a letter lies in the dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
        let (partition, offset) =
            parts.ok_or_else(|| format!("{text:?}: write PARTITION/OFFSET, as `list` shows it"))?;
        Ok(Self { partition, offset })
    }
}

/// What is known of a letter without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it lies.
    pub place: LetterId,
    /// Stable code: `rejected`, `parked`, `undecodable`…
    pub code: String,
    /// What the instance, the decoder or the mapping said.
    pub reason: String,
    /// The alert's key, where known.
    pub key: Option<String>,
    /// Which event of the input it is about.
    pub position: Position,
    /// Where that event stood before it was put back for the first time: the order of a key's letters.
    pub original: Position,
    /// Where its record stood in the user's topic, if it was re-keyed: `<topic>/<partition>/<offset>`.
    pub origin: Option<String>,
    /// When it became a dead letter, Unix milliseconds.
    pub time: i64,
    /// How often it had been put back before.
    pub redrives: u32,
    /// Bytes of key, value and headers.
    pub bytes: usize,
}

/// What must be true of a letter. Empty: everything fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these codes.
    pub codes: Vec<String>,
    /// This text is part of the reason, whatever the case.
    pub reason: Option<String>,
    /// The key, where `*` stands for any text.
    pub key: Option<String>,
    /// Not older than this, Unix milliseconds.
    pub since: Option<i64>,
    /// Older than this, Unix milliseconds.
    pub until: Option<i64>,
}

impl Filter {
    /// Whether a letter fits.
    pub fn matches(&self, letter: &Letter) -> bool {
        let code = self.codes.is_empty() || self.codes.contains(&letter.code);
        let reason = self.reason.as_ref().is_none_or(|part| {
            let (reason, part) = (letter.reason.to_lowercase(), part.to_lowercase());
            reason.contains(&part)
        });
        let key = self.key.as_ref().is_none_or(|pattern| letter.key.as_ref().is_some_and(|key| matches(pattern, key)));
        let since = self.since.is_none_or(|since| letter.time >= since);
        let until = self.until.is_none_or(|until| letter.time < until);
        code && reason && key && since && until
    }
}

/// What is to be done with a chosen letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes back.
    Again,
    /// It is the same event as an earlier letter (the bridge wrote it twice around a crash): only marked.
    Repeated,
}

/// Letters that go together: all of one key, or one that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Their key.
    pub key: Option<String>,
    /// In the order of their events.
    pub letters: Vec<(LetterId, Fate)>,
    /// The newest event among them, as it stands in the input now.
    pub upto: Position,
    /// Bytes of all.
    pub bytes: usize,
}

/// The chosen letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// In the order in which they go.
    pub groups: Vec<Group>,
    /// Keys that fit but were put back too often already, and how often.
    pub exhausted: BTreeMap<String, u32>,
}

impl Selection {
    /// How many letters.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.letters.len()).sum()
    }

    /// True where nothing is chosen.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The chosen keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.key.as_deref())
    }
}

/// Chooses among open letters. Keys of which a letter has come back `most` times already are left out.
pub fn select(letters: &[Letter], filter: &Filter, most: u32) -> Selection {
    let fitting: BTreeSet<&str> =
        letters.iter().filter(|l| filter.matches(l)).filter_map(|l| l.key.as_deref()).collect();
    let mut by_key: BTreeMap<&str, Vec<&Letter>> = BTreeMap::new();
    let mut groups: Vec<(LetterId, Vec<&Letter>)> = Vec::new();
    for letter in letters {
        match letter.key.as_deref() {
            Some(key) if fitting.contains(key) => by_key.entry(key).or_default().push(letter),
            None if filter.matches(letter) => groups.push((letter.place, vec![letter])),
            _ => {}
        }
    }
    groups.extend(by_key.into_values().filter_map(|of_key| Some((of_key.iter().map(|l| l.place).min()?, of_key))));
    // What was refused first goes first.
    groups.sort_by_key(|(first, _)| *first);
    let mut choice = Selection::default();
    for (place, of_key) in groups {
        let times = of_key.iter().map(|l| l.redrives).max().unwrap_or(0);
        let key = of_key.first().and_then(|l| l.key.clone());
        if times >= most {
            choice.exhausted.insert(key.unwrap_or_else(|| format!("(letter {place})")), times);
        } else {
            choice.groups.extend(group(key, of_key));
        }
    }
    choice
}

fn group(key: Option<String>, mut letters: Vec<&Letter>) -> Option<Group> {
    letters.sort_by_key(|letter| (letter.original, letter.place));
    let upto = letters.iter().map(|letter| letter.position).max()?;
    let bytes = letters.iter().map(|letter| letter.bytes).sum();
    let mut seen = BTreeSet::new();
    let fate = |letter: &&Letter| if seen.insert(letter.position) { Fate::Again } else { Fate::Repeated };
    let letters = letters.iter().map(|letter| letter.place).zip(letters.iter().map(fate).collect::<Vec<_>>()).collect();
    Some(Group { key, letters, upto, bytes })
}

/// How many letters there are of each code and reason, most first. Reasons that differ in numbers and quoted words
/// only count as one.
pub fn histogram<'a>(letters: impl Iterator<Item = &'a Letter>) -> Vec<(usize, String, String)> {
    let mut counts: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    for letter in letters {
        let group = counts.entry((letter.code.clone(), shape(&letter.reason)));
        let (count, _) = group.or_insert_with(|| (0, letter.reason.clone()));
        *count += 1;
    }
    let mut rows: Vec<_> = counts.into_iter().map(|((code, _), (count, reason))| (count, code, reason)).collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    rows
}

/// A reason without what differs from one event to the next.
fn shape(reason: &str) -> String {
    let mut shape = String::new();
    let mut quoted = None;
    for c in reason.chars() {
        match quoted {
            Some(end) if c == end => quoted = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quoted = Some(c),
            None if c.is_ascii_digit() => {
                if !shape.ends_with('0') {
                    shape.push('0');
                }
            }
            None => shape.push(c),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, key: Option<&str>, code: &str) -> Letter {
        Letter {
            place: LetterId { partition: 0, offset },
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

    fn places(choice: &Selection) -> Vec<i64> {
        choice.groups.iter().flat_map(|g| &g.letters).map(|(p, _)| p.offset).collect()
    }

    #[test]
    fn a_key_goes_as_a_whole_and_letters_without_one_by_themselves() {
        let letters = [
            letter(1, Some("a"), "rejected"),
            letter(2, Some("b"), "rejected"),
            letter(3, Some("a"), "parked"),
            letter(4, None, "undecodable"),
        ];
        let parked = Filter { codes: vec!["parked".into()], ..Filter::default() };
        let choice = select(&letters, &parked, 3);
        assert_eq!(places(&choice), [1, 3]);
        assert_eq!(choice.groups[0].upto, Position::new(0, 103, 0));
        assert_eq!(places(&select(&letters, &Filter::default(), 3)), [1, 3, 2, 4]);
        let undecodable = Filter { codes: vec!["undecodable".into()], ..Filter::default() };
        assert_eq!(places(&select(&letters, &undecodable, 3)), [4]);
    }

    #[test]
    fn letters_of_a_key_go_in_the_order_of_their_events_even_when_one_came_back() {
        let mut letters = [letter(1, Some("a"), "parked"), letter(2, Some("a"), "rejected")];
        letters[1].original = Position::new(0, 7, 0);
        let choice = select(&letters, &Filter::default(), 3);
        assert_eq!(places(&choice), [2, 1]);
        assert_eq!(choice.groups[0].upto, letters[1].position, "the newest position now, not the newest event");
    }

    #[test]
    fn filters_take_keys_words_and_times() {
        let letters = [letter(1, Some("disk:a"), "rejected"), letter(2, Some("net:b"), "rejected")];
        let of = |filter: Filter| places(&select(&letters, &filter, 3));
        assert_eq!(of(Filter { key: Some("disk:*".into()), ..Filter::default() }), [1]);
        assert_eq!(of(Filter { reason: Some("RECORD 2".into()), ..Filter::default() }), [2]);
        assert_eq!(of(Filter { since: Some(2_000), ..Filter::default() }), [2]);
        assert_eq!(of(Filter { until: Some(2_000), ..Filter::default() }), [1]);
    }

    #[test]
    fn a_letter_written_twice_goes_back_once_and_one_put_back_too_often_not_at_all() {
        let mut letters = [letter(1, Some("a"), "rejected"), letter(2, Some("a"), "rejected")];
        letters[1].position = letters[0].position;
        letters[1].original = letters[0].original;
        let choice = select(&letters, &Filter::default(), 3);
        let fates: Vec<Fate> = choice.groups[0].letters.iter().map(|(_, fate)| *fate).collect();
        assert_eq!(fates, [Fate::Again, Fate::Repeated]);
        letters[1].redrives = 3;
        let choice = select(&letters, &Filter::default(), 3);
        assert!(choice.is_empty());
        assert_eq!(choice.exhausted["a"], 3);
    }

    #[test]
    fn reasons_that_differ_in_numbers_only_count_as_one() {
        let letters = [letter(1, None, "x"), letter(22, None, "x"), letter(3, None, "y")];
        let rows = histogram(letters.iter());
        assert_eq!(rows.iter().map(|(n, code, _)| (*n, code.as_str())).collect::<Vec<_>>(), [(2, "x"), (1, "y")]);
    }
}
