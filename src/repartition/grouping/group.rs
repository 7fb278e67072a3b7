//! A group: the alerts that share its ticket, and the effect of an event of one of them.
//!
//! An episode of a group starts with the first alert that opens while none is open, and ends when none is open any
//! more. The ticket shows the alerts of the current episode. Alerts of earlier episodes are remembered for a while, so
//! that a late or repeated event does not open the group again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::severity::{SEVERITIES, rank};
use crate::model::{Action, AlertEvent};

/// Characters of an alert's title that are kept.
const MAX_TITLE: usize = 160;

/// How long an alert is remembered after it was over, in milliseconds of the events' own times.
const RETENTION_MS: i64 = 24 * 3_600_000;

/// The status of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupStatus {
    /// No alert has been open yet.
    #[default]
    New,
    /// At least one open alert is not acknowledged.
    Open,
    /// All open alerts are acknowledged.
    Acknowledged,
    /// No alert is open any more.
    Resolved,
}

/// The persistent state of a group, without its alerts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupState {
    /// Number of the current or last episode; 0 before the first.
    pub episode: u32,
    pub status: GroupStatus,
    /// The time of the group's events, Unix milliseconds. It never goes back, whatever clocks the alerts come from.
    pub time: i64,
    /// Number of alerts of this episode that are over and were forgotten.
    pub forgotten: u64,
    /// The highest severity of the open alerts; after the end of an episode, the last one.
    pub severity: String,
    /// System of the episode's first alert.
    pub system: String,
    /// Instance of the episode's first alert.
    pub instance: Option<String>,
    /// Labels that all alerts of the episode have in common.
    pub labels: BTreeMap<String, String>,
}

/// The persistent state of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAlert {
    /// The episode in which it was last open; 0: it was never open.
    pub episode: u32,
    pub open: bool,
    pub acknowledged: bool,
    /// One line.
    pub title: String,
    /// One of [`SEVERITIES`].
    pub severity: String,
    /// When it opened, Unix milliseconds.
    pub since: i64,
    /// Time of its newest event, Unix milliseconds.
    pub time: i64,
}

/// A group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    pub state: GroupState,
    /// Its alerts, by key.
    pub alerts: BTreeMap<String, MemberAlert>,
    /// Keys of the alerts that differ from their rows.
    pub changed_alerts: BTreeSet<String>,
    /// Whether `state` differs from its row.
    pub state_changed: bool,
    /// Whether the group needs an update event.
    pub needs_update: bool,
}

impl Group {
    /// Applies an event of an alert. Returns the action of the group's event that must be emitted at once. Changes for
    /// which an event can wait set `needs_update`.
    pub fn apply(&mut self, event: &AlertEvent) -> Option<Action> {
        let action = event.action?;
        let note = (event.note.is_some() && self.state.status != GroupStatus::New).then_some(Action::Note);
        if !action.affects_state() || self.alerts.get(&event.key).is_some_and(|alert| alert.time > event.occurred_at) {
            return note;
        }
        if action.opens() && !self.is_open() {
            self.start_episode(event);
        }
        self.update_alert(action, event);
        let before = self.state.status;
        self.update_state(event.occurred_at);
        let transition = match (before, self.state.status) {
            (before, now) if before == now => None,
            (_, GroupStatus::New) => None,
            (GroupStatus::New | GroupStatus::Resolved, GroupStatus::Open | GroupStatus::Acknowledged) => {
                Some(Action::Open)
            }
            (_, GroupStatus::Open) => Some(Action::Unacknowledge),
            (_, GroupStatus::Acknowledged) => Some(Action::Acknowledge),
            (_, GroupStatus::Resolved) => Some(Action::Resolve),
        };
        transition.or_else(|| note.map(|_| Action::Update))
    }

    /// Whether any of its alerts is open.
    pub fn is_open(&self) -> bool {
        matches!(self.state.status, GroupStatus::Open | GroupStatus::Acknowledged)
    }

