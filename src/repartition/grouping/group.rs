//! One group: which alerts share its ticket, and what an event of one of them changes.
//!
//! An episode of a group begins with the first alert that opens while none is open, and ends when none is open any more;
//! the ticket shows the alerts of the present episode. Alerts of earlier ones are remembered for a while, so that an event
//! that comes late or twice does not open the group again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::severity::{SEVERITIES, rank};
use crate::model::{Action, AlertEvent};

/// Characters of an alert's title that are kept.
const TITLE: usize = 160;

/// For how long an alert that is over is remembered, in milliseconds of the events' own times.
const REMEMBERED: i64 = 24 * 3_600_000;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// Nothing of it was ever open.
    #[default]
    New,
    /// At least one alert is open that nobody has acknowledged.
    Open,
    /// All open alerts are acknowledged.
    Acknowledged,
    /// None is open any more.
    Over,
}

/// What is remembered of a group beside its alerts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Number of the present episode, or the last one; 0: none was.
    pub episode: u32,
    /// Where it stands.
    pub status: AlertStatus,
    /// The newest time that was told, Unix milliseconds. It never goes back, whatever clocks its alerts come from.
    pub told: i64,
    /// Alerts of this episode that were over for so long that they were forgotten.
    pub past: u64,
    /// The worst of the open alerts; the last such once none is open.
    pub severity: String,
    /// System of the episode's first alert.
    pub system: String,
    /// Its instance.
    pub instance: Option<String>,
    /// Labels that all alerts of the episode have had in common.
    pub labels: BTreeMap<String, String>,
}

/// What is remembered of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// In which episode it was last open; 0: it was never seen open.
    pub episode: u32,
    /// Whether it is open.
    pub open: bool,
    /// Whether somebody works on it.
    pub acknowledged: bool,
    /// One line for people.
    pub title: String,
    /// One of the six words.
    pub severity: String,
    /// When it opened, Unix milliseconds.
    pub since: i64,
    /// Time of its newest event, Unix milliseconds.
    pub at: i64,
}

/// A group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Itself.
    pub facts: Facts,
    /// Its alerts by key.
    pub members: BTreeMap<String, Member>,
    /// Alerts that differ from what is written.
    pub changed: BTreeSet<String>,
    /// Whether the facts differ from what is written.
    pub dirty: bool,
    /// Whether something is yet to be told.
    pub untold: bool,
}

impl Group {
    /// Takes an event of one of its alerts. Answers what must be told at once; what can wait for more is `untold`.
    pub fn apply(&mut self, event: &AlertEvent) -> Option<Action> {
        let action = event.action?;
        let note = (event.note.is_some() && self.facts.status != AlertStatus::New).then_some(Action::Note);
        if !action.affects_state() || self.members.get(&event.key).is_some_and(|member| member.at > event.occurred_at) {
            return note;
        }
        if action.opens() && !self.is_open() {
            self.begin(event);
        }
        self.enter(action, event);
        let before = self.facts.status;
        self.stand(event.occurred_at);
        let step = match (before, self.facts.status) {
            (before, now) if before == now => None,
            (_, AlertStatus::New) => None,
            (AlertStatus::New | AlertStatus::Over, AlertStatus::Open | AlertStatus::Acknowledged) => Some(Action::Open),
            (_, AlertStatus::Open) => Some(Action::Unacknowledge),
            (_, AlertStatus::Acknowledged) => Some(Action::Acknowledge),
            (_, AlertStatus::Over) => Some(Action::Resolve),
        };
        step.or_else(|| note.map(|_| Action::Update))
    }

    /// Whether any of its alerts is open.
    pub fn is_open(&self) -> bool {
        matches!(self.facts.status, AlertStatus::Open | AlertStatus::Acknowledged)
    }

    /// The alerts of the present episode, or the last one.
    pub fn shown(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter().filter(|(_, member)| member.episode == self.facts.episode && member.episode > 0)
    }

    fn begin(&mut self, event: &AlertEvent) {
        self.facts.episode += 1;
        self.facts.past = 0;
        self.facts.system.clone_from(&event.system);
        self.facts.instance.clone_from(&event.instance);
        self.facts.labels.clone_from(&event.labels);
        self.dirty = true;
    }

    /// What the event makes of its alert.
    fn enter(&mut self, action: Action, event: &AlertEvent) {
        let known = self.members.get(&event.key).cloned();
        if known.is_none() && !action.opens() && !action.closes() {
            return;
        }
        let episode = self.facts.episode;
        let mut member = known.clone().unwrap_or_else(|| Member {
            episode: 0,
            open: false,
            acknowledged: false,
            title: event.key.clone(),
            severity: "unknown".into(),
            since: event.occurred_at,
            at: event.occurred_at,
        });
        if let Some(title) = &event.title {
            member.title = title.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TITLE).collect();
        }
        if let Some(severity) = event.severity.as_deref().filter(|severity| *severity != "unknown") {
            severity.clone_into(&mut member.severity);
        }
        match action {
            Action::Open | Action::Reopen => {
                if !member.open {
                    (member.open, member.acknowledged, member.since) = (true, false, event.occurred_at);
                }
                member.episode = episode;
                let labels = self.facts.labels.len();
                self.facts.labels.retain(|name, value| event.labels.get(name) == Some(value));
                self.dirty |= labels != self.facts.labels.len();
            }
            Action::Resolve | Action::Merge => member.open = false,
            Action::Acknowledge => member.acknowledged = member.open,
            Action::Unacknowledge => member.acknowledged = false,
            _ => {}
        }
        member.at = event.occurred_at;
        if known.as_ref() != Some(&member) {
            let same = |known: Member| Member { at: member.at, ..known } == member;
            self.untold |= member.episode == episode && episode > 0 && !known.is_some_and(same);
            self.changed.insert(event.key.clone());
            self.members.insert(event.key.clone(), member);
        }
    }

    /// Where it stands now.
    fn stand(&mut self, at: i64) {
        let open = || self.shown().map(|(_, member)| member).filter(|member| member.open);
        let status = if open().next().is_none() {
            if self.facts.status == AlertStatus::New { AlertStatus::New } else { AlertStatus::Over }
        } else if open().all(|member| member.acknowledged) {
            AlertStatus::Acknowledged
        } else {
            AlertStatus::Open
        };
        let worst = open().map(|member| rank(&member.severity)).min().and_then(|rank| SEVERITIES.get(rank));
        let severity = worst.map_or_else(|| self.facts.severity.clone(), |word| (*word).to_owned());
        let facts = &mut self.facts;
        let news = status != facts.status || severity != facts.severity;
        self.untold |= news;
        self.dirty |= news || at > facts.told;
        (facts.status, facts.severity, facts.told) = (status, severity, facts.told.max(at));
    }

    /// Forgets alerts that were over long before `now`, Unix milliseconds. True: nothing is left of the group.
    pub fn forget(&mut self, now: i64) -> bool {
        let long_ago = now.saturating_sub(REMEMBERED);
        if !self.is_open() && self.facts.told < long_ago {
            return true;
        }
        let gone: Vec<String> =
            self.members.iter().filter(|(_, m)| !m.open && m.at < long_ago).map(|(k, _)| k.clone()).collect();
        for key in gone {
            let shown = self.members.remove(&key).is_some_and(|member| member.episode == self.facts.episode);
            if shown && self.facts.episode > 0 {
                self.facts.past += 1;
                self.dirty = true;
            }
            self.changed.insert(key);
        }
        false
    }
}
