//! What many entries have in common, kept once: column names, states, users, prefixes of numbers, and values that many
//! tickets have (an impact, a group).
//!
//! A value is taken in when it comes a second time within a while, so that texts which occur once don't fill the table.
//! What has a number keeps it; the tables are bounded and nothing leaves them.

use std::sync::Arc;

use crate::model::{Column, FastMap, FieldDigest};

/// Most words, and most values.
const MOST: usize = 2_048;

/// Longer texts are no words.
const LONGEST: usize = 64;

/// How many values are remembered that came once.
const ONCE: usize = 512;

/// The tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    list: Vec<Arc<str>>,
    numbers: FastMap<Arc<str>, u16>,
    values: Vec<(Column, FieldDigest)>,
    value_numbers: FastMap<(Column, FieldDigest), u16>,
    /// The last value that came once, by its digest.
    once: Vec<u64>,
}

impl Words {
    /// The number of a word, which is taken in where there is room.
    pub(super) fn number(&mut self, word: &str) -> Option<u16> {
        if let Some(number) = self.numbers.get(word) {
            return Some(*number);
        }
        if word.len() > LONGEST || self.list.len() >= MOST {
            return None;
        }
        let (number, word) = (u16::try_from(self.list.len()).ok()?, Arc::<str>::from(word));
        self.list.push(Arc::clone(&word));
        self.numbers.insert(word, number);
        Some(number)
    }

    pub(super) fn word(&self, number: u16) -> Option<&Arc<str>> {
        self.list.get(usize::from(number))
    }

    /// The number of a value, once it came twice.
    pub(super) fn value_number(&mut self, value: &(Column, FieldDigest)) -> Option<u16> {
        if let Some(number) = self.value_numbers.get(value) {
            return Some(*number);
        }
        self.once.resize(ONCE, 0);
        let slot = usize::try_from(value.1.sent % ONCE as u64).ok()?;
        let once = self.once.get_mut(slot)?;
        if *once != value.1.sent {
            *once = value.1.sent;
            return None;
        }
        if self.values.len() >= MOST {
            return None;
        }
        let number = u16::try_from(self.values.len()).ok()?;
        self.values.push(value.clone());
        self.value_numbers.insert(value.clone(), number);
        Some(number)
    }

    pub(super) fn value(&self, number: u16) -> Option<&(Column, FieldDigest)> {
        self.values.get(usize::from(number))
    }
}
