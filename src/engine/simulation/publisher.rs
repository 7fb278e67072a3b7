//! The publishers: the events of their alerts, with typical faults (repeated events, equal notes, values that flip
//! back, late events, two events in a record).

use std::sync::Arc;

use fastrand::Rng;

use super::super::event::{MappedRecord, RecordContent};
use super::injection::key_name;
use crate::model::{Action, Column, EventOrdering, Intent, Position, Record, RecordOrigin};

/// A record and the time of its publishing.
pub(super) struct Published {
    pub(super) at: u64,
    pub(super) partition: usize,
    pub(super) record: MappedRecord,
}

/// Columns that the simulated mapping writes.
pub(super) const COLUMNS: [&str; 3] = ["impact", "short_description", "urgency"];

/// The column that only a resolution writes.
pub(super) const CLOSING: &str = "close_code";

/// A value that the instance rejects in histories with rejections.
pub(super) const REJECTED_VALUE: &str = "bad";

pub(super) fn column(name: &'static str) -> Column {
    thread_local! {
        static NAMES: [(&'static str, Column); 4] =
            [COLUMNS[0], COLUMNS[1], COLUMNS[2], CLOSING].map(|n| (n, Column::from(n)));
    }
    NAMES.with(|names| names.iter().find(|(n, _)| *n == name).map_or_else(|| Column::from(name), |(_, c)| c.clone()))
}

/// All columns that the simulated mapping may write, sorted.
pub(super) fn mapped_columns() -> Vec<Column> {
    let mut columns: Vec<Column> = COLUMNS.into_iter().chain([CLOSING]).map(column).collect();
    columns.sort_unstable();
    columns
}

/// Parameters of the records of a history.
pub(super) struct PublishParams {
    pub(super) records: usize,
    pub(super) partitions: usize,
    pub(super) rejects: bool,
    /// Length of a pause after half of the records, in milliseconds; 0: none.
    pub(super) long_pause: u64,
    pub(super) reopen_window: u64,
    pub(super) hold_down: u64,
    /// Event times are in whole seconds, so many are equal.
    pub(super) whole_seconds: bool,
    /// What decides which event of a key is newer.
    pub(super) ordering: EventOrdering,
    /// The senders of this number of keys name the firings of their alerts.
    pub(super) episodes: usize,
    /// Unix milliseconds at virtual time 0.
    pub(super) base: i64,
}

/// The state of an alert in its source.
#[derive(Clone, Default)]
struct Alert {
    firing: bool,
    opened_before: bool,
    recent: Vec<Intent>,
    last_resolve: i64,
    /// The present firing, if the sender of this alert names firings.
    episode: Option<u64>,
}

/// The partition of a key.
pub(super) fn partition_of(key: usize, partitions: usize) -> usize {
    usize::from(partitions == 2 && key == 2)
}

/// Draws the records of a history in the order of their times.
pub(super) fn publish(rng: &mut Rng, params: &PublishParams) -> Vec<Published> {
    let mut alerts: [Alert; 3] = Default::default();
    let mut offsets = [0_i64; 2];
    let mut out = Vec::with_capacity(params.records);
    let mut at = 500;
    let mut next_id = 1_u64;
    let busy = rng.u64(20..1_500);
    for n in 0..params.records {
        at += match rng.u32(0..10) {
            0..=4 => rng.u64(0..30),
            5..=8 => rng.u64(0..=busy * 2),
            _ => rng.u64(0..12_000),
        };
        if params.long_pause > 0 && n == params.records / 2 {
            at += params.long_pause;
        }
        let first = rng.usize(0..3);
        let partition = partition_of(first, params.partitions);
        let offset = offsets[partition];
        offsets[partition] += 1 + i64::from(rng.u32(0..40) == 0);
        let mut intents = Vec::new();
        let content = match rng.u32(0..100) {
            0 => RecordContent::Skipped,
            1 if params.rejects => RecordContent::Invalid { code: "undecodable", reason: "not JSON".into() },
            _ => {
                let events = 1 + u32::from(rng.u32(0..8) == 0);
                for index in 0..events {
                    let key = if index == 0 { first } else { sibling(rng, first, params.partitions) };
                    let position = Position::new(i32::from(partition == 1), offset, index);
                    let unix = params.base + i64::try_from(at).unwrap_or(0);
                    intents.push(draw_intent(rng, &mut alerts[key], key, position, unix, &mut next_id, params));
                }
                RecordContent::Intents(intents)
            }
        };
        let raw = raw(partition, offset);
        out.push(Published {
            at,
            partition,
            record: MappedRecord { offset, raw, origin: RecordOrigin::Source, content },
        });
    }
    out
}

/// A record's bytes, which are not read.
pub(super) fn raw(partition: usize, offset: i64) -> Arc<Record> {
    Arc::new(Record {
        topic: topic(),
        partition: i32::from(partition == 1),
        offset,
        key: None,
        value: Some(vec![b'x'; 20]),
        headers: Vec::new(),
        timestamp: None,
    })
}

fn topic() -> Arc<str> {
    thread_local! { static TOPIC: Arc<str> = "alerts".into(); }
    TOPIC.with(Clone::clone)
}

fn sibling(rng: &mut Rng, first: usize, partitions: usize) -> usize {
    let candidate = rng.usize(0..3);
    if partition_of(candidate, partitions) == partition_of(first, partitions) { candidate } else { first }
}

fn action(rng: &mut Rng, alert: &Alert) -> Action {
    let pick = rng.u32(0..100);
    if alert.firing {
        match pick {
            0..30 => Action::Update,
            30..52 => Action::Note,
            52..62 => Action::Acknowledge,
            62..66 => Action::Unacknowledge,
            66..74 => Action::Open,
            74..77 => Action::Assign,
            77..79 => Action::Suppress,
            79..80 => Action::Unsuppress,
            80..81 => Action::Merge,
            81..83 => Action::FollowUp,
            _ => Action::Resolve,
        }
    } else if alert.opened_before {
        match pick {
            0..45 => Action::Open,
            45..70 => Action::Reopen,
            70..82 => Action::Note,
            82..92 => Action::Update,
            _ => Action::Resolve,
        }
    } else {
        match pick {
            0..75 => Action::Open,
            75..85 => Action::Reopen,
            85..92 => Action::Note,
            92..96 => Action::Update,
            _ => Action::Resolve,
        }
    }
}

fn draw_intent(
    rng: &mut Rng,
    alert: &mut Alert,
    key: usize,
    position: Position,
    unix: i64,
    next_id: &mut u64,
    params: &PublishParams,
) -> Intent {
    if !alert.recent.is_empty() && rng.u32(0..25) == 0 {
        let again = rng.usize(0..alert.recent.len());
        let mut intent = alert.recent[again].clone();
        intent.position = position;
        intent.order = params.ordering.order(position, intent.occurred_at);
        return intent;
    }
    let action = action(rng, alert);
    let mut fields = Vec::new();
    let all = action.opens();
    let none = matches!(action, Action::Note | Action::Split | Action::FollowUp);
    for (n, name) in COLUMNS.iter().enumerate() {
        if !none && (all || rng.u32(0..3) == 0) {
            let rejected = params.rejects && n == 1 && rng.u32(0..14) == 0;
            let value =
                if rejected { REJECTED_VALUE.to_owned() } else { VALUES[rng.usize(0..VALUES.len())].to_owned() };
            fields.push((column(name), value));
        }
    }
    let has_note = matches!(action, Action::Note | Action::FollowUp) || rng.u32(0..5) == 0;
    let note = has_note.then(|| {
        if rng.bool() { "same words".to_owned() } else { format!("note {}/{}", position.offset, position.index) }
    });
    let has_event_id = rng.u32(0..10) < 7;
    *next_id += 1;
    let late = if rng.u32(0..20) == 0 { rng.i64(0..20_000) } else { rng.i64(0..300) };
    let mut occurred_at = unix - late;
    if params.whole_seconds {
        occurred_at -= occurred_at.rem_euclid(1_000);
    }
    if alert.opened_before && !alert.firing && action.opens() {
        // Not at the very edge of the window, where the result is undefined.
        let since = occurred_at - alert.last_resolve;
        let window = i64::try_from(params.reopen_window).unwrap_or(i64::MAX);
        if (since - window).abs() < 50 {
            occurred_at += 200;
        }
    }
    if action.opens() && !alert.firing {
        alert.episode = (params.episodes > key).then_some(*next_id);
    }
    let order = params.ordering.order(position, occurred_at);
    let intent = Intent {
        order,
        position,
        key: key_name(key),
        episode: alert.episode.filter(|_| action.opens()),
        action,
        fields,
        closing: if action.closes() { vec![(column(CLOSING), "Solved".to_owned())] } else { Vec::new() },
        note,
        event_id: has_event_id.then_some(*next_id),
        occurred_at,
        priority: rng.u8(0..4),
        hold_down: params.hold_down,
    };
    if action.opens() {
        alert.firing = true;
        alert.opened_before = true;
    } else if action.closes() {
        alert.firing = false;
        alert.last_resolve = occurred_at;
    }
    if has_event_id {
        alert.recent.push(intent.clone());
        if alert.recent.len() > 6 {
            alert.recent.remove(0);
        }
    }
    intent
}

/// Few values, so that they flip back and forth.
pub(super) const VALUES: [&str; 3] = ["1", "2", "3"];
