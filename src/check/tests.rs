//! Tests of the checks, against the simulator.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::config;
use crate::runtime::clock;
use crate::servicenow::{Auth, Connection};
use crate::simulators;
use crate::simulators::servicenow::{CloseCodes, Simulator, User};

const PASSWORD: &str = "a-secret-word";

struct CheckFixture {
    running: simulators::servicenow::RunningSimulator,
    config: Config,
}

impl CheckFixture {
    /// Starts a simulator, with a configuration that has a sink and a source.
    async fn start(change: impl FnOnce(&mut simulators::servicenow::Options)) -> Self {
        let mut options = simulators::servicenow::Options {
            users: vec![
                User::new("bridge", PASSWORD, &["itil", "personalize_choices"]),
                User::new("admin", "admin", &["admin"]),
            ],
            oauth_clients: Vec::new(),
            ..simulators::servicenow::Options::default()
        };
        change(&mut options);
        let running = Simulator::start(options).await.expect("the simulator starts");
        let config = configuration(&running.url(), "Solution provided");
        Self { running, config }
    }

    /// Creates tickets with a work note, as an administrator.
    async fn tickets(self, count: usize) -> Self {
        for n in 0..count {
            let body = json!({"short_description": format!("ticket {n}"), "correlation_id": format!("key-{n}"),
                              "work_notes": "somebody looked"});
            let response = reqwest::Client::new()
                .post(format!("{}/api/now/table/incident", self.running.url()))
                .basic_auth("admin", Some("admin"))
                .json(&body)
                .send()
                .await
                .expect("a response");
            assert_eq!(response.status().as_u16(), 201);
        }
        self
    }

    async fn check(&self, write_probe: bool) -> Report {
        self.check_as(PASSWORD, write_probe).await
    }

    async fn check_as(&self, password: &str, write_probe: bool) -> Report {
        let client = |instance: &Instance, table: &str, state: &str| {
            let auth = Auth::Basic { user: instance.auth.user().into(), password: password.into() };
            let mut connection = Connection::new(instance.url.clone(), table, auth);
            connection.state_column = state.into();
            Client::new(connection, clock::mono).map_err(|error| error.to_string())
        };
        let context = CheckContext {
            config: &self.config,
            kafka: KafkaOptions::new("127.0.0.1:1"),
            client: &client,
            topics: &|_| Vec::new(),
            strictness: Strictness::default(),
            options: Options { write_probe, kafka_timeout: Duration::from_secs(1) },
        };
        check_instances(&context, &mut |_| {}).await
    }
}

fn configuration(url: &str, close_code: &str) -> Config {
    let text = format!(
        "instances:\n  test:\n    url: {url}\n    allow_http: true\n    auth:\n      basic: {{ user: bridge, \
         password: {PASSWORD} }}\nkafka:\n  bootstrap: localhost:9092\nsinks:\n  incidents:\n    topic: alerts\n    \
         closing:\n      close_code: {close_code}\nsources:\n  changes:\n    table: incident\n    fields: [state, \
         priority]\n"
    );
    config::parse(&text, Path::new("test.yaml"), &|_| None).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn outcome(report: &Report, id: &str) -> Outcome {
    report.find_check(id).unwrap_or_else(|| panic!("no check {id} in\n{report}")).outcome
}

#[track_caller]
fn detail<'a>(report: &'a Report, id: &str) -> &'a str {
    &report.find_check(id).unwrap_or_else(|| panic!("no check {id} in\n{report}")).detail
}

