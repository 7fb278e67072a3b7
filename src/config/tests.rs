//! What a person sees who gets a configuration right, and who gets it wrong.

use std::path::Path;

use super::*;
use crate::systems::{By, Decoder};

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

fn complaints(text: &str) -> String {
    read(text).expect_err("must be refused").to_string()
}

#[test]
fn the_examples_load_and_show_no_secret() {
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
    assert!(!shown.contains("hunter2") && !shown.contains("kafka-secret"), "a secret shows");
    let Auth::Basic { password, .. } = &full.instances["prod"].auth else { panic!("basic") };
    assert_eq!(password.expose(), "hunter2-secret");
    assert_eq!(full.instances["prod"].rate, Some(Rate { count: 300, per: std::time::Duration::from_secs(60) }));
}

#[test]
fn every_key_stands_in_the_example() {
    let schema = schema();
    let words: std::collections::BTreeSet<&str> =
        EXAMPLE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let structs = schema["$defs"].as_object().into_iter().flat_map(|d| d.values()).chain([&schema]);
    for one in structs {
        for key in one["properties"].as_object().into_iter().flat_map(|p| p.keys()) {
            assert!(words.contains(key.as_str()), "`{key}` is missing in example.yaml");
        }
    }
}

#[test]
fn everything_wrong_comes_at_once_with_its_place() {
    let text = "\
instances:
  prod:
    url: http://sn.example.com
    auth:
      basic: { user: nowbridge, password: \"${NOT_THERE}\" }
    settle_time: soon
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
bridge.yaml:3:10: instances.prod.url: credentials would travel in the clear; use https, or set `allow_http: true` for a simulator
bridge.yaml:5:43: instances.prod.auth.basic.password: the environment variable NOT_THERE is not set; set it, or give a default as `${NOT_THERE:-default}`
bridge.yaml:6:18: instances.prod.settle_time: `soon` is no duration; write for example `250ms`, `30s`, `5m`, `24h` or `1h30m`
bridge.yaml:7:5: instances.prod.concurency: unknown key `concurency`; did you mean `concurrency`? Accepted here: ";
    let actual = complaints(text);
    assert!(actual.starts_with(expected), "{actual}");
    for part in [
        "9:14: kafka.bootstrap: this is a list, and text is expected",
        "12:25: kafka.properties.'enable.auto.commit': `enable.auto.commit` can't be passed through: offsets are",
        "14:3: sinks.Incidents: `Incidents` can't be a name; use up to 60 of a-z",
        "sinks.Incidents: `topic` is missing: Topic with the alert events.",
        "15:13: sinks.Incidents.format: `alertmanger` is not among what is accepted here: canonical, alertmanager",
        "17:14: sinks.Incidents.fields.state: the state follows from the alert's life",
        "18:17: sinks.Incidents.fields.category: `lables` is nothing a template knows",
        "19:15: sinks.Incidents.fields.impact: the template can't be read: syntax error",
        "22:15: sources.cis.instance: there is no instance `test`; under `instances` there are: prod",
        "sources.cis: `fields` is missing: there is no default list for the table `cmdb_ci`",
    ] {
        assert!(actual.contains(part), "not said: {part}\n\n{actual}");
    }
    let lines: Vec<u32> =
        actual.lines().filter_map(|line| line.split(':').nth(1)).filter_map(|line| line.parse().ok()).collect();
    assert!(lines.is_sorted(), "in the order of the file: {lines:?}");
}

#[test]
fn a_syntax_error_comes_alone() {
    for text in ["instances:\n  prod: [\n", "kafka: {}\nkafka: {}\n"] {
        let errors = read(text).expect_err("must be refused");
        assert_eq!(errors.errors.len(), 1, "{errors}");
        assert!(errors.errors[0].line > 0 && errors.errors[0].message.contains("no valid YAML"), "{errors}");
    }
    assert!(complaints("").contains("there is no route"));
    assert!(complaints("just text").contains("a mapping"));
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
fn a_secret_file_is_read_without_its_line_end_and_noticed_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "first\n").expect("written");
    let text = MINIMAL.replace("\"${SERVICENOW_PASSWORD}\"", "file:password");
    let config = parse(&text, &folder.path().join("bridge.yaml"), &env).unwrap_or_else(|errors| panic!("{errors}"));
    let Auth::Basic { password, .. } = &config.instances["prod"].auth else { panic!("basic") };
    assert_eq!(password.expose(), "first");
    assert!(password.changed().expect("readable").is_none());
    std::fs::write(&file, "second\n").expect("written");
    assert_eq!(password.changed().expect("readable").map(|s| s.expose().to_owned()).as_deref(), Some("second"));
    std::fs::remove_file(&file).expect("removed");
    let errors = parse(&text, &folder.path().join("bridge.yaml"), &env).expect_err("refused").to_string();
    assert!(errors.contains("password can't be read"), "{errors}");
}

