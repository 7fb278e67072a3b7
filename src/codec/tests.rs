//! Encodes and decodes a realistic value of every schema.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::avro::{self, Schema};
use super::*;
use crate::model::change::{ChangeOrigin, FieldChange, JournalNote, Operation};
use crate::model::{Change, Position, Record};

fn round_trip(schema: Schema, value: &Value) -> Value {
    let bytes =
        avro::encode(schema, value.clone()).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
    assert!(avro::decode(schema, &[&bytes[..], b"x"].concat()).is_err(), "trailing bytes must be an error");
    assert!(avro::decode(schema, &bytes[..bytes.len() - 1]).is_err(), "truncated bytes must be an error");
    avro::decode(schema, &bytes).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)))
}

fn change() -> Change {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Change {
        schema: "servicenow-change/1".into(),
        change_id: "prod:incident:9d385017c611228701d22104cc95c371:7".into(),
        instance: "prod".into(),
        table: "incident".into(),
        sys_id: "9d385017c611228701d22104cc95c371".into(),
        number: Some("INC0010023".into()),
        operation: Operation::Update,
        kinds: vec!["state_changed".into(), "resolved".into(), "work_noted".into()],
        occurred_at: "2026-11-23T10:15:30Z".into(),
        updated_by: "beth.anglin".into(),
        sys_mod_count: 7,
        versions_skipped: 1,
        origin: ChangeOrigin::User,
        before: map(&[("state", "2"), ("close_code", "")]),
        after: map(&[("state", "6"), ("close_code", "Solved (Permanently)")]),
        changed_fields: BTreeMap::from([
            ("state".into(), FieldChange { from: Some("2".into()), to: "6".into() }),
            ("close_code".into(), FieldChange { from: None, to: "Solved (Permanently)".into() }),
        ]),
        correlation: Some("alertmanager:alert:0123456789abcdef".into()),
        note: Some(JournalNote {
            sys_id: "aa385017c611228701d22104cc95c371".into(),
            kind: "work_note".into(),
            body: "Replaced the disk.\nAll good – ключ 🔑".into(),
            author: "beth.anglin".into(),
            created_at: "2026-11-23T10:15:30Z".into(),
        }),
    }
}

#[test]
fn a_change_survives_avro() {
    let full = change();
    let json = serde_json::to_value(&full).expect("serializes");
    let decoded: Change = serde_json::from_value(round_trip(Schema::Change, &json)).expect("deserializes");
    assert_eq!(decoded, full);
    let minimal =
        Change { number: None, correlation: None, note: None, kinds: vec![], before: BTreeMap::new(), ..full };
    let json = serde_json::to_value(&minimal).expect("serializes");
    let decoded: Change = serde_json::from_value(round_trip(Schema::Change, &json)).expect("deserializes");
    assert_eq!(decoded, minimal);
}

#[test]
fn a_result_survives_avro_and_has_the_fields_of_its_schema() {
    let fields = ResultRecord {
        schema: ResultRecord::SCHEMA.into(),
        route: "incidents".into(),
        key: "disk full on db-1".into(),
        outcome: "created".into(),
        sys_id: "9d385017c611228701d22104cc95c371".into(),
        number: "INC0010023".into(),
        positions: ResultRecord::format_positions(&[Position::new(3, 41, 0), Position::new(3, 44, 2)]),
        fields: BTreeMap::from([("short_description".into(), "Disk full".into())]),
        notes: 1,
        attempts: 2,
        latency_ms: 153,
        warnings: vec!["priority is 2".into()],
        time: "2026-11-23T10:15:30Z".into(),
    };
    let (key, value) = encode_result(&fields);
    assert_eq!(key, b"disk full on db-1");
    let json: Value = json::from_slice(&value, 1 << 20).expect("JSON");
    let decoded: ResultRecord = serde_json::from_value(round_trip(Schema::Result, &json)).expect("deserializes");
    assert_eq!(decoded, fields);
}

