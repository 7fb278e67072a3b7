//! Valid and invalid configurations, and the errors that are reported for the latter.

use std::path::Path;

use super::*;
use crate::systems::{Decoder, TicketPer};

fn env(name: &str) -> Option<String> {
    match name {
        "SERVICENOW_PASSWORD" => Some("hunter2-secret".into()),
        "KAFKA_PASSWORD" => Some("kafka-secret".into()),
        "CONCURRENCY" => Some("12".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("bridge.yaml"), &env)
}

fn errors_of(text: &str) -> String {
    read(text).expect_err("must be rejected").to_string()
}

#[test]
fn the_examples_are_valid_and_debug_shows_no_secret() {
    let minimal = read(MINIMAL).unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &minimal.sinks[0];
    assert_eq!(sink.group, "nowbridge.incidents");
    assert_eq!(sink.ledger, "nowbridge.incidents.ledger");
    assert_eq!(sink.dead_letters, "nowbridge.incidents.dead-letters");
    assert_eq!((sink.settings.bridge_user.as_str(), sink.settings.marker_prefix.as_str()), ("nowbridge", "alerts"));
    assert_eq!(minimal.sources[0].topic, "nowbridge.incident-changes.changes");
    assert_eq!(minimal.admin.listen.to_string(), "127.0.0.1:9464");

    let full = read(EXAMPLE).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = format!("{full:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("kafka-secret"), "a secret is shown");
    let Auth::Basic { password, .. } = &full.instances["prod"].auth else { panic!("basic") };
    assert_eq!(password.expose(), "hunter2-secret");
    assert_eq!(full.instances["prod"].rate, Some(Rate { count: 300, per: std::time::Duration::from_secs(60) }));
}

#[test]
fn the_example_contains_every_key() {
    let schema = schema();
    let words: std::collections::BTreeSet<&str> =
        EXAMPLE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let structs = schema["$defs"].as_object().into_iter().flat_map(|d| d.values()).chain([&schema]);
    for definition in structs {
        for key in definition["properties"].as_object().into_iter().flat_map(|p| p.keys()) {
            assert!(words.contains(key.as_str()), "`{key}` is missing in example.yaml");
        }
    }
}

#[test]
fn all_errors_are_reported_at_once_with_their_locations() {
    let text = "\
instances:
  prod:
    url: http://sn.example.com
    auth:
      basic: { user: nowbridge, password: \"${NOT_THERE}\" }
    max_transaction_time: soon
    concurency: 4
kafka:
  bootstrap: [a, b]
  session_timeout: 10m
  properties:
    enable.auto.commit: true
sinks:
  Incidents:
    format: alertmanger
    fields:
      state: 2
      category: \"{{ lables.team }}\"
      impact: \"{% if %}\"
sources:
  cis:
    instance: test
    table: cmdb_ci
";
    let expected = "\
bridge.yaml:3:10: instances.prod.url: credentials would be sent unencrypted; use https, or set `allow_http: true` for a simulator
bridge.yaml:5:43: instances.prod.auth.basic.password: the environment variable NOT_THERE is not set; set it, or add a default: `${NOT_THERE:-default}`
bridge.yaml:6:27: instances.prod.max_transaction_time: `soon` is not a duration; use for example `250ms`, `30s`, `5m`, `24h` or `1h30m`
bridge.yaml:7:5: instances.prod.concurency: unknown key `concurency`; did you mean `concurrency`? Accepted: ";
    let actual = errors_of(text);
    assert!(actual.starts_with(expected), "{actual}");
    for part in [
        "9:14: kafka.bootstrap: expected text, found a list",
        "12:25: kafka.properties.'enable.auto.commit': `enable.auto.commit` can't be set: offsets are",
        "14:3: sinks.Incidents: `Incidents` is not a valid name; use up to 60 characters of a-z",
        "sinks.Incidents: `topic` is missing: Topic with the alert events.",
        "15:13: sinks.Incidents.format: unknown value `alertmanger`; accepted: canonical, alertmanager",
        "17:14: sinks.Incidents.fields.state: the bridge computes the state",
        "18:17: sinks.Incidents.fields.category: unknown variable `lables`",
        "19:15: sinks.Incidents.fields.impact: invalid template: syntax error",
        "22:15: sources.cis.instance: there is no instance `test`; the instances are: prod",
        "sources.cis: `fields` is missing: the table `cmdb_ci` has no default list",
    ] {
        assert!(actual.contains(part), "missing: {part}\n\n{actual}");
    }
    let lines: Vec<u32> =
        actual.lines().filter_map(|line| line.split(':').nth(1)).filter_map(|line| line.parse().ok()).collect();
    assert!(lines.is_sorted(), "not in the order of the file: {lines:?}");
}

#[test]
fn a_syntax_error_is_reported_alone() {
    for text in ["instances:\n  prod: [\n", "kafka: {}\nkafka: {}\n"] {
        let errors = read(text).expect_err("must be rejected");
        assert_eq!(errors.errors.len(), 1, "{errors}");
        assert!(errors.errors[0].line > 0 && errors.errors[0].message.contains("invalid YAML"), "{errors}");
    }
    assert!(errors_of("").contains("there is no route"));
    assert!(errors_of("just text").contains("a mapping"));
}

#[test]
fn text_keeps_its_spelling_and_numbers_may_come_from_the_environment() {
    let text = MINIMAL
        .replace("\"${SERVICENOW_PASSWORD}\"", "0123")
        .replace("    auth:", "    concurrency: ${CONCURRENCY}\n    auth:");
    let config = read(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let Auth::Basic { password, .. } = &config.instances["prod"].auth else { panic!("basic") };
    assert_eq!(password.expose(), "0123");
    assert_eq!(config.instances["prod"].concurrency, 12);
}

#[test]
fn a_secret_file_is_read_without_its_line_end_and_again_when_it_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "first\n").expect("written");
    let text = MINIMAL.replace("\"${SERVICENOW_PASSWORD}\"", "file:password");
    let config = parse(&text, &directory.path().join("bridge.yaml"), &env).unwrap_or_else(|errors| panic!("{errors}"));
    let Auth::Basic { password, .. } = &config.instances["prod"].auth else { panic!("basic") };
    assert_eq!(password.expose(), "first");
    assert!(password.read_if_changed().expect("readable").is_none());
    std::fs::write(&file, "second\n").expect("written");
    assert_eq!(password.read_if_changed().expect("readable").map(|s| s.expose().to_owned()).as_deref(), Some("second"));
    std::fs::remove_file(&file).expect("removed");
    let errors = parse(&text, &directory.path().join("bridge.yaml"), &env).expect_err("must be rejected").to_string();
    assert!(errors.contains("password can't be read"), "{errors}");
}

#[test]
fn credentials_in_the_url_are_rejected_and_not_shown() {
    let text = MINIMAL.replace("https://example", "https://admin:opensesame@example");
    let errors = errors_of(&text);
    assert!(errors.contains("under `auth`") && !errors.contains("opensesame"), "{errors}");
}

#[test]
fn keys_that_contradict_each_other_are_rejected() {
    let rejected = |from: &str, to: &str, part: &str| {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL, "{from}");
        let errors = errors_of(&text);
        assert!(errors.contains(part), "{errors}");
    };
    rejected("topic: alerts", "topic: alerts\n    ledger: alerts", "already the ledger of the sink");
    rejected("topic: alerts", "topic: alerts\n    ticket_per: alert", "requires `format: alertmanager`");
    rejected("topic: alerts", "topic: alerts\n    states: { new: 2 }", "occurs twice");
    rejected("kafka:", "topics: { replication: 1 }\nkafka:", "unsafe_topics: true");
    rejected("table: incident", "table: incident\n    filter: a=1^NQb=2", "starts a new query");
    rejected("localhost:9092", "localhost:9092\n  max_poll_interval: 10s", "shorter than `session_timeout`");
}

#[test]
fn debug_shows_no_password_of_a_proxy_or_a_property() {
    let text = MINIMAL
        .replace("    auth:", "    proxy: http://me:opensesame@proxy.example.com:3128\n    auth:")
        .replace("localhost:9092", "localhost:9092\n  properties: { sasl.jaas.config: opensesame }");
    let config = read(&text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(!format!("{config:?}").contains("opensesame"));
}

/// Run with `NOWBRIDGE_BLESS=1` to rewrite the file.
#[test]
fn the_published_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/config.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).expect("serializes"));
    if std::env::var_os("NOWBRIDGE_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == text, "schemas/config.schema.json is out of date; run the tests once with NOWBRIDGE_BLESS=1");
}

