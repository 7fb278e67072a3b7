//! The Table API: parses and executes requests, all synchronously under the lock of the data.
//!
//! Authentication and limits are in `router`, latency and faults in `transaction`.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use super::auth::Account;
use super::database::Database;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::query::{self, Condition, Query, Term};
use super::render::{self, DisplayMode, View};
use super::reply::Reply;
use super::row_selection::{PageBounds, select};
use super::rules::WriteError;
use super::schema::sys;
use super::table_storage::{collation_key, parse_sys_id};
use super::write::{Op, Write, execute};
use super::write_log::Via;

/// Largest accepted body in bytes (`glide.rest.max_content_length`).
pub(super) const MAX_BODY: usize = 10_485_760;

/// The interface that a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Table,
    /// The Import Set API; `table` is the staging table.
    Import,
    /// Event Management's inbound events; `table` is `em_event`.
    Events,
}

/// A request to `/api/now[/v1|/v2]/table/{table}[/{sys_id}]`, or to one of the other interfaces that write a row.
pub(super) struct TableRequest {
    /// After `X-HTTP-Method-Override`.
    pub method: &'static str,
    /// `""`, `"v1/"` or `"v2/"`.
    pub version: String,
    pub table: usize,
    pub table_name: &'static str,
    pub sys_id: Option<String>,
    pub path: String,
    pub params: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub account: Arc<Account>,
    /// `X-no-response-body`.
    pub no_response_body: bool,
    pub api: Api,
}

