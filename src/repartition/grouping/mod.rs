//! Digests: many alerts in one ticket. The alerts of a group become events of the group, which is an alert like any other
//! to the sink behind. Pure: events in, events and rows of a table out; who reads, writes and commits is `rekey`.
//!
//! Guaranteed: a group is open exactly as long as one of its alerts is; each change of that, and each note, is told at
//! once and in order, and everything else once for all the events that came together. The rows are the whole memory: what
//! was told can be gone on from them. An event of an alert that is older than its newest one changes nothing. Not
//! guaranteed: that an event which is repeated more than a day after its alert was over is recognised.

mod group;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Action, AlertEvent};
use group::{Facts, Group, Member};

/// Between two looks for what can be forgotten, in milliseconds of the events' own times.
const SWEEP: i64 = 600_000;

/// What comes of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An event of a group, as a canonical body.
    Event(Vec<u8>),
    /// A row of the table; without a value it is removed.
    Row(Vec<u8>, Option<Vec<u8>>),
}

/// A row can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {key} is none that this version writes: {why}")]
pub struct RowError {
    key: String,
    why: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RowKey {
    Rule,
    Group(String),
    Alert(String, String),
}

/// The groups of a partition.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    known: BTreeMap<String, Group>,
    /// Groups with something to tell or to write.
    touched: BTreeSet<String>,
    /// The rule by which the rows were grouped; `None` where there are none yet.
    rule: Option<String>,
    /// Newest time of any event since the rows were loaded, Unix milliseconds; what is in the future does not count.
    newest: i64,
    /// The same, when it was last looked for what can be forgotten.
    swept: i64,
}

impl Groups {
    /// Takes a row of the table, in their order.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RowError> {
        let wrong = |why: serde_json::Error| RowError {
            key: String::from_utf8_lossy(key).chars().take(200).collect(),
            why: why.to_string(),
        };
        match (serde_json::from_slice(key).map_err(wrong)?, value) {
            (RowKey::Rule, Some(value)) => self.rule = Some(serde_json::from_slice(value).map_err(wrong)?),
            (RowKey::Rule, None) => self.rule = None,
            (RowKey::Group(name), Some(value)) => {
                self.known.entry(name).or_default().facts = serde_json::from_slice::<Facts>(value).map_err(wrong)?;
            }
            // The rows of its alerts are removed before it.
            (RowKey::Group(name), None) => drop(self.known.remove(&name)),
            (RowKey::Alert(name, alert), Some(value)) => {
                let member: Member = serde_json::from_slice(value).map_err(wrong)?;
                self.known.entry(name).or_default().members.insert(alert, member);
            }
            (RowKey::Alert(name, alert), None) => {
                if let Some(group) = self.known.get_mut(&name) {
                    group.members.remove(&alert);
                }
            }
        }
        Ok(())
    }

    /// By which rule what was loaded was grouped; `None` where nothing was.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// How many groups are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Takes an event of an alert that belongs to a group. `written` is when its record was written, Unix milliseconds,
    /// where that is known: one sender whose clock is ahead must not make everything else look long past. `list` is how
    /// many alerts a ticket names.
    pub fn apply(&mut self, key: &str, event: &AlertEvent, written: Option<i64>, list: usize, out: &mut Vec<Output>) {
        self.newest = self.newest.max(written.map_or(event.occurred_at, |written| written.min(event.occurred_at)));
        let group = self.known.entry(key.to_owned()).or_default();
        if let Some(action) = group.apply(event) {
            out.push(Output::Event(text::body(key, group, action, Some(event), list)));
            // Of a note nobody takes the values.
            group.untold &= !action.affects_state();
        }
        self.touched.insert(key.to_owned());
    }

    /// Tells what is yet to be told, and writes what has changed since the last time, under the rule by which it is
    /// grouped now.
    pub fn finish(&mut self, rule: &str, list: usize, out: &mut Vec<Output>) {
        if self.touched.is_empty() {
            return;
        }
        if self.rule.as_deref() != Some(rule) {
            out.push(row(&RowKey::Rule, Some(&rule)));
            self.rule = Some(rule.to_owned());
        }
        let mut gone = Vec::new();
        if self.newest.saturating_sub(self.swept) >= SWEEP {
            self.swept = self.newest;
            let newest = self.newest;
            let old = |(name, group): (&String, &mut Group)| group.forget(newest).then(|| name.clone());
            gone = self.known.iter_mut().filter_map(old).collect();
            self.touched = self.known.keys().cloned().collect();
        }
        for name in std::mem::take(&mut self.touched) {
            let Some(group) = self.known.get_mut(&name) else { continue };
            if std::mem::take(&mut group.untold) && group.is_open() {
                out.push(Output::Event(text::body(&name, group, Action::Update, None, list)));
            }
            for alert in std::mem::take(&mut group.changed) {
                let member = group.members.get(&alert);
                out.push(row(&RowKey::Alert(name.clone(), alert), member));
            }
            if std::mem::take(&mut group.dirty) {
                out.push(row(&RowKey::Group(name), Some(&group.facts)));
            } else if group.members.is_empty() && group.facts == Facts::default() {
                // An update or a note of an alert that nobody knows leaves nothing behind.
                self.known.remove(&name);
            }
        }
        for name in gone {
            let group = self.known.remove(&name).unwrap_or_default();
            out.extend(group.members.into_keys().map(|alert| row::<Member>(&RowKey::Alert(name.clone(), alert), None)));
            out.push(row::<Facts>(&RowKey::Group(name), None));
        }
    }
}

fn row<T: Serialize>(key: &RowKey, value: Option<&T>) -> Output {
    // Plain structures of texts and numbers: they can always be written.
    let bytes = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
    Output::Row(bytes(serde_json::to_vec(key)), value.map(|value| bytes(serde_json::to_vec(value))))
}
