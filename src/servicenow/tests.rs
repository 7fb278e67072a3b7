//! Tests of the client over real sockets, against an instance with scripted responses.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::answer::Journal;
use crate::model::{Answer, FailureClass};

/// What the scripted instance does when it receives a request.
pub(super) enum Action {
    /// Responds with a status line and headers, and a body.
    Respond(&'static str, String),
    /// Closes the connection without a response.
    Disconnect,
    /// Never responds.
    Hang,
}

pub(super) fn respond(status: &'static str, body: impl Into<String>) -> Action {
    Action::Respond(status, body.into())
}

/// A request as received.
#[derive(Debug, Clone)]
pub(super) struct ReceivedRequest {
    pub line: String,
    head: String,
    pub body: String,
}

impl ReceivedRequest {
    fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

pub(super) struct Instance {
    url: String,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
    connections: Arc<AtomicUsize>,
}

impl Instance {
    pub async fn start(script: impl Fn(&ReceivedRequest, usize) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, log, count) = (Arc::new(script), Arc::clone(&received), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { url, received, connections }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.received.lock().unwrap().clone()
    }

    pub fn client(&self) -> Client {
        self.client_with(basic("secret-password"), |_| {})
    }

    fn client_with(&self, auth: Auth, change: impl FnOnce(&mut Connection)) -> Client {
        let mut connection = Connection::new(&self.url, "incident", auth);
        connection.deadline = Duration::from_secs(10);
        change(&mut connection);
        Client::new(connection, clock).unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<impl Fn(&ReceivedRequest, usize) -> Action + Send + Sync>,
    log: Arc<Mutex<Vec<ReceivedRequest>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await else { return };
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len()
        };
        match script(&request, number) {
            Action::Respond(status, body) => {
                let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
            }
            Action::Disconnect => return,
            Action::Hang => std::future::pending::<()>().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<ReceivedRequest> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok())
                })
                .unwrap_or(0_usize);
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                let line = head.lines().next().unwrap_or_default().to_owned();
                return Some(ReceivedRequest { line, head, body });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

fn clock() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

fn basic(password: &str) -> Auth {
    Auth::Basic { user: "nowbridge".into(), password: SecretString::from(password) }
}

fn oauth() -> Auth {
    Auth::ClientCredentials {
        client_id: "id".into(),
        client_secret: SecretString::from("client-secret"),
        token_url: None,
    }
}

pub(super) const ID: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn row(state: &str, extra: &str) -> String {
    format!(
        r#"{{"sys_id":"{ID}","number":"INC0010001","state":"{state}","correlation_id":"Key","sys_mod_count":"3","sys_updated_by":"nowbridge","sys_updated_on":"2026-11-23 10:00:01","sys_created_on":"2026-11-23 10:00:00"{extra}}}"#
    )
}

pub(super) fn result(value: &str) -> String {
    format!(r#"{{"result":{value}}}"#)
}

pub(super) fn update() -> Request {
    Request::Update {
        sys_id: ID.into(),
        fields: vec![("short_description".into(), "disk full".into()), ("state".into(), "2".into())],
        notes: vec![
            Note { text: "first".into(), marker: "[alerts/3/1.0]".into() },
            Note { text: "second".into(), marker: "[alerts/3/2.0]".into() },
        ],
    }
}

pub(super) fn create() -> Request {
    Request::Create {
        correlation: "Key".into(),
        correlation_display: "bridge".into(),
        fields: vec![("impact".into(), "1".into())],
        notes: Vec::new(),
    }
}

pub(super) fn failure(answer: &Answer) -> (FailureClass, &str) {
    match answer {
        Answer::Failed(failure) => (failure.class, failure.code.as_str()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_create_is_one_post_and_its_row_is_compared() {
    let instance = Instance::start(|_, _| {
        let row = row("1", r#","impact":"2","correlation_display":"bridge""#);
        respond("201 Created\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT", result(&row))
    })
    .await;
    let result = instance.client().perform(0, create()).await;
    let Answer::Applied { row, warnings } = &result.answer else { panic!("{result:?}") };
    assert_eq!((row.sys_id.as_str(), row.number.as_str(), row.mod_count), (ID, "INC0010001", 3));
    assert_eq!((row.created_on, row.updated_on - row.created_on), (1_795_428_000, 1));
    assert_eq!(result.instance_date, Some(1_795_428_000));
    assert_eq!(warnings, &[r#"impact: sent "1", stored "2""#]);
    let received = instance.received();
    assert_eq!(received.len(), 1);
    assert!(
        received[0].line.starts_with("POST /api/now/table/incident?sysparm_display_value=false&"),
        "{}",
        received[0].line
    );
    assert!(
        received[0].line.contains("sysparm_exclude_reference_link=true") && received[0].line.contains("%2Cimpact ")
    );
    assert!(received[0].line.ends_with("HTTP/1.1") && received[0].head.contains("accept-encoding: gzip"));
    assert_eq!(received[0].body, r#"{"correlation_id":"Key","correlation_display":"bridge","impact":"1"}"#);
}

#[tokio::test]
async fn an_update_carries_its_notes_with_their_markers_in_one_entry() {
    let instance =
        Instance::start(|_, _| respond("200 OK", result(&row("2", r#","short_description":"disk full""#)))).await;
    let result = instance.client().perform(1, update()).await;
    let Answer::Applied { warnings, .. } = &result.answer else { panic!("{result:?}") };
    assert!(warnings.is_empty());
    let body: serde_json::Value = serde_json::from_str(&instance.received()[0].body).unwrap();
    assert_eq!(body["work_notes"], "first\n[alerts/3/1.0]\n\nsecond\n[alerts/3/2.0]");
}

#[tokio::test]
async fn a_response_that_shows_another_record_is_ambiguous_with_its_transaction_ended() {
    let other_id = row("2", "").replace(ID, &"f".repeat(32));
    let hidden = row("2", "").replace("\"sys_updated_on\"", "\"x\"");
    for (answer, request, code) in [(other_id, update(), "row_differs"), (hidden, update(), "columns_unreadable")] {
        let instance = Instance::start(move |_, _| respond("200 OK", result(&answer))).await;
        let result = instance.client().perform(0, request).await;
        assert_eq!(failure(&result.answer), (FailureClass::Ambiguous { transaction_ended: true }, code));
    }
}

#[tokio::test]
async fn a_ticket_that_was_not_written_as_sent_is_known_all_the_same() {
    let instance = Instance::start(|_, _| respond("200 OK", result(&row("6", "")))).await;
    let answer = instance.client().perform(0, update()).await.answer;
    let Answer::Applied { row: written, warnings } = &answer else { panic!("{answer:?}") };
    assert_eq!(written.state, "6");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for stored in ["\"key\"", "\"\""] {
        let other = row("1", "").replace("\"Key\"", stored);
        let instance = Instance::start(move |_, _| respond("201 Created", result(&other))).await;
        let answer = instance.client().perform(0, create()).await.answer;
        let Answer::WithoutCorrelation { row: created, reason } = &answer else { panic!("{answer:?}") };
        assert_eq!(created.sys_id, ID);
        assert!(reason.starts_with("correlation_id: sent \"Key\", INC0010001 has"), "{reason}");
    }
}

#[tokio::test]
async fn only_a_failed_connect_is_certain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(Connection::new(closed, "incident", basic("pw")), clock).unwrap();
    assert_eq!(failure(&client.perform(0, update()).await.answer), (FailureClass::Unavailable, "connect"));

    let cut = Instance::start(|_, _| Action::Disconnect).await;
    let client = cut.client();
    assert_eq!(
        failure(&client.perform(0, update()).await.answer),
        (FailureClass::Ambiguous { transaction_ended: false }, "connection_lost")
    );
    let read = Request::Read { sys_id: ID.into(), columns: Vec::new(), markers: Vec::new() };
    assert_eq!(failure(&client.perform(0, read).await.answer), (FailureClass::Transient, "connection_lost"));
    assert_eq!(cut.received().len(), 2, "each request is sent once");
}

#[tokio::test]
async fn a_timeout_leaves_a_write_ambiguous_and_the_clock_is_read_after_it() {
    let instance = Instance::start(|_, _| Action::Hang).await;
    let client = instance.client_with(basic("pw"), |c| c.deadline = Duration::from_millis(100));
    let before = clock();
    let result = client.perform(0, update()).await;
    assert_eq!(failure(&result.answer), (FailureClass::Ambiguous { transaction_ended: false }, "timeout"));
    assert!(result.issued_at > before);
}

#[tokio::test]
async fn a_malformed_or_too_large_response_is_ambiguous() {
    let instance = Instance::start(|_, n| match n {
        1 => Action::Respond("200 OK\r\nContent-Encoding: gzip", "no gzip".into()),
        _ => respond("200 OK", result(&row("2", &format!(r#","x":"{}""#, "x".repeat(4000))))),
    })
    .await;
    let client = instance.client_with(basic("pw"), |c| c.max_response_bytes = 2_000);
    assert_eq!(
        failure(&client.perform(0, update()).await.answer).0,
        FailureClass::Ambiguous { transaction_ended: false }
    );
    assert_eq!(
        failure(&client.perform(0, update()).await.answer),
        (FailureClass::Ambiguous { transaction_ended: false }, "response_too_long")
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let instance = Instance::start(|_, _| respond("302 Found\r\nLocation: /login.do", "")).await;
    let result = instance.client().perform(0, update()).await;
    assert_eq!(failure(&result.answer), (FailureClass::Ambiguous { transaction_ended: false }, "redirected"));
    assert_eq!(instance.received().len(), 1);
}

#[tokio::test]
async fn the_final_check_runs_before_any_byte_is_sent() {
    let instance = Instance::start(|_, _| respond("200 OK", result("{}"))).await;
    let result = instance.client().perform_if(0, update(), || Err("the lease has ended".into())).await;
    assert_eq!(result.answer, Answer::NotSent { reason: "the lease has ended".into() });
    assert_eq!(instance.received().len(), 0);
}

#[tokio::test]
async fn a_slot_keeps_its_session_until_the_session_is_suspect() {
    let instance = Instance::start(|_, n| match n {
        1 => respond("200 OK\r\nSet-Cookie: JSESSIONID=one; Path=/", result(&row("2", ""))),
        2 => respond("202 Accepted", ""),
        _ => respond("200 OK", result(&row("2", ""))),
    })
    .await;
    let client = instance.client();
    for slot in [0, 0, 0, 1] {
        client.perform(slot, update()).await;
    }
    let cookies: Vec<bool> = instance.received().iter().map(|s| s.head.contains("cookie: JSESSIONID=one")).collect();
    assert_eq!(cookies, [false, true, false, false]);
    assert_eq!(instance.connections.load(Ordering::SeqCst), 2, "one connection per slot");
}

#[tokio::test]
async fn a_wrong_password_is_tried_by_one_request_only() {
    let unauthorized =
        r#"{"error":{"message":"User Not Authenticated","detail":"no secret-password"},"status":"failure"}"#;
    let instance = Instance::start(move |_, _| respond("401 Unauthorized", unauthorized)).await;
    let client = instance.client_with(basic("secret-password"), |c| c.slots = 8);
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..8 {
        let client = client.clone();
        tasks.spawn(async move { client.perform(slot, update()).await });
    }
    while let Some(result) = tasks.join_next().await {
        let answer = result.unwrap().answer;
        assert_eq!(failure(&answer), (FailureClass::Unauthorized, "unauthorized"));
        assert!(!format!("{answer:?}").contains("secret-password"), "a secret echoed by the instance is redacted");
    }
    assert_eq!(instance.received().len(), 1);
    assert!(!format!("{client:?}").contains("secret-password"));
}

fn accept_the_right_password(received: &ReceivedRequest, _: usize) -> Action {
    if received.head.contains("bm93YnJpZGdlOnJpZ2h0") {
        respond("200 OK", result(&row("2", "")))
    } else {
        respond("401 No", "")
    }
}

#[tokio::test]
async fn new_credentials_are_used_at_once() {
    let instance = Instance::start(accept_the_right_password).await;
    let client = instance.client_with(basic("wrong"), |_| {});
    assert_eq!(failure(&client.perform(0, update()).await.answer).0, FailureClass::Unauthorized);
    client.replace_credentials(basic("right")).unwrap();
    assert!(matches!(client.perform(0, update()).await.answer, Answer::Applied { .. }));
}

#[tokio::test]
async fn a_rejected_password_is_tried_four_times_by_all_clients_until_a_user_retries_or_replaces_it() {
    let instance = Instance::start(accept_the_right_password).await;
    let first = instance.client_with(basic("wrong"), |c| c.auth_retry_delay = Duration::ZERO);
    let second = Client::with_shared_credentials(first.connection().clone(), clock, &first.credentials()).unwrap();
    let rejection = async |client: &Client| match client.perform(0, update()).await.answer {
        Answer::Failed(failure) => (failure.class, failure.message),
        other => panic!("{other:?}"),
    };
    for client in [&first, &second, &first, &second, &first] {
        assert_eq!(rejection(client).await.0, FailureClass::Unauthorized);
    }
    assert_eq!(instance.received().len(), 4, "a fifth rejection would lock the account");
    assert!(rejection(&second).await.1.contains("nowbridge resume"));
    second.retry_credentials();
    rejection(&first).await;
    rejection(&first).await;
    assert_eq!(instance.received().len(), 5, "a user's request allows one attempt");
    first.replace_credentials(basic("wrong")).unwrap();
    rejection(&first).await;
    assert_eq!(instance.received().len(), 5, "the same password does not count as new");
    first.replace_credentials(basic("right")).unwrap();
    assert!(matches!(second.perform(0, update()).await.answer, Answer::Applied { .. }));
}

#[tokio::test]
async fn a_rejected_password_is_not_retried_immediately() {
    let instance = Instance::start(|_, _| respond("401 No", "")).await;
    let client = instance.client_with(basic("wrong"), |_| {});
    for _ in 0..3 {
        assert_eq!(failure(&client.perform(0, update()).await.answer).0, FailureClass::Unauthorized);
    }
    assert_eq!(instance.received().len(), 1);
}

/// Responds to token requests with `token-<n>`, and to other requests with a row.
fn token_server(lifetime: u64) -> impl Fn(&ReceivedRequest, usize) -> Action + Send + Sync + 'static {
    let tokens = AtomicU64::new(0);
    move |received, _| {
        if received.path() == "/oauth_token.do" {
            let n = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            let token = format!(r#"{{"access_token":"token-{n}","token_type":"Bearer","expires_in":{lifetime}}}"#);
            return respond("200 OK", token);
        }
        respond("200 OK", result(&row("2", "")))
    }
}

#[tokio::test]
async fn one_token_is_fetched_for_all_requests() {
    let instance = Instance::start(token_server(1800)).await;
    let client = instance.client_with(oauth(), |c| c.slots = 8);
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..8 {
        let client = client.clone();
        tasks.spawn(async move { client.perform(slot, update()).await });
    }
    while let Some(result) = tasks.join_next().await {
        assert!(matches!(result.unwrap().answer, Answer::Applied { .. }));
    }
    let received = instance.received();
    let token_requests: Vec<&ReceivedRequest> = received.iter().filter(|s| s.path() == "/oauth_token.do").collect();
    assert_eq!(token_requests.len(), 1);
    assert_eq!(token_requests[0].body, "grant_type=client_credentials&client_id=id&client_secret=client-secret");
    assert_eq!(received.iter().filter(|s| s.head.contains("authorization: Bearer token-1")).count(), 8);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let tokens = token_server(1800);
    let instance = Instance::start(move |received, n| {
        if received.head.contains("Bearer token-1") && n > 2 || received.head.contains("Bearer token-3") {
            respond("401 Unauthorized", "{}")
        } else {
            tokens(received, n)
        }
    })
    .await;
    let client = instance.client_with(oauth(), |_| {});
    assert!(matches!(client.perform(0, update()).await.answer, Answer::Applied { .. }));
    // The token was revoked: the failure is certain, and the next request fetches a new one.
    assert_eq!(failure(&client.perform(0, update()).await.answer), (FailureClass::Transient, "token_rejected"));
    assert!(matches!(client.perform(0, update()).await.answer, Answer::Applied { .. }));
}

#[tokio::test]
async fn a_new_token_that_is_also_rejected_is_unauthorized() {
    let tokens = token_server(1800);
    let instance =
        Instance::start(
            move |received, n| {
                if received.head.contains("Bearer") { respond("401 No", "{}") } else { tokens(received, n) }
            },
        )
        .await;
    let client = instance.client_with(oauth(), |_| {});
    assert_eq!(failure(&client.perform(0, update()).await.answer), (FailureClass::Transient, "token_rejected"));
    assert_eq!(failure(&client.perform(0, update()).await.answer), (FailureClass::Unauthorized, "unauthorized"));
    assert_eq!(failure(&client.perform(0, update()).await.answer), (FailureClass::Unauthorized, "unauthorized"));
}

#[tokio::test]
async fn a_wrong_client_secret_is_unauthorized_and_nothing_is_written() {
    let rejection = r#"{"error_description":"access_denied","error":"server_error"}"#;
    let instance = Instance::start(move |_, _| respond("401 Unauthorized", rejection)).await;
    let client = instance.client_with(oauth(), |_| {});
    assert_eq!(failure(&client.perform(0, update()).await.answer), (FailureClass::Unauthorized, "oauth"));
    assert_eq!(instance.received().len(), 1);
}

#[tokio::test]
async fn a_look_up_queries_the_correlation_and_returns_the_oldest_ticket_first() {
    let older = row("7", "").replace(ID, &"a".repeat(32)).replace("10:00:00", "09:00:00");
    let rows = format!("[{},{older},{}]", row("1", ""), row("1", "").replace("\"Key\"", "\"KEY\""));
    let instance = Instance::start(move |_, _| respond("200 OK", result(&rows))).await;
    let find = Request::Find { correlation: "Key".into(), columns: vec!["impact".into()] };
    let result = instance.client().perform(0, find).await;
    let Answer::Rows { rows, journal: None } = &result.answer else { panic!("{result:?}") };
    assert_eq!(rows.iter().map(|r| r.state.as_str()).collect::<Vec<_>>(), ["7", "1"]);
    let line = instance.received()[0].line.clone();
    assert!(line.contains("&sysparm_query=correlation_id%3DKey%5EORDERBYDESCsys_created_on "), "{line}");
    let script = Request::Find { correlation: "javascript:x".into(), columns: Vec::new() };
    assert_eq!(failure(&instance.client().perform(0, script).await.answer), (FailureClass::Rejected, "query_rejected"));
}

#[tokio::test]
async fn many_tickets_are_read_by_one_request_and_others_in_the_response_are_ignored() {
    let other = "b".repeat(32);
    let inactive = row("17", "").replace(r#""number""#, r#""active":"false","number""#);
    let rows = format!("[{inactive},{}]", row("1", "").replace(ID, &other));
    let instance = Instance::start(move |_, _| respond("200 OK", result(&rows))).await;
    let sys_ids = vec![ID.to_owned(), "a".repeat(32)];
    let read = Request::ReadMany { sys_ids, columns: vec!["impact".into()] };
    let result = instance.client().perform(0, read).await;
    let Answer::Rows { rows, journal: None } = &result.answer else { panic!("{result:?}") };
    assert_eq!(rows.iter().map(|r| (r.sys_id.as_str(), r.inactive)).collect::<Vec<_>>(), [(ID, true)]);
    let line = instance.received()[0].line.clone();
    let query = format!("&sysparm_limit=2&sysparm_query=sys_idIN{ID}%2C{}", "a".repeat(32));
    assert!(line.contains(&query), "{line}");
}

/// The journal that a read with a marker returns, given the response of `sys_journal_field` (status line with headers,
/// and body) and the row's own journal.
async fn journal(entries: (&'static str, &'static str), own: &'static str) -> Option<Journal> {
    let instance = Instance::start(move |received, _| {
        if received.path().starts_with("/api/now/table/sys_journal_field") {
            respond(entries.0, entries.1.replace("$ID", ID))
        } else if received.path().contains("sysparm_display_value=all") {
            respond("200 OK", own.replace("$ID", ID))
        } else {
            respond("200 OK", result(&row("2", "")))
        }
    })
    .await;
    let read = Request::Read { sys_id: ID.into(), columns: Vec::new(), markers: vec!["[a/0/1.0]".into()] };
    match instance.client().perform(0, read).await.answer {
        Answer::Rows { journal, .. } => journal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_journal_search_is_conclusive_only_if_entries_are_visible() {
    let found = Some(Journal::Read(vec!["[a/0/1.0]".into()]));
    let none = Some(Journal::Read(Vec::new()));
    let empty = ("200 OK\r\nX-Total-Count: 0", r#"{"result":[]}"#);
    let with_marker = r#"{"result":[{"element_id":"$ID","element":"work_notes","value":"text\n[a/0/1.0]"}]}"#;
    let older = r#"{"result":[{"element_id":"$ID","element":"work_notes","value":"an older note"}]}"#;
    let foreign = r#"{"result":[{"element_id":"x","element":"work_notes","value":"[a/0/1.0]"}]}"#;
    let no_column = r#"{"result":{"sys_id":{"display_value":"$ID","value":"$ID"}}}"#;
    let own_empty =
        r#"{"result":{"sys_id":{"display_value":"$ID","value":"$ID"},"work_notes":{"display_value":"","value":""}}}"#;
    let own_with = r#"{"result":{"sys_id":{"display_value":"$ID","value":"$ID"},"work_notes":{"display_value":"2026 - x (Work notes)\ntext\n[a/0/1.0]\n\n","value":""}}}"#;
    let forbidden =
        ("403 Forbidden", r#"{"error":{"message":"Insufficient rights","detail":null},"status":"failure"}"#);

    assert_eq!(journal(("200 OK", with_marker), no_column).await, found, "an entry with the marker");
    assert_eq!(journal(("200 OK", older), no_column).await, none, "an older entry shows that entries are visible");
    assert_eq!(
        journal(empty, no_column).await,
        Some(Journal::Inconclusive),
        "no entry is shown, and the row's own journal is hidden"
    );
    assert_eq!(journal(empty, own_with).await, found, "hidden by the table's ACL, but the row shows it");
    assert_eq!(journal(empty, own_empty).await, none, "both show that there is no entry");
    let hidden = ("200 OK\r\nX-Total-Count: 2", r#"{"result":[]}"#);
    assert_eq!(
        journal(hidden, own_empty).await,
        Some(Journal::Inconclusive),
        "two entries are counted, but none is shown"
    );
    assert_eq!(
        journal(("200 OK\r\nX-Total-Count: 2", older), no_column).await,
        Some(Journal::Inconclusive),
        "two entries are counted, but only one is shown"
    );
    assert_eq!(journal(("200 OK", foreign), no_column).await, Some(Journal::Inconclusive), "entries of another row");
    assert_eq!(journal(forbidden, own_with).await, found, "the user may not read the journal table");
    assert_eq!(journal(forbidden, no_column).await, Some(Journal::Inconclusive));
}

#[tokio::test]
async fn a_page_that_contains_an_error_is_a_failure() {
    let instance = Instance::start(|_, n| match n {
        1 => respond("200 OK\r\nX-Total-Count: 7", r#"{"result":[{"a":"1"}]}"#),
        2 => respond("200 OK", r#"{"result":[{"a":"1"}],"error":{"message":"Transaction cancelled","detail":"x"}}"#),
        _ => respond("200 OK", r#"{"result":[{"a":"1"},"#),
    })
    .await;
    let client = instance.client();
    let query = [("sysparm_query", "a=1^b=2 3".to_owned())];
    let page = client.get(0, "/api/now/table/problem", &query).await.unwrap();
    assert_eq!((page.rows.len(), page.total), (1, Some(7)));
    assert_eq!(instance.received()[0].path(), "/api/now/table/problem?sysparm_query=a%3D1%5Eb%3D2%203");
    assert_eq!(client.get(0, "/api/now/table/problem", &query).await.unwrap_err().code, "spliced_error");
    assert_eq!(client.get(0, "/api/now/table/problem", &query).await.unwrap_err().code, "broken_response");
}

#[test]
fn invalid_settings_are_rejected_with_a_reason() {
    let create_client = |change: fn(&mut Connection)| {
        let mut connection = Connection::new("https://example.service-now.com/", "incident", basic("pw"));
        change(&mut connection);
        Client::new(connection, clock).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(create_client(|_| ()), Ok(()));
    for (change, part) in [
        ((|c| c.base_url = "example".into()) as fn(&mut Connection), "use the form https://"),
        (|c| c.base_url = "https://u:geheim@example.com".into(), "must not contain credentials"),
        (|c| c.table = "incident/../sys_user".into(), "invalid table name"),
        (|c| c.slots = 0, "at least 1"),
        (|c| c.auth = Auth::Basic { user: "a:b".into(), password: SecretString::from("x") }, "user name"),
        (|c| c.proxy = Some(SecretString::from("::geheim")), "proxy"),
        (|c| c.ca_file = Some("/nonexistent.pem".into()), "/nonexistent.pem"),
    ] {
        let error = create_client(change).unwrap_err();
        assert!(error.contains(part) && !error.contains("geheim"), "{error}");
    }
}