/// Decodes a query string or form.
pub(super) fn decode_form(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

impl TableRequest {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn is_true(&self, name: &str) -> bool {
        self.param(name) == Some("true")
    }

    pub fn is_write(&self) -> bool {
        !matches!(self.method, "GET" | "HEAD")
    }

    pub fn is_list(&self) -> bool {
        !self.is_write() && self.sys_id.is_none()
    }

    fn view(&self, instance: &Instance, database: &Database, faults: &Faults) -> View {
        let mode = match self.param("sysparm_display_value") {
            Some("true") => DisplayMode::Display,
            Some("all") => DisplayMode::Both,
            _ => DisplayMode::Raw,
        };
        let hidden = if self.account.is_admin() { &[] } else { faults.hidden_columns.as_slice() };
        View {
            mode,
            exclude_link: self.is_true("sysparm_exclude_reference_link"),
            link_base: format!("{}/api/now/{}table/", instance.url, self.version),
            zone: self.account.zone.clone(),
            columns: render::columns(database, self.table, self.param("sysparm_fields"), hidden),
        }
    }
}

fn no_record() -> Reply {
    Reply::error(404, "No Record found", Some(&WriteError::NoRecord.detail()))
}

/// Executes GET and HEAD.
pub(super) fn read(instance: &Instance, request: &TableRequest, faults: &Faults) -> Reply {
    let mut database = lock(&instance.database);
    match &request.sys_id {
        Some(sys_id) => read_record(instance, &database, request, faults, sys_id),
        None => read_list(instance, &mut database, request, faults),
    }
}

/// Whether all rows of the table are hidden from the caller.
fn table_hidden(instance: &Instance, request: &TableRequest, faults: &Faults) -> bool {
    if request.account.is_admin() {
        return false;
    }
    let name = request.table_name;
    let settings = &instance.options.settings;
    name == "sys_journal_field" && faults.journal_unreadable
        || name == "sys_choice" && settings.restrict_choices && !request.account.has_role("personalize_choices")
        || settings.admin_only_tables.iter().any(|table| table == name)
}

fn row_hidden(request: &TableRequest, faults: &Faults, sys_id: u128) -> bool {
    !request.account.is_admin() && faults.hidden_rows.iter().any(|hidden| parse_sys_id(hidden) == Some(sys_id))
}

fn read_record(
    instance: &Instance,
    database: &Database,
    request: &TableRequest,
    faults: &Faults,
    sys_id: &str,
) -> Reply {
    let found = parse_sys_id(sys_id)
        .filter(|id| !row_hidden(request, faults, *id) && !table_hidden(instance, request, faults))
        .and_then(|id| database.locate(request.table, id))
        .and_then(|at| database.stores[database.schema.tables[request.table].store].get(at));
    let Some(row) = found else { return no_record() };
    let mut body = b"{\"result\":".to_vec();
    render::row(database, &mut body, row, &request.view(instance, database, faults));
    body.push(b'}');
    Reply::json(200, body)
}

fn number(request: &TableRequest, name: &str, default: usize) -> Result<usize, Reply> {
    match request.param(name) {
        None | Some("") => Ok(default),
        Some(text) => text.trim().parse().map_err(|_| {
            Reply::error(
                400,
                "Invalid parameter value",
                Some(&format!("{name} must be a non-negative integer: {text}")),
            )
        }),
    }
}

fn list_query(database: &Database, request: &TableRequest) -> Query {
    if let Some(text) = request.param("sysparm_query") {
        return query::parse(&database.schema, request.table, text, &request.account.zone);
    }
    // Without `sysparm_query` the parameters are columns and values. Choices may be given by label.
    let mut group = Vec::new();
    for (name, value) in request.params.iter().filter(|(name, _)| !name.starts_with("sysparm_")) {
        let Some(path) = query::path(&database.schema, request.table, name) else { continue };
        let mut clause = vec![Term { path: path.clone(), condition: Condition::Equal(collation_key(value)) }];
        if let [col] = *path.as_slice() {
            let list = database.schema.choices(request.table, col).unwrap_or_default();
            let labeled = list.iter().filter(|(_, label)| collation_key(label) == collation_key(value));
            clause.extend(
                labeled.map(|(known, _)| Term { path: vec![col], condition: Condition::Equal(collation_key(known)) }),
            );
        }
        group.push(clause);
    }
    Query { groups: vec![group], ..Query::default() }
}

fn read_list(instance: &Instance, database: &mut Database, request: &TableRequest, faults: &Faults) -> Reply {
    let (limit, offset) = match (number(request, "sysparm_limit", 10_000), number(request, "sysparm_offset", 0)) {
        (Ok(limit), Ok(offset)) => (limit, offset),
        (Err(reply), _) | (_, Err(reply)) => return reply,
    };
    let query = list_query(database, request);
    instance.count_dropped_query_terms(&query.dropped);
    let returns_no_rows = instance.options.settings.invalid_query_returns_no_rows && !query.dropped.is_empty();
    let page = PageBounds { limit, offset, lookups_ignore_delay: faults.lookups_ignore_delay };
    let mut selection = select(database, request.table, &query, &page);
    if returns_no_rows {
        selection.rows.clear();
        selection.total = 0;
    }
    if selection.total == 0 && request.version == "v1/" {
        return no_record();
    }
    // Hidden rows are removed after the limit, so the page may be shorter than the limit.
    let is_table_hidden = table_hidden(instance, request, faults);
    let view = request.view(instance, database, faults);
    let mut body = Vec::with_capacity(64 + selection.rows.len() * 256);
    body.extend_from_slice(b"{\"result\":[");
    let mut first = true;
    for row in selection.rows.iter().filter(|row| !is_table_hidden && !row_hidden(request, faults, row.sys_id)) {
        if !std::mem::take(&mut first) {
            body.push(b',');
        }
        render::row(database, &mut body, row, &view);
    }
    body.extend_from_slice(b"]}");
    let mut reply = Reply::json(200, body);
    if !request.is_true("sysparm_no_count") {
        reply = reply.with("x-total-count", selection.total.to_string());
    }
    if !request.is_true("sysparm_suppress_pagination_header")
        && let Some(link) = links(instance, request, limit, offset, selection.total)
    {
        reply = reply.with("link", link);
    }
    reply
}

/// Characters that a query string does not encode. `^` and `=` within a value are encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');

/// Returns the `Link` header. It depends on offset, limit and total, not on the returned rows.
fn links(instance: &Instance, request: &TableRequest, limit: usize, offset: usize, total: usize) -> Option<String> {
    if limit == 0 || total <= limit && offset == 0 {
        return None;
    }
    let counted = !request.is_true("sysparm_no_count");
    let url = |offset: usize| {
        let mut url = format!("<{}{}?", instance.url, request.path);
        for (name, value) in request.params.iter().filter(|(name, _)| name != "sysparm_offset") {
            url.push_str(&utf8_percent_encode(name, UNRESERVED).to_string());
            url.push('=');
            url.push_str(&utf8_percent_encode(value, UNRESERVED).to_string());
            url.push('&');
        }
        format!("{url}sysparm_offset={offset}>")
    };
    let mut parts = vec![format!("{};rel=\"first\"", url(0))];
    if offset > 0 {
        parts.push(format!("{};rel=\"prev\"", url(offset.saturating_sub(limit))));
    }
    if offset + limit < total {
        parts.push(format!("{};rel=\"next\"", url(offset + limit)));
    }
    if counted {
        parts.push(format!("{};rel=\"last\"", url(total.saturating_sub(1) / limit * limit)));
    }
    Some(parts.join(","))
}

/// Parses a write and checks the caller's rights; executes nothing.
pub(super) fn prepare(
    request: &TableRequest,
    visibility_delay_ms: Option<u64>,
    faults: &Faults,
) -> Result<Write, Reply> {
    let target = match &request.sys_id {
        None => None,
        // Text that is no sys_id matches no row.
        Some(text) => Some(parse_sys_id(text).filter(|id| !row_hidden(request, faults, *id)).ok_or_else(no_record)?),
    };
    let op = match (request.method, target) {
        ("POST", None) => Op::Insert,
        ("PUT" | "PATCH", Some(id)) => Op::Update(id),
        ("DELETE", Some(id)) => Op::Delete(id),
        _ => return Err(Reply::error(405, "Method not supported", None)),
    };
    if !can_write(&request.account, request.table_name) {
        let operation = match op {
            Op::Insert => "Insert",
            Op::Update(_) => "Update",
            Op::Delete(_) => "Delete",
        };
        return Err(Reply::error(403, "Operation Failed", Some(&WriteError::Acl(operation).detail())));
    }
    let fields = if matches!(op, Op::Delete(_)) { Vec::new() } else { fields_of(&request.body)? };
    Ok(Write {
        op,
        method: request.method,
        table: request.table,
        fields,
        actor: request.account.actor,
        admin: request.account.is_admin(),
        via: Via::Rest,
        zone: request.account.zone.clone(),
        input_display_value: request.is_true("sysparm_input_display_value"),
        suppress_auto_sys_fields: request.is_true("sysparm_suppress_auto_sys_field"),
        visibility_delay_ms,
    })
}

fn can_write(account: &Account, table: &str) -> bool {
    if account.user.roles.iter().any(|role| role == "snc_read_only") {
        return false;
    }
    match table {
        "em_event" => account.has_role("evt_mgmt_integration") || account.has_role("itil"),
        table if table.starts_with("sys_") => account.is_admin(),
        _ => account.has_role("itil") || account.has_role("sn_incident_write"),
    }
}

/// Returns the names and text values of a body. Of an array only the first element counts, as on a real instance.
pub(super) fn fields_of(body: &[u8]) -> Result<Vec<(String, String)>, Reply> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Reply::error(400, "Exception while reading request", Some(&error.to_string())))?;
    let object = match value {
        Value::Object(object) => object,
        Value::Array(list) => match list.into_iter().next() {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        },
        _ => return Err(Reply::error(400, "Exception while reading request", Some("The payload is not valid JSON."))),
    };
    Ok(object.into_iter().map(|(name, value)| (name, as_text(value))).collect())
}

