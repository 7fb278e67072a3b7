//! Formats the trace of a history, short enough to read.

use super::super::event::{InstanceRequest, LedgerKey, LedgerWrite};
use super::super::{Effect, Event, RecordContent};
use crate::model::{Answer, Claim, Entry, Intent};

pub(super) fn event(event: &Event) -> String {
    match event {
        Event::LedgerLoaded { partition, ledger, .. } => {
            let mut claims: Vec<_> = ledger
                .claims
                .iter()
                .map(|(k, c)| format!("{k}@{}:{} {}ms old", c.token.0, claim(&c.claim), c.age))
                .collect();
            // All entries of a ledger that was just loaded are packed.
            let mut resting = ledger.entries.clone();
            let known = (0..resting.len()).filter_map(|_| resting.next_inactive());
            let mut entries: Vec<_> = known.map(|(k, e)| format!("{k}: {}", entry(&e))).collect();
            claims.sort();
            entries.sort();
            format!(
                "Loaded {partition} token {} start {} mark {} claims {claims:?} entries {entries:?} stale {:?}",
                ledger.token.0, ledger.start_offset, ledger.mark_watermark, ledger.stale
            )
        }
        Event::Received { partition, record, .. } => {
            let text = match &record.content {
                RecordContent::Intents(intents) => intents.iter().map(intent).collect::<Vec<_>>().join("; "),
                other => format!("{other:?}"),
            };
            format!("Received {partition}/{}: {text}", record.offset)
        }
        Event::RequestCompleted { request, answer, issued_at, .. } => {
            format!("Answered {} (issued {issued_at}): {}", request.0, self::answer(answer))
        }
        other => format!("{other:?}"),
    }
}

fn intent(i: &Intent) -> String {
    let fields: Vec<_> = i.fields.iter().map(|(c, v)| format!("{}={v}", &c[..1])).collect();
    format!(
        "{} {:?} {} note {:?} id {:?} at {}",
        i.key,
        i.action,
        fields.join(" "),
        i.note,
        i.event_id,
        i.occurred_at - super::world::BASE
    )
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Applied { row, warnings } => {
            format!("applied {} state {} {:?} {warnings:?}", row.number, row.state, row.values)
        }
        Answer::Rows { rows, journal } => {
            let rows: Vec<_> = rows.iter().map(|r| format!("{} state {} {:?}", r.number, r.state, r.values)).collect();
            format!("rows {rows:?} journal {journal:?}")
        }
        Answer::Failed(f) => format!("{:?} {}", f.class, f.code),
        Answer::WithoutCorrelation { row, reason } => format!("without correlation: {} {reason}", row.number),
        Answer::NotSent { reason } => format!("not sent: {reason}"),
    }
}

fn claim(c: &Claim) -> String {
    let at = c.order.to_number();
    format!(
        "{} {:?} {}..{} at {at} state {:?} notes {:?}",
        c.attempt, c.kind, c.first_position, c.last_position, c.state, c.markers
    )
}

fn entry(e: &Entry) -> String {
    let (attempt, number, at) = (e.attempt, &e.number, e.position);
    format!("{attempt} {number} g{} at {at} state {} ids {:?}", e.generation, e.last_seen.state, e.event_ids)
}

pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::ProduceLedgerRecord { produce_id, partition, write } => {
            format!("produce {} in {partition}: {}", produce_id.0, self::write(write))
        }
        Effect::SendRequest { id, body, lease_until, .. } => {
            let text = match body {
                InstanceRequest::Create { key, fields, notes, attempt } => {
                    format!("create {key} {attempt} {fields:?} {notes:?}")
                }
                InstanceRequest::Update { key, sys_id, decided_on, fields, notes, attempt } => {
                    format!("update {key} {attempt} {} on {decided_on:?} {fields:?} {notes:?}", tail(sys_id))
                }
                InstanceRequest::Read { key, sys_id, markers, .. } => {
                    format!("read {key} {} {markers:?}", tail(sys_id))
                }
                InstanceRequest::ReadMany { tickets, .. } => {
                    format!("read {:?}", tickets.iter().map(|(key, _)| &**key).collect::<Vec<_>>())
                }
                InstanceRequest::Find { key, .. } => format!("find {key}"),
            };
            format!("request {} (lease {lease_until}): {text}", id.0)
        }
        Effect::ProduceDeadLetter { dead_letter, .. } => {
            format!(
                "dead letter {} {} superseding {:?}",
                dead_letter.position, dead_letter.code, dead_letter.superseded
            )
        }
        Effect::ProduceResult(r) => format!(
            "result {} {} {:?}",
            r.key,
            r.outcome,
            r.positions.iter().map(ToString::to_string).collect::<Vec<_>>()
        ),
        other => format!("{other:?}"),
    }
}

pub(super) fn write(write: &LedgerWrite) -> String {
    match write {
        LedgerWrite::Entry(k, e) => format!("entry {k}@{} {}", e.token.0, entry(e)),
        LedgerWrite::Claim(k, t, c) => format!("claim {k}@{} {}", t.0, claim(c)),
        LedgerWrite::Park(k, p) => format!("park {k} {}", p.position),
        LedgerWrite::Mark(t, at) => format!(
            "mark@{} {} previous owners {:?}",
            t.0,
            at.watermark,
            at.previous_owners.iter().map(|f| f.token.0).collect::<Vec<_>>()
        ),
        LedgerWrite::Tombstone(k, t) => format!("tombstone {}@{}", name(k), t.0),
    }
}

fn name(key: &LedgerKey) -> String {
    match key {
        LedgerKey::Entry(k) => format!("entry:{k}"),
        LedgerKey::Claim(k) => format!("claim:{k}"),
        LedgerKey::Park(k) => format!("park:{k}"),
        LedgerKey::Mark => "mark".into(),
    }
}

fn tail(sys_id: &str) -> &str {
    &sys_id[sys_id.len().saturating_sub(2)..]
}