    /// Returns the alerts of the current or last episode.
    pub fn episode_alerts(&self) -> impl Iterator<Item = (&String, &MemberAlert)> {
        self.alerts.iter().filter(|(_, alert)| alert.episode == self.state.episode && alert.episode > 0)
    }

    fn start_episode(&mut self, event: &AlertEvent) {
        self.state.episode += 1;
        self.state.forgotten = 0;
        self.state.system.clone_from(&event.system);
        self.state.instance.clone_from(&event.instance);
        self.state.labels.clone_from(&event.labels);
        self.state_changed = true;
    }

    /// Updates the event's alert.
    fn update_alert(&mut self, action: Action, event: &AlertEvent) {
        let known = self.alerts.get(&event.key).cloned();
        if known.is_none() && !action.opens() && !action.closes() {
            return;
        }
        let episode = self.state.episode;
        let mut alert = known.clone().unwrap_or_else(|| MemberAlert {
            episode: 0,
            open: false,
            acknowledged: false,
            title: event.key.clone(),
            severity: "unknown".into(),
            since: event.occurred_at,
            time: event.occurred_at,
        });
        if let Some(title) = &event.title {
            alert.title = title.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TITLE).collect();
        }
        if let Some(severity) = event.severity.as_deref().filter(|severity| *severity != "unknown") {
            severity.clone_into(&mut alert.severity);
        }
        match action {
            Action::Open | Action::Reopen => {
                if !alert.open {
                    (alert.open, alert.acknowledged, alert.since) = (true, false, event.occurred_at);
                }
                alert.episode = episode;
                let labels = self.state.labels.len();
                self.state.labels.retain(|name, value| event.labels.get(name) == Some(value));
                self.state_changed |= labels != self.state.labels.len();
            }
            Action::Resolve | Action::Merge => alert.open = false,
            Action::Acknowledge => alert.acknowledged = alert.open,
            Action::Unacknowledge => alert.acknowledged = false,
            _ => {}
        }
        alert.time = event.occurred_at;
        if known.as_ref() != Some(&alert) {
            let differs_only_in_time = |known: MemberAlert| MemberAlert { time: alert.time, ..known } == alert;
            self.needs_update |= alert.episode == episode && episode > 0 && !known.is_some_and(differs_only_in_time);
            self.changed_alerts.insert(event.key.clone());
            self.alerts.insert(event.key.clone(), alert);
        }
    }

    /// Computes the group's state from its alerts.
    fn update_state(&mut self, time: i64) {
        let open = || self.episode_alerts().map(|(_, alert)| alert).filter(|alert| alert.open);
        let status = if open().next().is_none() {
            if self.state.status == GroupStatus::New { GroupStatus::New } else { GroupStatus::Resolved }
        } else if open().all(|alert| alert.acknowledged) {
            GroupStatus::Acknowledged
        } else {
            GroupStatus::Open
        };
        let worst = open().map(|alert| rank(&alert.severity)).min().and_then(|rank| SEVERITIES.get(rank));
        let severity = worst.map_or_else(|| self.state.severity.clone(), |word| (*word).to_owned());
        let state = &mut self.state;
        let changed = status != state.status || severity != state.severity;
        self.needs_update |= changed;
        self.state_changed |= changed || time > state.time;
        (state.status, state.severity, state.time) = (status, severity, state.time.max(time));
    }

    /// Forgets alerts that were over long before `now`, Unix milliseconds. True if the whole group can be forgotten.
    pub fn forget_expired(&mut self, now: i64) -> bool {
        let limit = now.saturating_sub(RETENTION_MS);
        if !self.is_open() && self.state.time < limit {
            return true;
        }
        let expired: Vec<String> =
            self.alerts.iter().filter(|(_, a)| !a.open && a.time < limit).map(|(key, _)| key.clone()).collect();
        for key in expired {
            let was_shown = self.alerts.remove(&key).is_some_and(|alert| alert.episode == self.state.episode);
            if was_shown && self.state.episode > 0 {
                self.state.forgotten += 1;
                self.state_changed = true;
            }
            self.changed_alerts.insert(key);
        }
        false
    }
}