/// Decoders and the Avro codec don't depend on each other; this test checks that they agree.
#[test]
fn decoded_events_match_the_avro_schema() {
    use crate::codec::avro::{Schema, decode, encode};
    let record = |value: &str| crate::model::Record {
        topic: "alerts".into(),
        partition: 0,
        offset: 0,
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: vec![],
        timestamp: Some(1_700_000_000_000),
    };
    let short = r#"{"source":"backup","key":"nightly","action":"open","title":"Failed","note":"x","actor":"Ann",
        "resolution":"done","labels":{"n":1},"x":[1]}"#;
    let webhook = include_str!("../systems/alertmanager/fixtures/alertmanager.json");
    for (decoder, body) in [
        (Decoder::Canonical, short),
        (Decoder::Alertmanager(TicketPer::Group), webhook),
        (Decoder::Alertmanager(TicketPer::Alert), webhook),
    ] {
        for event in decoder.decode(&record(body)).unwrap_or_else(|e| panic!("{e}")) {
            let bytes = encode(Schema::AlertEvent, event.json.clone()).unwrap_or_else(|e| panic!("{e:?}"));
            let back = decode(Schema::AlertEvent, &bytes).unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!(back["key"], event.json["key"]);
            assert_eq!(back["labels"], event.json["labels"]);
        }
    }
}

