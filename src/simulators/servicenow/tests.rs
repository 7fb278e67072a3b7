//! The instance as a client sees it over HTTP.

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::*;

pub(super) struct Bench {
    pub running: RunningSimulator,
    client: Client,
}

impl Bench {
    pub async fn start(options: Options) -> Self {
        let running = Simulator::start(options).await.expect("the simulator starts");
        Self { running, client: Client::new() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.running.url());
        self.client.request(method, url).basic_auth("nowbridge", Some("nowbridge"))
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Response {
        self.request(method, path).json(body).send().await.expect("a response")
    }

    async fn get(&self, path: &str) -> Value {
        json_of(self.request(Method::GET, path).send().await.expect("a response")).await
    }

    pub async fn create(&self, body: &Value) -> Value {
        let response = self.send(Method::POST, TABLE, body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        json_of(response).await["result"].clone()
    }

    async fn patch(&self, row: &Value, body: &Value) -> Response {
        self.send(Method::PATCH, &format!("{TABLE}/{}", text(&row["sys_id"])), body).await
    }
}

const TABLE: &str = "/api/now/table/incident";

async fn json_of(response: Response) -> Value {
    response.json().await.expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn count(list: &Value) -> usize {
    list["result"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_create_returns_the_row_after_all_rules() {
    let url = Some("https://sim.example.com/".to_owned());
    let bench = Bench::start(Options { instance_url: url, ..Options::default() }).await;
    let long = "x".repeat(200);
    let body = json!({
        "short_description": long, "impact": "1", "urgency": "2", "priority": "5", "nonsense": "x",
        "contact_type": "carrier pigeon", "work_notes": "first", "caller_id": "nobody", "correlation_id": "k1",
    });
    let response = bench.send(Method::POST, "/api/now/v2/table/incident", &body).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    let cookies = response.headers().get_all("set-cookie").iter().count();
    assert!(cookies >= 5 && response.headers()["x-transaction-id"].len() == 12);
    let row = json_of(response).await["result"].clone();
    assert_eq!(location, format!("https://sim.example.com/api/now/v2/table/incident/{}", text(&row["sys_id"])));
    assert_eq!(text(&row["short_description"]).len(), 160);
    assert_eq!(row["priority"], "2");
    assert_eq!(row["contact_type"], "");
    assert_eq!(row["work_notes"], "");
    assert_eq!(row["number"], "INC0010001");
    assert_eq!((&row["sys_mod_count"], &row["state"], &row["incident_state"]), (&json!("0"), &json!("1"), &json!("1")));
    assert_eq!(row["caller_id"]["link"], "https://sim.example.com/api/now/v2/table/sys_user/nobody");
    assert_eq!(row.get("nonsense"), None);
    assert_eq!(row["sys_updated_by"], "nowbridge");
}

#[tokio::test]
async fn lists_are_paginated_with_total_and_links() {
    let bench = Bench::start(Options::default()).await;
    for at in 0..5 {
        bench.create(&json!({"correlation_id": format!("k{at}")})).await;
    }
    let path =
        format!("{TABLE}?sysparm_query=correlation_idSTARTSWITHk%5EORDERBYnumber&sysparm_limit=2&sysparm_offset=2");
    let response = bench.request(Method::GET, &path).send().await.expect("a response");
    assert_eq!(response.headers()["x-total-count"], "5");
    let link = response.headers()["link"].to_str().expect("text").to_owned();
    let base = format!(
        "{}{TABLE}?sysparm_query=correlation_idSTARTSWITHk%5EORDERBYnumber&sysparm_limit=2",
        bench.running.url()
    );
    let expected: Vec<String> = [("first", 0), ("prev", 0), ("next", 4), ("last", 4)]
        .iter()
        .map(|(rel, offset)| format!("<{base}&sysparm_offset={offset}>;rel=\"{rel}\""))
        .collect();
    assert_eq!(link, expected.join(","));
    let rows = json_of(response).await;
    assert_eq!((&rows["result"][0]["correlation_id"], count(&rows)), (&json!("k2"), 2));
    let single_page = bench.request(Method::GET, TABLE).send().await.expect("a response");
    assert!(single_page.headers().get("link").is_none());
    assert_eq!(count(&bench.get("/api/now/table/task?sysparm_fields=number,sys_class_name").await), 5);
}

#[tokio::test]
async fn an_unknown_query_term_is_dropped_and_an_empty_key_matches_rows_without_key() {
    let bench = Bench::start(Options::default()).await;
    bench.create(&json!({"correlation_id": "Key ONE"})).await;
    bench.create(&json!({})).await;
    let query = |query: &str| format!("{TABLE}?sysparm_query={query}");
    assert_eq!(count(&bench.get(&query("corelation_id=zzz")).await), 2);
    assert_eq!(count(&bench.get(&query("correlation_id=")).await), 1);
    assert_eq!(count(&bench.get(&query("correlation_id=key%20one%20")).await), 1);
    assert_eq!(bench.running.state()["dropped_query_terms"]["corelation_id=zzz"], 1);
    assert_eq!(
        bench
            .request(Method::GET, "/api/now/v1/table/incident?sysparm_query=number=x")
            .send()
            .await
            .expect("a response")
            .status(),
        404
    );
    assert_eq!(count(&bench.get("/api/now/v2/table/incident?sysparm_query=number=x").await), 0);
}

#[tokio::test]
async fn journal_columns_append_and_read_back_blank() {
    let bench = Bench::start(Options::default()).await;
    let row = bench.create(&json!({"work_notes": "one"})).await;
    let response = json_of(bench.patch(&row, &json!({"work_notes": "two", "comments": "hello"})).await).await;
    assert_eq!(response["result"]["work_notes"], "");
    assert_eq!(response["result"]["sys_mod_count"], "1");
    let id = text(&row["sys_id"]);
    let path = format!("/api/now/table/sys_journal_field?sysparm_query=element_id={id}%5Eelement=work_notes");
    assert_eq!(count(&bench.get(&path).await), 2);
    let shown = bench.get(&format!("{TABLE}/{id}?sysparm_display_value=true&sysparm_fields=work_notes")).await;
    let shown = text(&shown["result"]["work_notes"]).to_owned();
    assert!(shown.contains(" - nowbridge (Work notes)\ntwo\n\n"), "{shown}");
    assert!(shown.find("two") < shown.find("one"));
    bench.running.set_faults(&json!({"journal_unreadable": true})).expect("faults");
    assert_eq!(count(&bench.get(&path).await), 0);
}

#[tokio::test]
async fn resolving_needs_code_and_notes_and_sets_dates() {
    let faults = Faults { close_codes: CloseCodes::New, ..Faults::default() };
    let bench = Bench::start(Options { faults, ..Options::default() }).await;
    let row = bench.create(&json!({"assignment_group": "g", "assigned_to": "a"})).await;
    let rejected = bench.patch(&row, &json!({"state": "6", "close_code": "Solved (Permanently)"})).await;
    assert_eq!(rejected.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        json_of(rejected).await,
        json!({"error": {"message": "Operation Failed", "detail":
            "Data Policy Exception: \n\tThe following fields are mandatory: Resolution code, Close notes"},
            "status": "failure"})
    );
    let done = json!({"state": "6", "close_code": "Solution provided", "close_notes": "fixed"});
    let row = json_of(bench.patch(&row, &done).await).await["result"].clone();
    assert_eq!(
        (&row["incident_state"], &row["active"], &row["sys_mod_count"]),
        (&json!("6"), &json!("true"), &json!("1"))
    );
    assert_ne!(row["resolved_at"], "");
    let row = json_of(bench.patch(&row, &json!({"incident_state": "2"})).await).await["result"].clone();
    assert_eq!((&row["state"], &row["reopen_count"], &row["resolved_at"]), (&json!("2"), &json!("1"), &json!("")));
    let row = json_of(bench.patch(&row, &json!({"state": "7", "assignment_group": "h"})).await).await["result"].clone();
    assert_eq!((&row["active"], &row["assigned_to"]), (&json!("false"), &json!("")));
    assert_ne!(row["closed_at"], "");
    bench.patch(&row, &json!({"urgency": "1"})).await;
    assert_eq!(bench.running.state()["writes_to_closed_rows"], 1);
    let history = bench.running.history(text(&row["sys_id"]));
    let entries = history["entries"].as_array().expect("a list");
    let kinds: Vec<_> = entries.iter().map(|e| (e["applied"].clone(), e["state_after"].clone())).collect();
    assert_eq!(kinds[1], (json!(false), json!("")));
    assert_eq!(kinds[4], (json!(true), json!("7")));
    assert_eq!(entries[5]["closed_before"], true);
}

#[tokio::test]
async fn an_update_without_changes_leaves_the_row_as_it_is() {
    let bench = Bench::start(Options::default()).await;
    let row = bench.create(&json!({"short_description": "a"})).await;
    let same = json_of(bench.patch(&row, &json!({"short_description": "a", "urgency": 3})).await).await;
    assert_eq!(same["result"]["sys_mod_count"], "0");
    let log = bench.running.log(1, 10);
    assert_eq!((&log["entries"][0]["changed"], &log["entries"][0]["applied"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn errors_have_the_texts_of_a_real_instance() {
    let bench = Bench::start(Options::default()).await;
    let id = "0123456789abcdef0123456789abcdef";
    let cases = [
        (Method::GET, format!("{TABLE}/{id}"), 404, "No Record found"),
        (Method::PATCH, format!("{TABLE}/INC0010001"), 404, "No Record found"),
        (Method::GET, "/api/now/table/no_such".into(), 400, "Invalid table no_such"),
        (Method::GET, "/api/now/elsewhere".into(), 400, "Requested URI does not represent any resource"),
        (Method::POST, format!("{TABLE}/{id}"), 405, "Method not supported"),
        (Method::POST, "/api/now/table/sys_properties".into(), 403, "Operation Failed"),
    ];
    for (method, path, status, message) in cases {
        let response = bench.send(method, &path, &json!({})).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(json_of(response).await["error"]["message"], message, "{path}");
    }
    let broken = bench.request(Method::POST, TABLE).body("{\"a\":").send().await.expect("a response");
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    let large = bench.request(Method::POST, TABLE).body(vec![b' '; 10_485_761]).send().await;
    if let Ok(large) = large {
        let detail = json_of(large).await["error"]["detail"].clone();
        assert_eq!(
            detail,
            "Rejected large REST payload with content-length = 10485761 bytes. Max allowed: 10485760 bytes."
        );
    }
    let existing = bench.create(&json!({"sys_id": id})).await;
    assert_eq!(existing["sys_id"], id);
    let duplicate = json_of(bench.send(Method::POST, TABLE, &json!({"sys_id": id})).await).await;
    assert!(
        text(&duplicate["error"]["detail"]).starts_with("Unique Key violation detected by database (Duplicate entry")
    );
}

#[tokio::test]
async fn http_methods_behave_as_documented() {
    let bench = Bench::start(Options::default()).await;
    let first = bench.create(&json!([{"short_description": "first"}, {"short_description": "second"}])).await;
    assert_eq!(first["short_description"], "first");
    assert_eq!(bench.running.rows("incident", 0, 10)["total"], 1);
    let path = format!("{TABLE}/{}", text(&first["sys_id"]));
    let head = bench.request(Method::HEAD, &path).send().await.expect("a response");
    assert_eq!((head.status(), head.text().await.expect("text").len()), (StatusCode::OK, 0));
    let over = bench.request(Method::POST, &path).header("X-HTTP-Method-Override", "PATCH");
    let over = json_of(over.json(&json!({"urgency": "1"})).send().await.expect("a response")).await;
    assert_eq!(over["result"]["urgency"], "1");
    let no_response_body =
        bench.request(Method::PUT, &path).header("X-no-response-body", "true").json(&json!({"impact": "1"}));
    assert_eq!(no_response_body.send().await.expect("a response").text().await.expect("text"), "");
    let gone = bench.request(Method::DELETE, &path).send().await.expect("a response");
    assert_eq!((gone.status(), gone.text().await.expect("text").len()), (StatusCode::NO_CONTENT, 0));
    let audit = bench
        .get(&format!("/api/now/table/sys_audit_delete?sysparm_query=documentkey={}", text(&first["sys_id"])))
        .await;
    assert_eq!(audit["result"][0]["tablename"], "incident");
}

#[tokio::test]
async fn display_values_depend_on_mode_time_zone_and_labels() {
    let mut options = Options::default();
    let zone = "America/New_York";
    options.users.push(User { time_zone: zone.into(), ..User::new("ny", "ny", &["itil"]) });
    if jiff::tz::TimeZone::get(zone).is_err() {
        eprintln!("skipped: no time zone database on this host");
        return;
    }
    let bench = Bench::start(options).await;
    let url = format!("{}{TABLE}", bench.running.url());
    let body = json!({"state": "In Progress", "assigned_to": "Beth Anglin", "due_date": "2026-01-15 08:00:00"});
    let created = bench.client.post(format!("{url}?sysparm_input_display_value=true&sysparm_display_value=all"));
    let row = json_of(created.basic_auth("ny", Some("ny")).json(&body).send().await.expect("a response")).await;
    let row = &row["result"];
    assert_eq!(row["state"], json!({"display_value": "In Progress", "value": "2"}));
    assert_eq!(row["due_date"], json!({"display_value": "2026-01-15 08:00:00", "value": "2026-01-15 13:00:00"}));
    assert_eq!(row["assigned_to"]["display_value"], "Beth Anglin");
    let query = "?sysparm_query=due_date%3E%3Djavascript:gs.dateGenerate('2026-01-15','08:00:00')&sysparm_display_value=true&sysparm_fields=due_date,assigned_to,assigned_to.email,nope";
    let shown = bench.client.get(format!("{url}{query}")).basic_auth("ny", Some("ny"));
    let shown = json_of(shown.send().await.expect("a response")).await;
    let expected = json!({
        "due_date": "2026-01-15 08:00:00",
        "assigned_to": {"display_value": "Beth Anglin", "link": row["assigned_to"]["link"]},
        "assigned_to.email": "beth.anglin@example.com",
    });
    assert_eq!(shown["result"][0], expected);
}

#[tokio::test]
async fn wrong_passwords_lock_the_account() {
    let settings = Settings { unlock_after_seconds: None, sessions: false, ..Settings::default() };
    let bench = Bench::start(Options { settings, ..Options::default() }).await;
    for _ in 0..5 {
        let wrong = bench.client.get(format!("{}{TABLE}", bench.running.url())).basic_auth("nowbridge", Some("no"));
        let wrong = wrong.send().await.expect("a response");
        assert_eq!(wrong.headers()["www-authenticate"], "BASIC realm=\"Service-now\"");
        assert_eq!(
            json_of(wrong).await,
            json!({"error": {"message": "User Not Authenticated", "detail": "Required to provide Auth information"},
                "status": "failure"})
        );
    }
    let right = bench.request(Method::GET, TABLE).send().await.expect("a response");
    assert_eq!(right.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bench.running.state()["locked_accounts"], json!(["nowbridge"]));
}

#[tokio::test]
async fn token_requests_return_the_same_token_until_it_expires() {
    let settings = Settings { token_lifetime_seconds: 1, sessions: false, ..Settings::default() };
    let bench = Bench::start(Options { settings, ..Options::default() }).await;
    let url = format!("{}/oauth_token.do", bench.running.url());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "nowbridge-client"),
        ("client_secret", "nowbridge-secret"),
    ];
    let request_token =
        || async { json_of(bench.client.post(&url).form(&form).send().await.expect("a response")).await };
    let first = text(&request_token().await["access_token"]).to_owned();
    assert_eq!(request_token().await["access_token"], first.as_str());
    let with = |token: String| bench.client.get(format!("{}{TABLE}", bench.running.url())).bearer_auth(token).send();
    assert_eq!(with(first.clone()).await.expect("a response").status(), StatusCode::OK);
    let body = json!({"grant_type": "client_credentials", "client_id": "nowbridge-client", "client_secret": "nowbridge-secret"});
    let rejected = bench.client.post(&url).json(&body).send().await.expect("a response");
    assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(json_of(rejected).await, json!({"error_description": "access_denied", "error": "server_error"}));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while with(first.clone()).await.expect("a response").status() == StatusCode::OK {
        assert!(std::time::Instant::now() < deadline, "the token does not expire");
    }
    assert_ne!(request_token().await["access_token"], first.as_str());
}

#[tokio::test]
async fn a_shared_session_drops_requests_beyond_its_queue() {
    let bench = Bench::start(Options { latency: Latency { base_ms: 100, jitter_ms: 0 }, ..Options::default() }).await;
    let created = bench.send(Method::POST, TABLE, &json!({})).await;
    let cookie =
        created.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie").to_owned();
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(bench.request(Method::POST, TABLE).header("cookie", &cookie).json(&json!({})).send()))
        .collect();
    let mut dropped = 0;
    for call in calls {
        let response = call.await.expect("a task").expect("a response");
        if response.status() == StatusCode::ACCEPTED {
            assert_eq!(response.text().await.expect("text"), "");
            dropped += 1;
        }
    }
    assert!((5..=10).contains(&dropped), "{dropped}");
    assert_eq!(bench.running.rows("incident", 0, 0)["total"], 21 - dropped);
}

#[tokio::test]
async fn a_429_of_the_thread_limit_has_no_headers_and_one_of_a_rule_has() {
    let options = Options {
        latency: Latency { base_ms: 200, jitter_ms: 0 },
        api_int: ApiInt { threads: 1, queue: 1 },
        ..Options::default()
    };
    let bench = Bench::start(options).await;
    let calls: Vec<_> = (0..6).map(|_| tokio::spawn(bench.request(Method::GET, TABLE).send())).collect();
    let mut bare = 0;
    for call in calls {
        let response = call.await.expect("a task").expect("a response");
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(
                response.headers().get("retry-after").is_none()
                    && response.headers().get("x-ratelimit-limit").is_none()
            );
            bare += 1;
        }
    }
    assert!(bare >= 3, "{bare}");
    let rule: RateLimit = serde_json::from_value(json!({"requests": 2, "table": "incident"})).expect("a rule");
    let bench = Bench::start(Options { rate_limits: vec![rule], ..Options::default() }).await;
    let mut last = bench.request(Method::GET, TABLE).send().await.expect("a response");
    for _ in 0..2 {
        last = bench.request(Method::GET, TABLE).send().await.expect("a response");
    }
    assert_eq!(last.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(last.headers().contains_key("retry-after") && last.headers().contains_key("x-ratelimit-rule"));
    let body = json_of(last).await;
    assert_eq!(body["error"]["detail"], "Rate limit of 2 requests per hour for Table API exceeded");
}

#[tokio::test]
async fn faults_occur_before_or_after_the_commit_as_named() {
    let bench = Bench::start(Options::default()).await;
    let cases = [
        ("drop_after_commit", None, 1),
        ("drop_before_commit", None, 0),
        ("error_500_after_commit", Some(500), 1),
        ("error_500_before_commit", Some(500), 0),
        ("gateway_502_after_commit", Some(502), 1),
        ("gateway_504_before_commit", Some(504), 0),
        ("accepted_202", Some(202), 0),
        ("html_200", Some(200), 0),
        ("null_body", Some(201), 1),
        ("truncated_json", Some(201), 1),
    ];
    let mut rows = 0;
    for (name, status, commits) in cases {
        bench.running.set_faults(&json!({name: 1.0})).expect("faults");
        let response = bench.request(Method::POST, TABLE).json(&json!({})).send().await;
        assert_eq!(response.ok().map(|response| response.status().as_u16()), status, "{name}");
        rows += commits;
        assert_eq!(bench.running.rows("incident", 0, 0)["total"], rows, "{name}");
        assert_eq!(bench.running.state()["faults_injected"][name], 1, "{name}");
        bench.running.set_faults(&json!({name: 0.0})).expect("faults");
    }
    assert!(bench.running.set_faults(&json!({"no_such": 1})).is_err());
}

#[tokio::test]
async fn a_ghost_write_commits_after_its_connection_was_reset() {
    let bench = Bench::start(Options::default()).await;
    let faults = json!({"ghost": 1.0, "ghost_delay_ms": [300, 300], "max_occurrences": {"ghost": 1}});
    bench.running.set_faults(&faults).expect("faults");
    let response = bench.request(Method::POST, TABLE).json(&json!({"correlation_id": "g"})).send().await;
    assert!(response.map_or(true, |response| response.status() == StatusCode::GATEWAY_TIMEOUT));
    let lookup = format!("{TABLE}?sysparm_query=correlation_id=g");
    assert_eq!(count(&bench.get(&lookup).await), 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while count(&bench.get(&lookup).await) == 0 {
        assert!(std::time::Instant::now() < deadline, "the ghost write never committed");
    }
    let log = bench.running.log(0, 10);
    assert_eq!((&log["entries"][0]["ghost_write"], &log["length"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn list_queries_see_the_previous_version_of_a_delayed_row() {
    let bench = Bench::start(Options::default()).await;
    let row = bench.create(&json!({"correlation_id": "l", "urgency": "2"})).await;
    bench.running.set_faults(&json!({"delayed_visibility": 1.0, "visibility_delay_ms": [400, 400]})).expect("faults");
    bench.patch(&row, &json!({"urgency": "1"})).await;
    bench.create(&json!({"correlation_id": "m"})).await;
    let poll =
        format!("{TABLE}?sysparm_query=sys_updated_on%3E2020-01-01%2000:00:00%5EORDERBYsys_updated_on%5EORDERBYsys_id");
    let now = bench.get(&poll).await;
    assert_eq!((count(&now), &now["result"][0]["urgency"]), (1, &json!("2")));
    let one = bench.get(&format!("{TABLE}/{}", text(&row["sys_id"]))).await;
    assert_eq!(one["result"]["urgency"], "1");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while count(&bench.get(&poll).await) != 2 {
        assert!(std::time::Instant::now() < deadline, "the rows never became visible");
    }
}

#[tokio::test]
async fn user_edits_follow_the_same_rules() {
    let bench = Bench::start(Options::default()).await;
    bench.create(&json!({"correlation_id": "p"})).await;
    let rejected =
        bench.running.edit_as_user(&json!({"correlation_id": "p", "user": "david.loo", "set": {"state": "7"}}));
    assert!(rejected.is_err_and(|text| text.starts_with("Data Policy Exception")));
    let edit =
        json!({"correlation_id": "p", "user": "david.loo", "set": {"assigned_to": "david.loo"}, "work_notes": "mine"});
    let row = bench.running.edit_as_user(&edit).expect("a row");
    assert_eq!((&row["sys_updated_by"], &row["sys_mod_count"]), (&json!("david.loo"), &json!("1")));
    assert_eq!(
        (&row["assigned_to_name"], &row["journal"][0]["created_by"]),
        (&json!("David Loo"), &json!("david.loo"))
    );
    assert!(bench.running.edit_as_user(&json!({"correlation_id": "none", "set": {}})).is_err());
}

#[tokio::test]
async fn business_rules_abort_writes_and_set_columns() {
    let bench = Bench::start(Options::default()).await;
    let rules = json!({"business_rules": [
        {"name": "No storms", "column": "short_description", "contains": "storm", "abort": true},
        {"name": "Own group", "set": {"assignment_group": "abc"}},
    ]});
    bench.running.set_faults(&rules).expect("faults");
    let aborted = json_of(bench.send(Method::POST, TABLE, &json!({"short_description": "a Storm"})).await).await;
    let detail = text(&aborted["error"]["detail"]).to_owned();
    assert!(
        detail.starts_with("Operation against file 'incident' was aborted by Business Rule 'No storms^"),
        "{detail}"
    );
    assert!(detail.ends_with("'. Business Rule Stack:No storms"), "{detail}");
    assert_eq!(bench.create(&json!({})).await["assignment_group"]["value"], "abc");
}

#[tokio::test]
async fn the_page_and_the_faults_of_the_whole_instance() {
    let bench = Bench::start(Options::default()).await;
    let page = bench.request(Method::GET, "/").send().await.expect("a response");
    assert!(page.headers()["content-type"].to_str().expect("text").starts_with("text/html"));
    bench.running.set_faults(&json!({"unauthorized": true})).expect("faults");
    assert_eq!(bench.request(Method::GET, TABLE).send().await.expect("a response").status(), 401);
    bench.running.set_faults(&json!({"unauthorized": false, "hibernating": true})).expect("faults");
    let hibernating = bench.request(Method::GET, TABLE).send().await.expect("a response");
    assert_eq!(hibernating.status(), StatusCode::OK);
    assert!(hibernating.text().await.expect("text").contains("Hibernating Instance"));
    let faults = bench.client.delete(format!("{}/simulator/faults", bench.running.url())).send().await;
    assert_eq!(json_of(faults.expect("a response")).await["hibernating"], false);
    let address = bench.running.address();
    bench.running.shutdown().await;
    assert!(std::net::TcpStream::connect(address).is_err());
}