#[test]
fn credentials_in_the_url_are_refused_and_not_repeated() {
    let text = MINIMAL.replace("https://example", "https://admin:opensesame@example");
    let errors = complaints(&text);
    assert!(errors.contains("under `auth`") && !errors.contains("opensesame"), "{errors}");
}

#[test]
fn things_that_must_fit_together() {
    let refused = |from: &str, to: &str, part: &str| {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL, "{from}");
        let errors = complaints(&text);
        assert!(errors.contains(part), "{errors}");
    };
    refused("topic: alerts", "topic: alerts\n    ledger: alerts", "already the ledger of the sink");
    refused("topic: alerts", "topic: alerts\n    by: alert", "belongs to the format `alertmanager`");
    refused("topic: alerts", "topic: alerts\n    states: { new: 2 }", "means two states");
    refused("kafka:", "topics: { replication: 1 }\nkafka:", "unsafe_topics: true");
    refused("table: incident", "table: incident\n    filter: a=1^NQb=2", "begins a new query");
    refused("localhost:9092", "localhost:9092\n  max_poll_interval: 10s", "shorter than `session_timeout`");
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
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).expect("serialises"));
    if std::env::var_os("NOWBRIDGE_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "schemas/config.schema.json is out of date; run the tests once with NOWBRIDGE_BLESS=1");
}

/// Decoders and the Avro codec never see each other; that they agree is checked here.
#[test]
fn what_decoders_make_fits_the_avro_schema() {
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
        (Decoder::Alertmanager(By::Group), webhook),
        (Decoder::Alertmanager(By::Alert), webhook),
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
fn batches_are_asked_for_and_their_settings_need_them() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let read = |lines: &str| {
        read(&with(lines)).map(|config| (config.sinks[0].write.clone(), config.sinks[0].settings.claims_ahead))
    };
    let plain = read("").expect("it loads");
    assert_eq!(plain.0, Write::Table);
    let batch = read("    write: batch\n").expect("it loads");
    assert_eq!(batch.0, Write::Batch { size: 20, linger: std::time::Duration::from_millis(100) });
    assert_eq!(batch.1, plain.1 + 19, "as many claims stand ready as go into one request");
    let wrong = complaints(&with("    write: batches\n    batch: { size: 1, linger: 1m }\n"));
    for part in [
        "sinks.incidents.write: `batches` is not among what is accepted here: table, batch, import_set, event",
        "sinks.incidents.batch.size",
        "sinks.incidents.batch.linger: must be between 0 and 10s",
        "`batch` belongs to `write: batch`; remove it or set that",
    ] {
        assert!(wrong.contains(part), "not said: {part}\n\n{wrong}");
    }
}

#[test]
fn an_import_set_needs_its_staging_table_and_a_column_of_its_own_for_the_ticket() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let config = read(&with("    write: import_set\n    import_set: { staging: u_tickets }\n")).expect("it loads");
    let Write::ImportSet { staging, prefix, coalesce } = &config.sinks[0].write else { panic!("not an import set") };
    assert_eq!((staging.as_str(), prefix.as_str(), coalesce.as_str()), ("u_tickets", "u_", "u_sys_id"));
    for (lines, said) in [
        ("    write: import_set\n", "needs the name of a staging table"),
        ("    write: import_set\n    import_set: {}\n", "`staging` is missing"),
        ("    import_set: { staging: u_tickets }\n", "`import_set` belongs to `write: import_set`"),
        (
            "    write: import_set\n    import_set: { staging: u_t }\n    batch: {}\n",
            "`batch` belongs to `write: batch`",
        ),
        ("    write: import_set\n    import_set: { staging: a/b, prefix: '' }\n", "sinks.incidents.import_set.staging"),
        ("    write: import_set\n    import_set: { staging: t, coalesce: sys_id }\n", "the staging row's own"),
    ] {
        let wrong = complaints(&with(lines));
        assert!(wrong.contains(said), "{lines}: not said: {said}\n\n{wrong}");
    }
}

