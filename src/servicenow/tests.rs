//! The client over real sockets: an instance that answers as scripted, or does not.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::answer::Journal;
use crate::model::{Answer, Class};

/// What the scripted instance does with a request.
pub(super) enum Act {
    /// Answers: status line and headers, then the body.
    Say(&'static str, String),
    /// Closes the connection without a word.
    Cut,
    /// Never answers.
    Hang,
}

pub(super) fn say(status: &'static str, body: impl Into<String>) -> Act {
    Act::Say(status, body.into())
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub line: String,
    head: String,
    pub body: String,
}

impl Seen {
    fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

pub(super) struct Instance {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Instance {
    pub async fn start(script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, log, count) = (Arc::new(script), Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { url, seen, connections }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
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
    script: Arc<impl Fn(&Seen, usize) -> Act + Send + Sync>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = next(&mut stream, &mut buffer).await else { return };
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len()
        };
        match script(&request, number) {
            Act::Say(status, body) => {
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Cut => return,
            Act::Hang => std::future::pending::<()>().await,
        }
    }
}

async fn next(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
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
                return Some(Seen { line, head, body });
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

pub(super) fn result(of: &str) -> String {
    format!(r#"{{"result":{of}}}"#)
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

pub(super) fn failure(answer: &Answer) -> (Class, &str) {
    match answer {
        Answer::Failed(failure) => (failure.class, failure.code.as_str()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_create_is_one_post_and_its_row_is_checked() {
    let instance = Instance::start(|_, _| {
        let row = row("1", r#","impact":"2","correlation_display":"bridge""#);
        say("201 Created\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT", result(&row))
    })
    .await;
    let reply = instance.client().perform(0, create()).await;
    let Answer::Applied { row, warnings } = &reply.answer else { panic!("{reply:?}") };
    assert_eq!((row.sys_id.as_str(), row.number.as_str(), row.mod_count), (ID, "INC0010001", 3));
    assert_eq!((row.created_on, row.updated_on - row.created_on), (1_795_428_000, 1));
    assert_eq!(reply.instance_date, Some(1_795_428_000));
    assert_eq!(warnings, &[r#"impact: sent "1", stands "2""#]);
    let seen = instance.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].line.starts_with("POST /api/now/table/incident?sysparm_display_value=false&"), "{}", seen[0].line);
    assert!(seen[0].line.contains("sysparm_exclude_reference_link=true") && seen[0].line.contains("%2Cimpact "));
    assert!(seen[0].line.ends_with("HTTP/1.1") && seen[0].head.contains("accept-encoding: gzip"));
    assert_eq!(seen[0].body, r#"{"correlation_id":"Key","correlation_display":"bridge","impact":"1"}"#);
}

#[tokio::test]
async fn an_update_carries_its_notes_with_their_markers_in_one_entry() {
    let instance =
        Instance::start(|_, _| say("200 OK", result(&row("2", r#","short_description":"disk full""#)))).await;
    let reply = instance.client().perform(1, update()).await;
    let Answer::Applied { warnings, .. } = &reply.answer else { panic!("{reply:?}") };
    assert!(warnings.is_empty());
    let body: serde_json::Value = serde_json::from_str(&instance.seen()[0].body).unwrap();
    assert_eq!(body["work_notes"], "first\n[alerts/3/1.0]\n\nsecond\n[alerts/3/2.0]");
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_sent_is_a_doubt_with_its_transaction_ended() {
    let other_id = row("2", "").replace(ID, &"f".repeat(32));
    let other_key = row("1", "").replace("\"Key\"", "\"key\"");
    let hidden = row("2", "").replace("\"sys_updated_on\"", "\"x\"");
    for (answer, request, code) in [
        (row("6", ""), update(), "state_differs"),
        (other_id, update(), "row_differs"),
        (other_key, create(), "correlation_differs"),
        (hidden, update(), "columns_unreadable"),
    ] {
        let instance = Instance::start(move |_, _| say("200 OK", result(&answer))).await;
        let reply = instance.client().perform(0, request).await;
        assert_eq!(failure(&reply.answer), (Class::Ambiguous { ended: true }, code));
    }
}

#[tokio::test]
async fn only_a_connection_that_was_never_made_is_certain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(Connection::new(closed, "incident", basic("pw")), clock).unwrap();
    assert_eq!(failure(&client.perform(0, update()).await.answer), (Class::Unavailable, "connect"));

    let cut = Instance::start(|_, _| Act::Cut).await;
    let client = cut.client();
    assert_eq!(
        failure(&client.perform(0, update()).await.answer),
        (Class::Ambiguous { ended: false }, "connection_lost")
    );
    let read = Request::Read { sys_id: ID.into(), columns: Vec::new(), markers: Vec::new() };
    assert_eq!(failure(&client.perform(0, read).await.answer), (Class::Transient, "connection_lost"));
    assert_eq!(cut.seen().len(), 2, "one request, one attempt");
}

#[tokio::test]
async fn a_deadline_leaves_a_write_in_doubt_and_the_clock_is_read_after_it() {
    let instance = Instance::start(|_, _| Act::Hang).await;
    let client = instance.client_with(basic("pw"), |c| c.deadline = Duration::from_millis(100));
    let before = clock();
    let reply = client.perform(0, update()).await;
    assert_eq!(failure(&reply.answer), (Class::Ambiguous { ended: false }, "timeout"));
    assert!(reply.issued_at > before);
}

#[tokio::test]
async fn a_cut_answer_is_a_doubt_and_an_endless_one_is_not_read() {
    let instance = Instance::start(|_, n| match n {
        1 => Act::Say("200 OK\r\nContent-Encoding: gzip", "no gzip".into()),
        _ => say("200 OK", result(&row("2", &format!(r#","x":"{}""#, "x".repeat(4000))))),
    })
    .await;
    let client = instance.client_with(basic("pw"), |c| c.max_answer = 2_000);
    assert_eq!(failure(&client.perform(0, update()).await.answer).0, Class::Ambiguous { ended: false });
    assert_eq!(
        failure(&client.perform(0, update()).await.answer),
        (Class::Ambiguous { ended: false }, "answer_too_long")
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let instance = Instance::start(|_, _| say("302 Found\r\nLocation: /login.do", "")).await;
    let reply = instance.client().perform(0, update()).await;
    assert_eq!(failure(&reply.answer), (Class::Ambiguous { ended: false }, "redirected"));
    assert_eq!(instance.seen().len(), 1);
}

#[tokio::test]
async fn the_last_check_comes_before_any_byte() {
    let instance = Instance::start(|_, _| say("200 OK", result("{}"))).await;
    let reply = instance.client().perform_if(0, update(), || Err("the lease has ended".into())).await;
    assert_eq!(reply.answer, Answer::NotSent { reason: "the lease has ended".into() });
    assert_eq!(instance.seen().len(), 0);
}

#[tokio::test]
async fn a_slot_keeps_its_session_until_it_is_suspect() {
    let instance = Instance::start(|_, n| match n {
        1 => say("200 OK\r\nSet-Cookie: JSESSIONID=one; Path=/", result(&row("2", ""))),
        2 => say("202 Accepted", ""),
        _ => say("200 OK", result(&row("2", ""))),
    })
    .await;
    let client = instance.client();
    for slot in [0, 0, 0, 1] {
        client.perform(slot, update()).await;
    }
    let cookies: Vec<bool> = instance.seen().iter().map(|s| s.head.contains("cookie: JSESSIONID=one")).collect();
    assert_eq!(cookies, [false, true, false, false]);
    assert_eq!(instance.connections.load(Ordering::SeqCst), 2, "one connection a slot");
}

#[tokio::test]
async fn a_wrong_password_is_tried_by_one_request_only() {
    let unauthorised =
        r#"{"error":{"message":"User Not Authenticated","detail":"no secret-password"},"status":"failure"}"#;
    let instance = Instance::start(move |_, _| say("401 Unauthorized", unauthorised)).await;
    let client = instance.client_with(basic("secret-password"), |c| c.slots = 8);
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..8 {
        let client = client.clone();
        tasks.spawn(async move { client.perform(slot, update()).await });
    }
    while let Some(reply) = tasks.join_next().await {
        let answer = reply.unwrap().answer;
        assert_eq!(failure(&answer), (Class::Unauthorised, "unauthorised"));
        assert!(!format!("{answer:?}").contains("secret-password"), "the instance's echo of a secret is scrubbed");
    }
    assert_eq!(instance.seen().len(), 1);
    assert!(!format!("{client:?}").contains("secret-password"));
}

fn lets_in_the_right_password(seen: &Seen, _: usize) -> Act {
    if seen.head.contains("bm93YnJpZGdlOnJpZ2h0") { say("200 OK", result(&row("2", ""))) } else { say("401 No", "") }
}

#[tokio::test]
async fn new_credentials_work_at_once() {
    let instance = Instance::start(lets_in_the_right_password).await;
    let client = instance.client_with(basic("wrong"), |_| {});
    assert_eq!(failure(&client.perform(0, update()).await.answer).0, Class::Unauthorised);
    client.replace_credentials(basic("right")).unwrap();
    assert!(matches!(client.perform(0, update()).await.answer, Answer::Applied { .. }));
}

#[tokio::test]
async fn a_refused_password_is_tried_four_times_for_all_its_clients_until_a_person_or_a_new_one_comes() {
    let instance = Instance::start(lets_in_the_right_password).await;
    let first = instance.client_with(basic("wrong"), |c| c.login_pause = Duration::ZERO);
    let second = Client::sharing(first.connection().clone(), clock, &first.credentials()).unwrap();
    let refused = async |client: &Client| match client.perform(0, update()).await.answer {
        Answer::Failed(failure) => (failure.class, failure.message),
        other => panic!("{other:?}"),
    };
    for client in [&first, &second, &first, &second, &first] {
        assert_eq!(refused(client).await.0, Class::Unauthorised);
    }
    assert_eq!(instance.seen().len(), 4, "the fifth would lock the account");
    assert!(refused(&second).await.1.contains("nowbridge resume"));
    second.try_again();
    refused(&first).await;
    refused(&first).await;
    assert_eq!(instance.seen().len(), 5, "a person's word is good for one");
    first.replace_credentials(basic("wrong")).unwrap();
    refused(&first).await;
    assert_eq!(instance.seen().len(), 5, "the same password is not a new one");
    first.replace_credentials(basic("right")).unwrap();
    assert!(matches!(second.perform(0, update()).await.answer, Answer::Applied { .. }));
}

#[tokio::test]
async fn a_refused_password_is_not_tried_again_at_once() {
    let instance = Instance::start(|_, _| say("401 No", "")).await;
    let client = instance.client_with(basic("wrong"), |_| {});
    for _ in 0..3 {
        assert_eq!(failure(&client.perform(0, update()).await.answer).0, Class::Unauthorised);
    }
    assert_eq!(instance.seen().len(), 1);
}

/// Answers token requests with `token-<n>` and rows to the newest token only.
fn token_server(life: u64) -> impl Fn(&Seen, usize) -> Act + Send + Sync + 'static {
    let tokens = AtomicU64::new(0);
    move |seen, _| {
        if seen.path() == "/oauth_token.do" {
            let n = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            let token = format!(r#"{{"access_token":"token-{n}","token_type":"Bearer","expires_in":{life}}}"#);
            return say("200 OK", token);
        }
        say("200 OK", result(&row("2", "")))
    }
}

#[tokio::test]
async fn one_token_is_fetched_for_all() {
    let instance = Instance::start(token_server(1800)).await;
    let client = instance.client_with(oauth(), |c| c.slots = 8);
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..8 {
        let client = client.clone();
        tasks.spawn(async move { client.perform(slot, update()).await });
    }
    while let Some(reply) = tasks.join_next().await {
        assert!(matches!(reply.unwrap().answer, Answer::Applied { .. }));
    }
    let seen = instance.seen();
    let asked: Vec<&Seen> = seen.iter().filter(|s| s.path() == "/oauth_token.do").collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body, "grant_type=client_credentials&client_id=id&client_secret=client-secret");
    assert_eq!(seen.iter().filter(|s| s.head.contains("authorization: Bearer token-1")).count(), 8);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let tokens = token_server(1800);
    let instance = Instance::start(move |seen, n| {
        if seen.head.contains("Bearer token-1") && n > 2 || seen.head.contains("Bearer token-3") {
            say("401 Unauthorized", "{}")
        } else {
            tokens(seen, n)
        }
    })
    .await;
    let client = instance.client_with(oauth(), |_| {});
    assert!(matches!(client.perform(0, update()).await.answer, Answer::Applied { .. }));
    // The token was revoked: certain, and the next request brings a new one.
    assert_eq!(failure(&client.perform(0, update()).await.answer), (Class::Transient, "token_refused"));
    assert!(matches!(client.perform(0, update()).await.answer, Answer::Applied { .. }));
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_stops_it() {
    let tokens = token_server(1800);
    let instance = Instance::start(
        move |seen, n| if seen.head.contains("Bearer") { say("401 No", "{}") } else { tokens(seen, n) },
    )
    .await;
    let client = instance.client_with(oauth(), |_| {});
    assert_eq!(failure(&client.perform(0, update()).await.answer), (Class::Transient, "token_refused"));
    assert_eq!(failure(&client.perform(0, update()).await.answer), (Class::Unauthorised, "unauthorised"));
    assert_eq!(failure(&client.perform(0, update()).await.answer), (Class::Unauthorised, "unauthorised"));
}

#[tokio::test]
async fn a_wrong_client_secret_is_unauthorised_and_nothing_is_written() {
    let refusal = r#"{"error_description":"access_denied","error":"server_error"}"#;
    let instance = Instance::start(move |_, _| say("401 Unauthorized", refusal)).await;
    let client = instance.client_with(oauth(), |_| {});
    assert_eq!(failure(&client.perform(0, update()).await.answer), (Class::Unauthorised, "oauth"));
    assert_eq!(instance.seen().len(), 1);
}

#[tokio::test]
async fn a_find_asks_for_the_correlation_and_gives_the_oldest_first() {
    let older = row("7", "").replace(ID, &"a".repeat(32)).replace("10:00:00", "09:00:00");
    let rows = format!("[{},{older},{}]", row("1", ""), row("1", "").replace("\"Key\"", "\"KEY\""));
    let instance = Instance::start(move |_, _| say("200 OK", result(&rows))).await;
    let find = Request::Find { correlation: "Key".into(), columns: vec!["impact".into()] };
    let reply = instance.client().perform(0, find).await;
    let Answer::Rows { rows, journal: None } = &reply.answer else { panic!("{reply:?}") };
    assert_eq!(rows.iter().map(|r| r.state.as_str()).collect::<Vec<_>>(), ["7", "1"]);
    let line = instance.seen()[0].line.clone();
    assert!(line.contains("&sysparm_query=correlation_id%3DKey%5EORDERBYDESCsys_created_on "), "{line}");
    let evil = Request::Find { correlation: "javascript:x".into(), columns: Vec::new() };
    assert_eq!(failure(&instance.client().perform(0, evil).await.answer), (Class::Rejected, "query_refused"));
}

/// What a read with a marker says, given `sys_journal_field`'s answer (a status line with headers, and a body) and
/// the row's own journal.
async fn journal(entries: (&'static str, &'static str), own: &'static str) -> Option<Journal> {
    let instance = Instance::start(move |seen, _| {
        if seen.path().starts_with("/api/now/table/sys_journal_field") {
            say(entries.0, entries.1.replace("$ID", ID))
        } else if seen.path().contains("sysparm_display_value=all") {
            say("200 OK", own.replace("$ID", ID))
        } else {
            say("200 OK", result(&row("2", "")))
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
async fn a_journal_look_counts_only_if_it_could_have_seen_something() {
    let found = Some(Journal::Read(vec!["[a/0/1.0]".into()]));
    let none = Some(Journal::Read(Vec::new()));
    let empty = ("200 OK\r\nX-Total-Count: 0", r#"{"result":[]}"#);
    let with = r#"{"result":[{"element_id":"$ID","element":"work_notes","value":"text\n[a/0/1.0]"}]}"#;
    let older = r#"{"result":[{"element_id":"$ID","element":"work_notes","value":"an older note"}]}"#;
    let stranger = r#"{"result":[{"element_id":"x","element":"work_notes","value":"[a/0/1.0]"}]}"#;
    let no_column = r#"{"result":{"sys_id":{"display_value":"$ID","value":"$ID"}}}"#;
    let own_empty =
        r#"{"result":{"sys_id":{"display_value":"$ID","value":"$ID"},"work_notes":{"display_value":"","value":""}}}"#;
    let own_with = r#"{"result":{"sys_id":{"display_value":"$ID","value":"$ID"},"work_notes":{"display_value":"2026 - x (Work notes)\ntext\n[a/0/1.0]\n\n","value":""}}}"#;
    let forbidden =
        ("403 Forbidden", r#"{"error":{"message":"Insufficient rights","detail":null},"status":"failure"}"#);

    assert_eq!(journal(("200 OK", with), no_column).await, found, "an entry with the marker");
    assert_eq!(journal(("200 OK", older), no_column).await, none, "an older entry shows that we can see");
    assert_eq!(
        journal(empty, no_column).await,
        Some(Journal::Inconclusive),
        "nothing shown, and the own journal hidden"
    );
    assert_eq!(journal(empty, own_with).await, found, "hidden by its ACL, but the row shows it");
    assert_eq!(journal(empty, own_empty).await, none, "both agree that there is none");
    let hidden = ("200 OK\r\nX-Total-Count: 2", r#"{"result":[]}"#);
    assert_eq!(journal(hidden, own_empty).await, Some(Journal::Inconclusive), "two entries are counted, none is shown");
    assert_eq!(
        journal(("200 OK\r\nX-Total-Count: 2", older), no_column).await,
        Some(Journal::Inconclusive),
        "one of two"
    );
    assert_eq!(journal(("200 OK", stranger), no_column).await, Some(Journal::Inconclusive), "another row's entries");
    assert_eq!(journal(forbidden, own_with).await, found, "no right to the journal table");
    assert_eq!(journal(forbidden, no_column).await, Some(Journal::Inconclusive));
}

#[tokio::test]
async fn a_page_with_an_error_in_it_is_no_page() {
    let instance = Instance::start(|_, n| match n {
        1 => say("200 OK\r\nX-Total-Count: 7", r#"{"result":[{"a":"1"}]}"#),
        2 => say("200 OK", r#"{"result":[{"a":"1"}],"error":{"message":"Transaction cancelled","detail":"x"}}"#),
        _ => say("200 OK", r#"{"result":[{"a":"1"},"#),
    })
    .await;
    let client = instance.client();
    let query = [("sysparm_query", "a=1^b=2 3".to_owned())];
    let page = client.get(0, "/api/now/table/problem", &query).await.unwrap();
    assert_eq!((page.rows.len(), page.total), (1, Some(7)));
    assert_eq!(instance.seen()[0].path(), "/api/now/table/problem?sysparm_query=a%3D1%5Eb%3D2%203");
    assert_eq!(client.get(0, "/api/now/table/problem", &query).await.unwrap_err().code, "spliced_error");
    assert_eq!(client.get(0, "/api/now/table/problem", &query).await.unwrap_err().code, "broken_answer");
}

#[test]
fn settings_that_cannot_work_are_refused_with_a_reason() {
    let make = |change: fn(&mut Connection)| {
        let mut connection = Connection::new("https://example.service-now.com/", "incident", basic("pw"));
        change(&mut connection);
        Client::new(connection, clock).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(make(|_| ()), Ok(()));
    for (change, part) in [
        ((|c| c.base_url = "example".into()) as fn(&mut Connection), "write it like https://"),
        (|c| c.base_url = "https://u:geheim@example.com".into(), "must not hold credentials"),
        (|c| c.table = "incident/../sys_user".into(), "not a name"),
        (|c| c.slots = 0, "at least 1"),
        (|c| c.auth = Auth::Basic { user: "a:b".into(), password: SecretString::from("x") }, "user name"),
        (|c| c.proxy = Some(SecretString::from("::geheim")), "proxy"),
        (|c| c.ca_file = Some("/nonexistent.pem".into()), "/nonexistent.pem"),
    ] {
        let error = make(change).unwrap_err();
        assert!(error.contains(part) && !error.contains("geheim"), "{error}");
    }
}