#[test]
fn batch_settings_require_write_batch() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let read = |lines: &str| {
        read(&with(lines)).map(|config| (config.sinks[0].write.clone(), config.sinks[0].settings.min_claim_window))
    };
    let default = read("").expect("it loads");
    assert_eq!(default.0, Write::Table);
    let batch = read("    write: batch\n").expect("it loads");
    assert_eq!(batch.0, Write::Batch { size: 20, linger: std::time::Duration::from_millis(100) });
    assert_eq!(batch.1, default.1 + 19, "as many claims are ready as fit into one request");
    let actual = errors_of(&with("    write: batches\n    batch: { size: 1, linger: 1m }\n"));
    for part in [
        "sinks.incidents.write: unknown value `batches`; accepted: table, batch, import_set, event",
        "sinks.incidents.batch.size",
        "sinks.incidents.batch.linger: must be between 0 and 10s",
        "`batch` requires `write: batch`; remove it or set that",
    ] {
        assert!(actual.contains(part), "missing: {part}\n\n{actual}");
    }
}

#[test]
fn an_import_set_needs_a_staging_table_and_a_separate_column_for_the_sys_id() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let config = read(&with("    write: import_set\n    import_set: { staging: u_tickets }\n")).expect("it loads");
    let Write::ImportSet { staging, prefix, coalesce } = &config.sinks[0].write else { panic!("not an import set") };
    assert_eq!((staging.as_str(), prefix.as_str(), coalesce.as_str()), ("u_tickets", "u_", "u_sys_id"));
    for (lines, expected) in [
        ("    write: import_set\n", "needs the name of a staging table"),
        ("    write: import_set\n    import_set: {}\n", "`staging` is missing"),
        ("    import_set: { staging: u_tickets }\n", "`import_set` requires `write: import_set`"),
        ("    write: import_set\n    import_set: { staging: u_t }\n    batch: {}\n", "`batch` requires `write: batch`"),
        ("    write: import_set\n    import_set: { staging: a/b, prefix: '' }\n", "sinks.incidents.import_set.staging"),
        (
            "    write: import_set\n    import_set: { staging: t, coalesce: sys_id }\n",
            "belongs to the staging row itself",
        ),
    ] {
        let actual = errors_of(&with(lines));
        assert!(actual.contains(expected), "{lines}: missing: {expected}\n\n{actual}");
    }
}