#[test]
fn a_dead_letter_keeps_the_original_and_has_the_reason() {
    let record = Record {
        topic: "alerts".into(),
        partition: 3,
        offset: 41,
        key: Some(b"k\xff".to_vec()),
        value: Some(b"{broken".to_vec()),
        headers: vec![
            ("trace".into(), Some(b"1".to_vec())),
            ("trace".into(), None),
            ("Nowbridge-Reason".into(), Some(b"of an earlier attempt".to_vec())),
        ],
        timestamp: Some(1_700_000_000_000),
    };
    let details = DeadLetterDetails {
        code: "data_policy",
        explain: "SN-006",
        reason: "Data Policy Exception: Caller is mandatory",
        position: Position::new(3, 41, 0),
        key: Some("disk"),
        route: "incidents",
        origin: None,
        superseded: &[Position::new(3, 39, 0), Position::new(3, 40, 0)],
    };
    let (key, value, headers) = dead_letter(&record, &details, 1_700_000_001_000);
    assert_eq!((key, value), (record.key.clone(), record.value.clone()));
    assert_eq!(headers[..2], record.headers[..2], "kept, including duplicates and nulls");
    let own: Value = headers[2..]
        .iter()
        .map(|(name, value)| {
            let name = name.strip_prefix("nowbridge-").expect("a header of the bridge").replace('-', "_");
            (name, String::from_utf8(value.clone().expect("a value")).expect("text").into())
        })
        .collect::<serde_json::Map<_, Value>>()
        .into();
    assert_eq!(
        own,
        json!({
            "code": "data_policy", "explain": "SN-006", "reason": "Data Policy Exception: Caller is mandatory", "route": "incidents",
            "topic": "alerts", "position": "3/41.0", "key": "disk", "timestamp": "1700000000000",
            "time": "2023-11-14T22:13:21Z", "superseded": "3/39.0,3/40.0", "superseded_count": "2",
        })
    );
    assert_eq!(round_trip(Schema::DeadLetter, &own), own, "the schema describes the headers");
}

#[test]
fn an_alert_event_survives_avro_with_fields_that_the_schema_does_not_name() {
    let event = json!({
        "schema": "alert-lifecycle/1", "event_id": "01JDX", "event_id_kind": "native", "key": "backup:alert:nightly",
        "source": { "system": "backup", "instance": "eu", "vendor_event": "job.failed" },
        "object": { "kind": "alert", "id": "nightly", "number": "B-17", "url": "https://backup.example.com/17" },
        "action": "open", "status": "open", "occurred_at": "2026-11-23T10:15:30Z", "time_kind": "event",
        "title": "Nightly backup failed", "description": "exit 3", "severity": "high", "priority": "P2",
        "actor": { "name": "Scheduler", "type": "automation" }, "assignees": [{ "name": "Beth", "email": "b@example.com" }],
        "group": { "kind": "team", "id": "7", "name": "Storage" }, "service": { "id": "s1", "name": "Backup" },
        "ci": { "name": "db-1", "class": "cmdb_ci_server", "attributes": { "os": "linux" } },
        "note": { "kind": "comment", "body": "Third night in a row", "truncated": false, "author": { "name": "Beth" } },
        "alerts": [{ "id": "a", "status": "firing", "labels": { "job": "x" }, "starts_at": "2026-11-23T10:15:00Z" }],
        "alert_counts": { "total": 2, "firing": 1, "resolved": 1 }, "labels": { "team": "storage", "build": "17" },
        "links": [{ "rel": "runbook", "href": "https://wiki.example.com/backup" }],
        "resolution": { "reason": "false_positive" }, "changed": ["severity"],
        "task": { "title": "Buy disks", "status": "outstanding" },
        "shift": { "lead": "Ann", "night": true }, "attempt": 3,
    });
    assert_eq!(round_trip(Schema::AlertEvent, &event), event);
}

#[test]
fn a_value_that_does_not_match_the_schema_is_an_error() {
    let error = avro::encode(Schema::Change, json!({ "schema": "servicenow-change/1" })).expect_err("an error");
    assert!(error.to_string().contains("schemas/change.avsc"), "{error}");
}

#[test]
fn json_errors_contain_line_and_column() {
    let error = |bytes: &[u8]| json::from_slice::<Value>(bytes, 1000).expect_err("an error").to_string();
    assert!(error(b"{\n  \"a\": }").ends_with("at line 2, column 8"), "{}", error(b"{\n  \"a\": }"));
    assert!(error(&[b'['; 500]).contains("128 levels"));
    assert!(error(&[b' '; 1001]).contains("1001 bytes"));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for schema in Schema::ALL {
            let _ = avro::decode(schema, &bytes);
        }
        let _ = json::from_slice::<Value>(&bytes, 150);
    }
}
