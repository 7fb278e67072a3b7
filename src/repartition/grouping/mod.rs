//! Grouping: many alerts in one ticket. The events of the alerts of a group become events of the group, which the sink
//! treats as an alert like any other. Pure: events in, events and rows of the state topic out; `repartition` does the
//! I/O.
//!
//! Guarantees: a group is open exactly as long as one of its alerts is open. Each change of that, and each note, is
//! emitted at once and in order; all other changes of a batch become one event. The rows contain the whole state, so
//! that grouping can continue from them. An event that is older than the newest event of its alert changes nothing. Not
//! guaranteed: that an event is recognized as a repetition more than a day after its alert was over.

mod group;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Action, AlertEvent};
use group::{Group, GroupState, MemberAlert};

/// How often expired alerts and groups are searched, in milliseconds of the events' own times.
const EXPIRY_INTERVAL_MS: i64 = 600_000;

/// The output of the grouping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An event of a group: a canonical body.
    Event(Vec<u8>),
    /// Key and value of a row of the state topic; without a value it is removed.
    Row(Vec<u8>, Option<Vec<u8>>),
}

/// A row of the state topic cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {key} was not written by this version of nowbridge: {reason}")]
pub struct RowError {
    key: String,
    reason: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RowKey {
    /// The value is the template by which alerts are grouped.
    Rule,
    /// Key of a group. The value is its state.
    Group(String),
    /// Keys of a group and of an alert. The value is the alert.
    Alert(String, String),
}

/// The groups of a partition.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    by_key: BTreeMap<String, Group>,
    /// Keys of the groups that may have events or rows to emit.
    touched: BTreeSet<String>,
    /// The rule of the rows; `None` if there are none yet.
    rule: Option<String>,
    /// Newest time of an event since the rows were loaded, Unix milliseconds. Times in the future do not count.
    newest: i64,
    /// The value of `newest` at the last search for expired alerts.
    expired_at: i64,
}

impl Groups {
    /// Loads a row of the state topic. Rows must be loaded in their order.
    ///
    /// # Errors
    /// The row is malformed.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RowError> {
        let row_error = |error: serde_json::Error| RowError {
            key: String::from_utf8_lossy(key).chars().take(200).collect(),
            reason: error.to_string(),
        };
        match (serde_json::from_slice(key).map_err(row_error)?, value) {
            (RowKey::Rule, Some(value)) => self.rule = Some(serde_json::from_slice(value).map_err(row_error)?),
            (RowKey::Rule, None) => self.rule = None,
            (RowKey::Group(name), Some(value)) => {
                let state: GroupState = serde_json::from_slice(value).map_err(row_error)?;
                self.by_key.entry(name).or_default().state = state;
            }
            // The rows of its alerts are removed before it.
            (RowKey::Group(name), None) => drop(self.by_key.remove(&name)),
            (RowKey::Alert(name, key), Some(value)) => {
                let alert: MemberAlert = serde_json::from_slice(value).map_err(row_error)?;
                self.by_key.entry(name).or_default().alerts.insert(key, alert);
            }
            (RowKey::Alert(name, key), None) => {
                if let Some(group) = self.by_key.get_mut(&name) {
                    group.alerts.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// Returns the rule of the loaded rows; `None` if there were none.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Applies an event of an alert to its group. `written_at` is the timestamp of its record, Unix milliseconds, if
    /// known: a single publisher whose clock is ahead must not make all other groups expire. `max_listed` is how many
    /// alerts a ticket lists.
    pub fn apply(
        &mut self,
        key: &str,
        event: &AlertEvent,
        written_at: Option<i64>,
        max_listed: usize,
        out: &mut Vec<Output>,
    ) {
        let time = written_at.map_or(event.occurred_at, |written_at| written_at.min(event.occurred_at));
        self.newest = self.newest.max(time);
        let group = self.by_key.entry(key.to_owned()).or_default();
        if let Some(action) = group.apply(event) {
            out.push(Output::Event(text::body(key, group, action, Some(event), max_listed)));
            // The values of a note are not written to the ticket.
            group.needs_update &= !action.affects_state();
        }
        self.touched.insert(key.to_owned());
    }

    /// Emits the pending updates of groups, and the rows that have changed since the last call. `rule` is the current
    /// rule.
    pub fn finish(&mut self, rule: &str, max_listed: usize, out: &mut Vec<Output>) {
        if self.touched.is_empty() {
            return;
        }
        if self.rule.as_deref() != Some(rule) {
            out.push(row(&RowKey::Rule, Some(&rule)));
            self.rule = Some(rule.to_owned());
        }
        let mut expired = Vec::new();
        if self.newest.saturating_sub(self.expired_at) >= EXPIRY_INTERVAL_MS {
            self.expired_at = self.newest;
            let newest = self.newest;
            let is_expired = |(name, group): (&String, &mut Group)| group.forget_expired(newest).then(|| name.clone());
            expired = self.by_key.iter_mut().filter_map(is_expired).collect();
            self.touched = self.by_key.keys().cloned().collect();
        }
        for name in std::mem::take(&mut self.touched) {
            let Some(group) = self.by_key.get_mut(&name) else { continue };
            if std::mem::take(&mut group.needs_update) && group.is_open() {
                out.push(Output::Event(text::body(&name, group, Action::Update, None, max_listed)));
            }
            for key in std::mem::take(&mut group.changed_alerts) {
                let alert = group.alerts.get(&key);
                out.push(row(&RowKey::Alert(name.clone(), key), alert));
            }
            if std::mem::take(&mut group.state_changed) {
                out.push(row(&RowKey::Group(name), Some(&group.state)));
            } else if group.alerts.is_empty() && group.state == GroupState::default() {
                // An update or a note of an unknown alert leaves no state.
                self.by_key.remove(&name);
            }
        }
        for name in expired {
            let group = self.by_key.remove(&name).unwrap_or_default();
            let alerts = group.alerts.into_keys();
            out.extend(alerts.map(|key| row::<MemberAlert>(&RowKey::Alert(name.clone(), key), None)));
            out.push(row::<GroupState>(&RowKey::Group(name), None));
        }
    }
}

fn row<T: Serialize>(key: &RowKey, value: Option<&T>) -> Output {
    // Plain structures of texts and numbers can always be serialized.
    let bytes = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
    Output::Row(bytes(serde_json::to_vec(key)), value.map(|value| bytes(serde_json::to_vec(value))))
}
