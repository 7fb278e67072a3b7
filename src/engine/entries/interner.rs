//! Values that many entries have in common, stored once: column names, states, users, prefixes of ticket numbers, and
//! the values of columns that many tickets have (an impact, a group).
//!
//! A column value is interned when it occurs a second time within a while, so that values that occur once do not fill
//! the table. Numbers are never reassigned; the tables are bounded and nothing is removed from them.

use std::sync::Arc;

use crate::model::{Column, FastMap, FieldHash};

/// Maximum number of words, and of column values.
const MAX_INTERNED: usize = 2_048;

/// Longer texts are not interned, in bytes.
const MAX_WORD_LENGTH: usize = 64;

/// Number of slots for values that occurred once.
const ONCE_SLOTS: usize = 512;

/// The tables of interned words and column values.
#[derive(Debug, Clone, Default)]
pub(super) struct Interner {
    words: Vec<Arc<str>>,
    numbers: FastMap<Arc<str>, u16>,
    values: Vec<(Column, FieldHash)>,
    value_numbers: FastMap<(Column, FieldHash), u16>,
    /// By slot, the hash of the last value that occurred once.
    seen_once: Vec<u64>,
}

impl Interner {
    /// The number of a word, which is interned if there is room; `None` otherwise.
    pub(super) fn number(&mut self, word: &str) -> Option<u16> {
        if let Some(number) = self.numbers.get(word) {
            return Some(*number);
        }
        if word.len() > MAX_WORD_LENGTH || self.words.len() >= MAX_INTERNED {
            return None;
        }
        let (number, word) = (u16::try_from(self.words.len()).ok()?, Arc::<str>::from(word));
        self.words.push(Arc::clone(&word));
        self.numbers.insert(word, number);
        Some(number)
    }

    pub(super) fn word(&self, number: u16) -> Option<&Arc<str>> {
        self.words.get(usize::from(number))
    }

    /// The number of a column value, which is interned when it occurs a second time; `None` before.
    pub(super) fn value_number(&mut self, value: &(Column, FieldHash)) -> Option<u16> {
        if let Some(number) = self.value_numbers.get(value) {
            return Some(*number);
        }
        self.seen_once.resize(ONCE_SLOTS, 0);
        let slot = usize::try_from(value.1.sent % ONCE_SLOTS as u64).ok()?;
        let seen_once = self.seen_once.get_mut(slot)?;
        if *seen_once != value.1.sent {
            *seen_once = value.1.sent;
            return None;
        }
        if self.values.len() >= MAX_INTERNED {
            return None;
        }
        let number = u16::try_from(self.values.len()).ok()?;
        self.values.push(value.clone());
        self.value_numbers.insert(value.clone(), number);
        Some(number)
    }

    pub(super) fn value(&self, number: u16) -> Option<&(Column, FieldHash)> {
        self.values.get(usize::from(number))
    }
}