#[test]
fn events_have_rules_of_their_own_and_no_rows() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let lines = "    write: event\n    event: { size: 10 }\n    fields: { additional_info.team: x, metric_name: }\n";
    let config = read(&with(lines)).unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &config.sinks[0];
    let Write::Event { source, class, size, linger } = &sink.write else { panic!("no events") };
    assert_eq!((source.as_str(), class.as_str(), *size, linger.as_millis()), ("nowbridge", "incidents", 10, 100));
    assert_eq!((sink.table.as_str(), sink.settings.states.column.as_str()), ("em_event", "severity"));
    assert!(sink.settings.whole && sink.settings.row_freshness == u64::MAX, "each says everything, nothing is read");
    assert_eq!(sink.settings.note_limit, 2_000);
    let columns: Vec<String> = sink.mapping.columns().iter().map(ToString::to_string).collect();
    for (column, is) in [("severity", true), ("additional_info.team", true), ("metric_name", false), ("impact", false)]
    {
        assert_eq!(columns.iter().any(|known| known == column), is, "{column}: {columns:?}");
    }
    for (lines, said) in [
        ("    event: {}\n", "`event` belongs to `write: event`"),
        ("    write: event\n    row_freshness: 1m\n", "`row_freshness` has no meaning for `write: event`"),
        ("    write: event\n    people: { node: keep }\n", "`people` has no meaning"),
        ("    write: event\n    states: { new: 1 }\n", "`states` has no meaning"),
        ("    write: event\n    table: incident\n", "events go to `em_event`"),
        ("    write: event\n    event: { source: '' }\n", "sinks.incidents.event.source"),
        ("    write: event\n    fields: { message_key: x }\n", "kept by the bridge"),
        ("    write: event\n    fields: { additional_info.note: x }\n", "kept by the bridge"),
        ("    write: event\n    fields: { additional_info.A: x }\n", "is no name of a ServiceNow table or column"),
        ("    fields: { additional_info.team: x }\n", "is no name of a ServiceNow table or column"),
    ] {
        let wrong = complaints(&with(lines));
        assert!(wrong.contains(said), "{lines}: not said: {said}\n\n{wrong}");
    }
}

#[test]
fn a_route_with_a_digest_has_two_internal_topics_and_a_table() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let config =
        read(&with("    digest: { group_by: \"{{ labels.service }}\" }\n")).unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &config.sinks[0];
    let digest = sink.digest.as_ref().expect("a digest");
    assert_eq!((sink.topic.as_str(), sink.reads(), digest.list), ("alerts", "nowbridge.incidents.digests", 20));
    assert_eq!(digest.grouped, "nowbridge.incidents.digests.grouped");
    assert_eq!(digest.table, "nowbridge.incidents.digests.groups");
    let groups: Vec<(String, String)> = sink.groups();
    assert_eq!(groups[2], ("nowbridge.incidents.digest".into(), digest.grouped.clone()));
    let all = complaints(&with("    copartitioned: true\n    digest: { group_by: shop, list: 0 }\n"));
    for told in ["sinks.incidents.copartitioned", "share one ticket", "sinks.incidents.digest.list"] {
        assert!(all.contains(told), "{told}: {all}");
    }
    let without = complaints(&with("    digest: { list: 5 }\n"));
    assert!(without.contains("group_by"), "{without}");
}

#[test]
fn a_rekeyed_route_reads_its_internal_topic() {
    let with = |lines: &str| MINIMAL.replace("    topic: alerts\n", &format!("    topic: alerts\n{lines}"));
    let plain = read(MINIMAL).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((plain.sinks[0].reads(), &plain.sinks[0].rekeyed), ("alerts", &None));
    let config = read(&with("    rekey: true\n")).unwrap_or_else(|errors| panic!("{errors}"));
    let sink = &config.sinks[0];
    assert_eq!((sink.topic.as_str(), sink.reads()), ("alerts", "nowbridge.incidents.rekeyed"));
    assert_eq!(sink.rekey_group(), "nowbridge.incidents.rekey");
    assert_eq!(sink.settings.marker_prefix, "nowbridge.incidents.rekeyed", "notes name positions of that topic");
    let both = complaints(&with("    rekey: true\n    copartitioned: true\n"));
    assert!(both.contains("sinks.incidents.rekey"), "{both}");
    let without = complaints(&with("    rekeyed: elsewhere\n"));
    assert!(without.contains("`rekeyed` belongs to `rekey: true`"), "{without}");
    let same = complaints(&with("    rekey: true\n    rekeyed: alerts\n"));
    assert!(same.contains("the topic `alerts` is already"), "{same}");
}