#[test]
fn events_have_their_own_rules_and_no_rows() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let lines = "    write: event\n    event: { size: 10 }\n    fields: { additional_info.team: x, metric_name: }\n";
    let config = read(&with(lines)).unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &config.sinks[0];
    let Write::Event { source, class, size, linger } = &sink.write else { panic!("no events") };
    assert_eq!((source.as_str(), class.as_str(), *size, linger.as_millis()), ("nowbridge", "incidents", 10, 100));
    assert_eq!((sink.table.as_str(), sink.settings.states.column.as_str()), ("em_event", "severity"));
    assert!(
        sink.settings.full_snapshot && sink.settings.max_row_age == u64::MAX,
        "events are complete, nothing is read"
    );
    assert_eq!(sink.settings.note_limit, 2_000);
    let columns: Vec<String> = sink.mapping.columns().iter().map(ToString::to_string).collect();
    for (column, expected) in
        [("severity", true), ("additional_info.team", true), ("metric_name", false), ("impact", false)]
    {
        assert_eq!(columns.iter().any(|known| known == column), expected, "{column}: {columns:?}");
    }
    for (lines, expected) in [
        ("    event: {}\n", "`event` requires `write: event`"),
        ("    write: event\n    max_row_age: 1m\n", "`max_row_age` has no effect with `write: event`"),
        ("    write: event\n    on_user_edit: { node: keep }\n", "`on_user_edit` has no effect"),
        ("    write: event\n    states: { new: 1 }\n", "`states` has no effect"),
        ("    write: event\n    table: incident\n", "events go to `em_event`"),
        ("    write: event\n    event: { source: '' }\n", "sinks.incidents.event.source"),
        ("    write: event\n    fields: { message_key: x }\n", "written by the bridge"),
        ("    write: event\n    fields: { additional_info.note: x }\n", "written by the bridge"),
        ("    write: event\n    fields: { additional_info.A: x }\n", "is not a ServiceNow table or column name"),
        ("    fields: { additional_info.team: x }\n", "is not a ServiceNow table or column name"),
    ] {
        let actual = errors_of(&with(lines));
        assert!(actual.contains(expected), "{lines}: missing: {expected}\n\n{actual}");
    }
}

#[test]
fn a_route_with_grouping_has_three_internal_topics() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let config = read(&with("    grouping: { group_by: \"{{ labels.service }}\" }\n"))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &config.sinks[0];
    let grouping = sink.grouping.as_ref().expect("grouping");
    assert_eq!(
        (sink.topic.as_str(), sink.consumed_topic(), grouping.max_listed),
        ("alerts", "nowbridge.incidents.groups", 20)
    );
    assert_eq!(grouping.input_topic, "nowbridge.incidents.groups.input");
    assert_eq!(grouping.state_topic, "nowbridge.incidents.groups.state");
    let groups: Vec<(String, String)> = sink.consumer_groups();
    assert_eq!(groups[2], ("nowbridge.incidents.grouping".into(), grouping.input_topic.clone()));
    let all = errors_of(&with("    keyed_by_alert: true\n    grouping: { group_by: shop, max_listed: 0 }\n"));
    for expected in ["sinks.incidents.keyed_by_alert", "share one ticket", "sinks.incidents.grouping.max_listed"] {
        assert!(all.contains(expected), "{expected}: {all}");
    }
    let without = errors_of(&with("    grouping: { max_listed: 5 }\n"));
    assert!(without.contains("group_by"), "{without}");
}

#[test]
fn a_repartitioned_route_reads_its_internal_topic() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let plain = read(MINIMAL).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((plain.sinks[0].consumed_topic(), &plain.sinks[0].repartition_topic), ("alerts", &None));
    let config = read(&with("    repartition: true\n")).unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &config.sinks[0];
    assert_eq!((sink.topic.as_str(), sink.consumed_topic()), ("alerts", "nowbridge.incidents.repartitioned"));
    assert_eq!(sink.repartition_group(), "nowbridge.incidents.repartition");
    assert_eq!(
        sink.settings.marker_prefix, "nowbridge.incidents.repartitioned",
        "note markers contain positions of that topic"
    );
    let both = errors_of(&with("    repartition: true\n    keyed_by_alert: true\n"));
    assert!(both.contains("sinks.incidents.repartition"), "{both}");
    let without = errors_of(&with("    repartition_topic: elsewhere\n"));
    assert!(without.contains("`repartition_topic` requires `repartition: true`"), "{without}");
    let same = errors_of(&with("    repartition: true\n    repartition_topic: alerts\n"));
    assert!(same.contains("the topic `alerts` is already"), "{same}");
}

#[test]
fn two_sinks_do_not_write_tickets_for_the_same_alerts() {
    let sinks = |first: &str, second: &str| {
        let sinks = format!("    topic: alerts\n{first}  more:\n    topic: alerts\n{second}");
        MINIMAL.replace("    topic: alerts\n", &sinks)
    };
    let errors = errors_of(&sinks("", "    key_filter: [\"backup:*\"]\n"));
    let expected = "sinks.more.key_filter: the sink `incidents` writes tickets for the same alerts of `alerts`";
    assert!(errors.contains(expected), "{errors}");
    let disjoint = sinks("    key_filter: [\"disk:*\"]\n", "    key_filter: [\"backup:*\"]\n");
    read(&disjoint).unwrap_or_else(|errors| panic!("{errors}"));
}