#[tokio::test]
async fn a_correctly_configured_instance_passes() {
    let fixture = CheckFixture::start(|_| {}).await.tickets(3).await;
    let report = fixture.check(false).await;
    assert!(report.is_ok(), "{report}");
    for id in [
        "instance.test.login",
        "instance.test.clock",
        "instance.test.user",
        "sink.incidents.read",
        "sink.incidents.columns",
        "sink.incidents.times",
        "sink.incidents.correlation",
        "sink.incidents.write",
        "sink.incidents.journal",
        "sink.incidents.states",
        "sink.incidents.close_code",
        "sink.incidents.choices",
        "source.changes.columns",
        "source.changes.journal",
    ] {
        assert_eq!(outcome(&report, id), Outcome::Pass, "{id}\n{report}");
    }
    // The only warning: the simulator has no TLS.
    assert_eq!(outcome(&report, "instance.test.reach"), Outcome::Warn);
    assert!(detail(&report, "sink.incidents.correlation").contains("ignored"), "{report}");
    // Nothing was written.
    assert_eq!(
        fixture.running.rows("incident", 0, 10)["rows"].as_array().map(Vec::len),
        Some(3),
        "no ticket was created"
    );
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_not_shown() {
    let fixture = CheckFixture::start(|options| options.settings.lockout_after = 2).await.tickets(1).await;
    let report = fixture.check_as("the-wrong-word", false).await;
    assert_eq!(outcome(&report, "instance.test.login"), Outcome::Fail, "{report}");
    assert_eq!(outcome(&report, "sink.incidents.table"), Outcome::Skipped, "{report}");
    assert_eq!(outcome(&report, "source.changes.table"), Outcome::Skipped, "{report}");
    assert!(!report.to_string().contains("the-wrong-word"), "{report}");
    // A second rejection would have locked the account.
    assert_eq!(outcome(&fixture.check(false).await, "instance.test.login"), Outcome::Pass);
}

#[tokio::test]
async fn a_hidden_journal_is_detected_although_it_looks_empty() {
    let fixture = CheckFixture::start(|options| options.faults.journal_unreadable = true).await.tickets(2).await;
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.journal"), Outcome::Warn, "{report}");
    assert!(detail(&report, "sink.incidents.journal").contains("used instead"), "{report}");
    assert_eq!(outcome(&report, "source.changes.journal"), Outcome::Fail, "{report}");
}

#[tokio::test]
async fn an_unreadable_journal_fails_the_sink() {
    let fixture = CheckFixture::start(|options| {
        options.faults.journal_unreadable = true;
        options.faults.hidden_columns = vec!["incident.work_notes".into(), "task.work_notes".into()];
    });
    let report = fixture.await.tickets(2).await.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.journal"), Outcome::Fail, "{report}");
}

#[tokio::test]
async fn missing_write_permission_is_detected_without_a_write() {
    let readers = |options: &mut simulators::servicenow::Options| {
        options.users[0] = User::new("bridge", PASSWORD, &["itil", "personalize_choices", "snc_read_only"]);
    };
    let fixture = CheckFixture::start(readers).await.tickets(1).await;
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.write"), Outcome::Fail, "{report}");
    assert!(!report.is_ok());
}

#[tokio::test]
async fn an_unknown_close_code_fails() {
    let mut fixture =
        CheckFixture::start(|options| options.faults.close_codes = CloseCodes::New).await.tickets(1).await;
    fixture.config = configuration(&fixture.running.url(), "Solved (Permanently)");
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.close_code"), Outcome::Fail, "{report}");
    assert!(detail(&report, "sink.incidents.close_code").contains("Solution provided"), "{report}");
}

#[tokio::test]
async fn unreadable_choices_are_a_warning() {
    let fixture = CheckFixture::start(|options| options.users[0] = User::new("bridge", PASSWORD, &["itil"]));
    let report = fixture.await.tickets(1).await.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.choices"), Outcome::Warn, "{report}");
    assert!(report.find_check("sink.incidents.choices").is_some_and(|c| c.remedy.contains("personalize_choices")));
}

#[tokio::test]
async fn hidden_columns_are_listed() {
    let hide = |columns: &'static [&'static str]| {
        move |options: &mut simulators::servicenow::Options| {
            let both = columns.iter().flat_map(|c| [format!("incident.{c}"), format!("task.{c}")]);
            options.faults.hidden_columns = both.collect();
        }
    };
    let fixture = CheckFixture::start(hide(&["close_notes"])).await.tickets(2).await;
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.columns"), Outcome::Warn, "{report}");
    assert!(detail(&report, "sink.incidents.columns").contains("close_notes"), "{report}");
    let fixture = CheckFixture::start(hide(&["correlation_id"])).await.tickets(2).await;
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.columns"), Outcome::Fail, "{report}");
}

