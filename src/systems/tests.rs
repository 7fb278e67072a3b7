//! Decoding of published records.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::Action;

const WEBHOOK: &str = include_str!("alertmanager/fixtures/alertmanager.json");

fn record(key: Option<&str>, value: &[u8]) -> Record {
    Record {
        topic: "alerts".into(),
        partition: 0,
        offset: 0,
        key: key.map(|k| k.as_bytes().to_vec()),
        value: Some(value.to_vec()),
        headers: vec![],
        timestamp: Some(1_700_000_000_000),
    }
}

fn canonical(text: &str) -> Result<AlertEvent, DecodeError> {
    Decoder::Canonical.decode(&record(None, text.as_bytes())).map(|mut events| events.remove(0))
}

fn error_of(text: &str) -> String {
    let error = canonical(text).expect_err("must be rejected");
    format!("{} {error}", error.code)
}

#[test]
fn the_short_form_is_expanded() {
    let event = canonical(r#"{"source":"backup","key":"nightly","action":"open","title":"Failed","build":7}"#).unwrap();
    assert_eq!((event.key.as_str(), event.kind.as_str(), event.object_id.as_str()), ("nightly", "alert", "nightly"));
    assert_eq!((event.action, event.status.as_str()), (Some(Action::Open), "open"));
    assert_eq!((event.occurred_at, event.severity.as_deref()), (1_700_000_000_000, Some("unknown")));
    assert!(!event.event_id_native && event.event_id.is_empty());
    assert_eq!(
        event.json,
        json!({
            "schema": "alert-lifecycle/1", "key": "nightly", "source": { "system": "backup" },
            "object": { "kind": "alert", "id": "nightly" }, "action": "open", "status": "open", "title": "Failed",
            "severity": "unknown", "occurred_at": "2023-11-14T22:13:20Z", "time_kind": "received", "labels": {},
            "build": 7,
        })
    );
}

#[test]
fn the_full_form_is_decoded() {
    let event = canonical(
        r#"{"schema":"alert-lifecycle/1","event_id":"e1","source":{"system":"pd","instance":"eu"},
            "object":{"kind":"incident","id":"Q1","number":"17","url":"https://x"},"action":"follow-up","status":"open",
            "occurred_at":"2026-11-23T12:00:00+02:00","severity":"Warning","actor":{"email":"a@b.c"},
            "note":{"body":"hi","author":"Ann"},"resolution":{"code":"c"},"labels":{"n":1,"b":true,"o":{"x":[1]}}}"#,
    )
    .unwrap();
    assert_eq!(event.key, "pd@eu:incident:Q1");
    assert_eq!((event.action, event.severity.as_deref()), (Some(Action::FollowUp), Some("medium")));
    assert_eq!(event.occurred_at, 1_795_428_000_000);
    assert_eq!((event.actor.as_deref(), event.note.as_deref()), (Some("Ann"), Some("hi")));
    assert_eq!(event.labels["o"], r#"{"x":[1]}"#);
    assert_eq!((event.labels["n"].as_str(), event.labels["b"].as_str()), ("1", "true"));
    assert!(event.event_id_native);
}

#[test]
fn a_status_implies_an_action() {
    let action = |status: &str| {
        canonical(&format!(r#"{{"source":"x","key":"k","title":"t","status":"{status}"}}"#)).map(|e| e.action)
    };
    assert_eq!(action("open").unwrap(), Some(Action::Open));
    assert_eq!(action("Acknowledged").unwrap(), Some(Action::Acknowledge));
    assert_eq!(action("suppressed").unwrap(), Some(Action::Suppress));
    assert_eq!(action("closed").unwrap(), Some(Action::Resolve));
    assert_eq!(action("unknown").unwrap_err().code, "unknown_action");
}

#[test]
fn an_invalid_event_gets_one_clear_error() {
    for (text, expected) in [
        ("", "undecodable $: invalid JSON (EOF"),
        ("[]", "undecodable $: expected one JSON object per record, found a list"),
        ("\0\0\0\0\x01abc", "undecodable $: the value looks like Avro in the Confluent wire format"),
        (r#"{"key":"k","action":"open"}"#, "undecodable $.source: missing"),
        (r#"{"source":"x","action":"open","title":"t"}"#, "missing_key $.key: missing, as is `object.id`"),
        (
            r#"{"source":"x","key":"k","action":"explode"}"#,
            "unknown_action $.action: unknown action `explode`; use one",
        ),
        (r#"{"source":"x","key":"k"}"#, "unknown_action $.action: missing, and no `status`"),
        (r#"{"source":"x","key":"k","action":"open"}"#, "undecodable $.title: missing"),
        (r#"{"source":"x","key":"k","action":"note"}"#, "undecodable $.note: missing"),
        (
            r#"{"source":"x","key":"k","action":"update","title":{}}"#,
            "undecodable $.title: expected text, found an object",
        ),
        (
            r#"{"source":"x","key":"k","action":"update","occurred_at":"yesterday"}"#,
            "undecodable $.occurred_at: `yesterday`",
        ),
        (r#"{"source":"x","key":"k\n","action":"update"}"#, "invalid_key $.key: the key of an alert"),
        (r#"{"schema":"alert-lifecycle/2","source":"x"}"#, "undecodable $.schema: unknown schema `alert-lifecycle/2`"),
    ] {
        let actual = error_of(text);
        assert!(actual.starts_with(expected), "{text}\n{actual}");
    }
}

#[test]
fn test_events_are_skipped() {
    let text = br#"{"source":"x","key":"k","action":"open","title":"t","mode":"test"}"#;
    assert_eq!(Decoder::Canonical.decode(&record(None, text)), Ok(vec![]));
}

#[test]
fn the_record_key_must_be_the_alert_key_unless_the_user_guarantees_one_partition() {
    let events = vec![canonical(r#"{"source":"x","key":"k","action":"open","title":"t"}"#).unwrap()];
    let check = |key, partitions, keyed_by_alert| {
        Decoder::Canonical.check_key(&record(key, b""), &events, partitions, keyed_by_alert).map_err(|e| e.code)
    };
    assert_eq!(check(Some("k"), 3, false), Ok(()));
    assert_eq!(check(Some("other"), 3, false), Err("key_mismatch"));
    assert_eq!(check(None, 3, false), Err("missing_key"));
    assert_eq!(check(None, 1, false), Ok(()));
    assert_eq!(check(Some("other"), 3, true), Ok(()));
    let text = br#"{"source":"x","action":"open","title":"t"}"#;
    assert_eq!(Decoder::Canonical.decode(&record(Some("record key"), text)).unwrap()[0].key, "record key");
}

#[test]
fn an_alertmanager_group_is_one_event() {
    let events = Decoder::Alertmanager(TicketPer::Group).decode(&record(None, WEBHOOK.as_bytes())).unwrap();
    let [event] = &events[..] else { panic!("one event") };
    // printf '%s' '{}/{team="storage"}:{alertname="DiskFull", team="storage"}' | sha256sum
    assert_eq!(event.key, "alertmanager:group:18ce4c6397b240e683dfc1a48685800d1171a4cbc4cbf1d0a51ab51a5b7c5eaa");
    assert_eq!((event.action, event.severity.as_deref()), (Some(Action::Open), Some("critical")));
    assert_eq!(event.title.as_deref(), Some("DiskFull (team=storage)"));
    assert_eq!(event.occurred_at, 1_700_000_000_000, "the record's timestamp");
    assert_eq!(
        event.description.as_deref(),
        Some(
            "[firing since 2026-11-23T10:00:00.123Z] Disk of db-1 is 91 % full\n\
             [firing since 2026-11-23T10:05:00Z] DiskFull instance=db-2:9100 severity=page team=storage\n\
             [resolved since 2026-11-23T10:04:00Z] Disk of db-3 is 95 % full\n\
             and 2 more"
        )
    );
    assert_eq!(event.json["alert_counts"], json!({ "total": 5, "firing": 2, "resolved": 1 }));
    assert!(!event.event_id_native);
    assert_eq!(event.episode.as_deref(), Some("2026-11-23T10:00:00.123Z"), "the start of the oldest firing alert");
}

#[test]
fn a_truncated_group_is_not_resolved_although_the_alerts_that_it_lists_are() {
    let body = |truncated: u64| {
        let mut body: serde_json::Value = serde_json::from_str(WEBHOOK).unwrap();
        body["status"] = json!("resolved");
        body["truncatedAlerts"] = json!(truncated);
        body["alerts"].as_array_mut().unwrap().iter_mut().for_each(|alert| alert["status"] = json!("resolved"));
        body.to_string()
    };
    for (truncated, action) in [(0, Action::Resolve), (2, Action::Update)] {
        let record = record(None, body(truncated).as_bytes());
        let events = Decoder::Alertmanager(TicketPer::Group).decode(&record).unwrap();
        assert_eq!((events[0].action, events[0].episode.as_deref()), (Some(action), None));
    }
}

#[test]
fn each_alertmanager_alert_is_an_event() {
    let events = Decoder::Alertmanager(TicketPer::Alert).decode(&record(None, WEBHOOK.as_bytes())).unwrap();
    let seen: Vec<_> = events
        .iter()
        .map(|e| (e.key.as_str(), e.action.unwrap(), e.title.as_deref().unwrap(), e.severity.as_deref().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ("alertmanager:alert:0123456789abcdef", Action::Open, "Disk of db-1 is 91 % full", "medium"),
            ("alertmanager:alert:1123456789abcdef", Action::Open, "DiskFull on db-2:9100", "critical"),
            ("alertmanager:alert:2123456789abcdef", Action::Resolve, "Disk of db-3 is 95 % full", "critical"),
        ]
    );
    assert_eq!(events[0].episode.as_deref(), Some("2026-11-23T10:00:00.123Z"));
    assert_eq!(events[2].json["ends_at"], "2026-11-23T10:04:00Z");
    assert_eq!(events[0].json["starts_at"], "2026-11-23T10:00:00.123Z");
    assert!(events[0].json["ends_at"].is_null());
    assert_eq!(events[1].url.as_deref(), Some("http://alertmanager.example.com:9093"));
}

#[test]
fn without_a_record_timestamp_the_times_of_the_body_are_used() {
    let times = |ticket_per| {
        let record = Record { timestamp: None, ..record(None, WEBHOOK.as_bytes()) };
        let events = Decoder::Alertmanager(ticket_per).decode(&record).unwrap();
        events.iter().map(|e| time::format_rfc3339(e.occurred_at)).collect::<Vec<_>>()
    };
    assert_eq!(times(TicketPer::Group), ["2026-11-23T10:05:00Z"]);
    assert_eq!(times(TicketPer::Alert), ["2026-11-23T10:00:00.123Z", "2026-11-23T10:05:00Z", "2026-11-23T10:04:00Z"]);
}

/// While Prometheus is down, Alertmanager resolves an alert by its timeout, and then receives it again with its old
/// start.
#[test]
fn an_alert_that_fires_again_with_its_old_start_is_not_older_than_its_resolution() {
    let decode = |status: &str, ends: &str, timestamp| {
        let body = json!({ "status": status, "groupKey": "g", "alerts": [{
            "status": status, "fingerprint": "f", "startsAt": "2026-11-23T09:00:00Z", "endsAt": ends,
        }] });
        let record = Record { timestamp: Some(timestamp), ..record(None, body.to_string().as_bytes()) };
        [TicketPer::Group, TicketPer::Alert]
            .map(|ticket_per| Decoder::Alertmanager(ticket_per).decode(&record).unwrap()[0].occurred_at)
    };
    let resolved = decode("resolved", "2026-11-23T10:20:00Z", 1_795_429_300_000);
    let firing = decode("firing", "0001-01-01T00:00:00Z", 1_795_429_600_000);
    assert!(firing[0] > resolved[0] && firing[1] > resolved[1]);
}

#[test]
fn a_record_that_is_not_a_webhook_body_is_rejected() {
    let error_of = |text: &str, ticket_per| {
        let error =
            Decoder::Alertmanager(ticket_per).decode(&record(None, text.as_bytes())).expect_err("must be rejected");
        format!("{} {error}", error.code)
    };
    assert!(error_of("{}", TicketPer::Group).starts_with("undecodable $.alerts: missing; is this the webhook"));
    assert!(error_of(r#"{"version":"5"}"#, TicketPer::Group).starts_with("undecodable $.version"));
    assert!(
        error_of(r#"{"alerts":[{}]}"#, TicketPer::Alert)
            .starts_with("unknown_action $.alerts[0].status: expected `firing` or `resolved`, found nothing")
    );
    assert!(error_of(r#"{"alerts":[],"status":"firing"}"#, TicketPer::Group).starts_with("missing_key $.groupKey"));
    assert!(
        error_of(r#"{"alerts":[{"status":"firing"}]}"#, TicketPer::Alert)
            .starts_with("missing_key $.alerts[0].fingerprint")
    );
}

/// JSON of any structure with the field names that decoders read.
fn any_body() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        "\\PC{0,20}".prop_map(|s| json!(s)),
        Just(json!("firing")),
        Just(json!("open")),
        Just(json!("0001-01-01T00:00:00Z")),
        Just(json!("9999-12-31T23:59:59Z")),
    ];
    const NAMES: &str = "(source|system|object|kind|id|key|action|status|title|labels|note|body|author|actor|severity|\
                         occurred_at|alerts|groupKey|fingerprint|startsAt|endsAt|version|commonLabels|truncatedAlerts)";
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
            proptest::collection::hash_map(NAMES, inner, 0..10).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_decoder_never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for decoder in [Decoder::Canonical, Decoder::Alertmanager(TicketPer::Group), Decoder::Alertmanager(TicketPer::Alert)] {
            let _ = decoder.decode(&record(None, &bytes));
        }
    }

    #[test]
    fn a_decoder_never_panics_on_any_json_and_every_event_has_a_key_and_an_action(body in any_body()) {
        for decoder in [Decoder::Canonical, Decoder::Alertmanager(TicketPer::Group), Decoder::Alertmanager(TicketPer::Alert)] {
            for event in decoder.decode(&record(Some("k"), body.to_string().as_bytes())).unwrap_or_default() {
                prop_assert!(!event.key.is_empty() && event.key.len() <= MAX_KEY && event.action.is_some());
                prop_assert!(event.json.is_object());
            }
        }
    }
}