/// Converts a value to text. An object becomes what Java prints for a map, so `{link, value}` silently stores garbage.
pub(super) fn as_text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.into_iter().map(as_text).collect::<Vec<_>>().join(", ")),
        Value::Object(object) => {
            let pairs: Vec<_> = object.into_iter().map(|(name, value)| format!("{name}={}", as_text(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// Executes a prepared write. The response contains the record after all rules.
pub(super) fn execute_and_reply(instance: &Instance, request: &TableRequest, write: &Write, faults: &Faults) -> Reply {
    let mut database = lock(&instance.database);
    let at = match execute(&mut database, write, faults, &instance.options.settings) {
        Ok(Some(at)) => at,
        Ok(None) => return Reply { status: 204, ..Reply::default() },
        Err(error) => return write_error_reply(&error),
    };
    let Some(row) = database.stores[database.schema.tables[request.table].store].get(at) else { return no_record() };
    let mut reply = if request.no_response_body {
        Reply { status: 200, ..Reply::default() }
    } else {
        let mut body = b"{\"result\":".to_vec();
        render::row(&database, &mut body, row, &request.view(instance, &database, faults));
        body.push(b'}');
        Reply::json(200, body)
    };
    if write.op == Op::Insert {
        reply.status = 201;
        let id = database.raw(row, sys::ID);
        let location = format!("{}/api/now/{}table/{}/{id}", instance.url, request.version, request.table_name);
        reply = reply.with("location", location);
    }
    reply
}

pub(super) fn write_error_reply(error: &WriteError) -> Reply {
    match error {
        WriteError::NoRecord => no_record(),
        error => Reply::error(403, "Operation Failed", Some(&error.detail())),
    }
}