#[tokio::test]
async fn clock_and_time_zone_are_checked() {
    let fixture = CheckFixture::start(|options| {
        options.settings.clock_offset_seconds = 600;
        options.users[0].time_zone = "America/New_York".into();
    });
    let report = fixture.await.tickets(1).await.check(false).await;
    assert_eq!(outcome(&report, "instance.test.clock"), Outcome::Warn, "{report}");
    assert!(detail(&report, "instance.test.clock").contains("ahead of"), "{report}");
    assert_eq!(outcome(&report, "instance.test.user"), Outcome::Warn, "{report}");
    assert!(report.is_ok(), "the bridge can run with both\n{report}");
}

#[tokio::test]
async fn an_empty_table_is_a_warning_and_skips_checks_that_need_a_row() {
    let report = CheckFixture::start(|_| {}).await.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.read"), Outcome::Warn, "{report}");
    assert_eq!(outcome(&report, "sink.incidents.times"), Outcome::Skipped, "{report}");
    assert_eq!(outcome(&report, "sink.incidents.correlation"), Outcome::Skipped, "{report}");
}

#[tokio::test]
async fn a_hibernating_instance_does_not_count_as_reached() {
    let fixture = CheckFixture::start(|options| options.faults.hibernating = true).await;
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "instance.test.reach"), Outcome::Fail, "{report}");
    assert_eq!(outcome(&report, "instance.test.login"), Outcome::Skipped, "{report}");
}

#[tokio::test]
async fn the_write_probe_leaves_one_resolved_ticket() {
    let fixture = CheckFixture::start(|_| {}).await;
    let report = fixture.check(true).await;
    for id in ["create", "find", "note", "resolve"] {
        assert_eq!(outcome(&report, &format!("sink.incidents.probe.{id}")), Outcome::Pass, "{report}");
    }
    let rows = fixture.running.rows("incident", 0, 10);
    let rows = rows["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["state"], "6", "{}", rows[0]);
}

#[tokio::test]
async fn the_write_probe_detects_a_wrong_close_code() {
    let mut fixture = CheckFixture::start(|options| options.faults.close_codes = CloseCodes::New).await;
    fixture.config = configuration(&fixture.running.url(), "Solved (Permanently)");
    let report = fixture.check(true).await;
    assert_eq!(outcome(&report, "sink.incidents.probe.resolve"), Outcome::Fail, "{report}");
    assert!(detail(&report, "sink.incidents.probe.resolve").contains("close it manually"), "{report}");
}

#[tokio::test]
async fn the_instance_date_is_read_only_with_valid_credentials() {
    let fixture = CheckFixture::start(|options| options.settings.clock_offset_seconds = -3_600).await;
    let client = |password: &str| {
        let auth = Auth::Basic { user: "bridge".into(), password: password.into() };
        Client::new(Connection::new(fixture.running.url(), "incident", auth), clock::mono).expect("a client")
    };
    let date = instance_date(&client(PASSWORD)).await.expect("a date");
    assert!((date - (clock::unix() / 1000 - 3_600)).abs() < 30, "{date}");
    assert_eq!(instance_date(&client("wrong")).await, None);
    let login = log_in(&client(PASSWORD)).await.expect("a login");
    assert_eq!(login.user.map(|user| user.sys_id.len()), Some(32));
}

#[tokio::test]
async fn an_unreachable_cluster_fails_and_the_instances_are_still_checked() {
    let fixture = CheckFixture::start(|_| {}).await.tickets(1).await;
    let client = |_: &Instance, _: &str, _: &str| Err("no client in this test".to_owned());
    let context = CheckContext {
        config: &fixture.config,
        kafka: KafkaOptions::new("127.0.0.1:1"),
        client: &client,
        topics: &|_| Vec::new(),
        strictness: Strictness::default(),
        options: Options { write_probe: false, kafka_timeout: Duration::from_secs(1) },
    };
    let mut finished = BTreeSet::new();
    let report = check(&context, &mut |progress| {
        if let Progress::Finished(check) = progress {
            finished.insert(check.id.clone());
        }
    })
    .await;
    assert_eq!(outcome(&report, "kafka.reach"), Outcome::Fail, "{report}");
    assert_eq!(outcome(&report, "kafka.topics"), Outcome::Skipped, "{report}");
    assert_eq!(outcome(&report, "instance.test.client"), Outcome::Fail, "{report}");
    assert_eq!(finished.len(), report.checks.len(), "each check is reported when it is finished");
}

#[test]
fn the_table_is_aligned_and_wrapped() {
    let check = |id: &str, outcome, detail: &str, remedy: &str| Check {
        id: id.into(),
        title: format!("about {id}"),
        outcome,
        detail: detail.into(),
        remedy: remedy.into(),
    };
    let report = Report {
        checks: vec![
            check("kafka.reach", Outcome::Pass, "1 broker", ""),
            check("sink.incidents.close_code", Outcome::Fail, &"many words ".repeat(20), "set it"),
        ],
    };
    let text = report.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("ok       kafka.reach                about kafka.reach"), "{text}");
    assert!(lines[2].starts_with("FAIL     sink.incidents.close_code  about"), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("fix: set it"), "{text}");
    assert!(text.ends_with("1 ok, 0 warnings, 1 failed, 0 skipped\n"), "{text}");
}

#[tokio::test]
async fn a_rejected_batch_api_is_detected_where_a_route_uses_it() {
    let mut fixture = CheckFixture::start(|_| {}).await.tickets(1).await;
    assert!(fixture.check(false).await.find_check("sink.incidents.batch").is_none(), "the route does not use batches");
    fixture.config.sinks[0].write = config::Write::Batch { size: 20, linger: Duration::ZERO };
    assert_eq!(outcome(&fixture.check(false).await, "sink.incidents.batch"), Outcome::Pass);
    fixture.running.set_faults(&json!({"batch_forbidden": true})).expect("faults");
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.batch"), Outcome::Fail, "{report}");
    assert!(detail(&report, "sink.incidents.batch").contains("ACL"), "{report}");
}

#[tokio::test]
async fn a_staging_table_is_checked_and_written_only_on_request() {
    let mut fixture = CheckFixture::start(|_| {}).await.tickets(1).await;
    let write = |staging: &str, prefix: &str| config::Write::ImportSet {
        staging: staging.into(),
        prefix: prefix.into(),
        coalesce: "u_sys_id".into(),
    };
    fixture.config.sinks[0].write = write("u_nowbridge_incident", "u_");
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.staging"), Outcome::Pass, "{report}");
    assert_eq!(
        fixture.running.rows("u_nowbridge_incident", 0, 0)["total"],
        0,
        "nothing is staged without --write-probe"
    );
    let report = fixture.check(true).await;
    for id in ["probe.create", "probe.find", "probe.note", "probe.resolve"] {
        assert_eq!(outcome(&report, &format!("sink.incidents.{id}")), Outcome::Pass, "{report}");
    }
    assert_eq!(
        fixture.running.rows("u_nowbridge_incident", 0, 0)["total"],
        2,
        "one row to create the ticket, one to resolve it"
    );
    fixture.config.sinks[0].write = write("u_nowbridge_incident", "x_");
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.staging"), Outcome::Fail);
    assert!(detail(&report, "sink.incidents.staging").contains("x_short_description"), "{report}");
    fixture.config.sinks[0].write = write("u_no_such_table", "u_");
    assert_eq!(outcome(&fixture.check(false).await, "sink.incidents.staging"), Outcome::Fail);
}

#[tokio::test]
async fn events_are_checked_and_one_is_sent_only_on_request() {
    let mut fixture = CheckFixture::start(|options| options.users[0].roles = vec!["evt_mgmt_integration".into()]).await;
    let write = config::Write::Event { source: "s".into(), class: String::new(), size: 1, linger: Duration::ZERO };
    fixture.config.sinks[0].write = write;
    fixture.config.sinks[0].table = "em_event".into();
    fixture.config.sinks[0].settings.states.column = "severity".into();
    let report = fixture.check(false).await;
    assert_eq!(outcome(&report, "sink.incidents.send"), Outcome::Pass, "{report}");
    assert_eq!(fixture.running.rows("em_event", 0, 0)["total"], 0, "nothing is sent without --write-probe");
    let report = fixture.check(true).await;
    assert_eq!(outcome(&report, "sink.incidents.probe.event"), Outcome::Pass, "{report}");
    assert_eq!(fixture.running.rows("em_event", 0, 0)["total"], 1);
    assert_eq!(fixture.running.rows("em_alert", 0, 0)["total"], 0, "the test event creates no alert");
    let hidden = json!({"hidden_columns": ["em_event.additional_info"]});
    fixture.running.set_faults(&hidden).expect("faults");
    assert_eq!(outcome(&fixture.check(false).await, "sink.incidents.read"), Outcome::Fail);
}
