//! Writes by the instance's Import Set API: a row in a staging table, from which a transform map writes a ticket.
//!
//! The map must coalesce on one staging column that contains the ticket's sys_id. An update puts the sys_id there; a
//! create leaves the column empty, so that the map always inserts. The response is 201 for every result of the
//! transform and contains neither the ticket's state nor its version. So the ticket is read afterwards, on the same
//! slot, and only a ticket that shows what was sent counts as applied. A row error that names no record wrote nothing;
//! one that names a record is classified by that record's content. A result that cannot be determined is ambiguous with
//! its transaction ended, since the response follows the transform. Several rows per call (`insertMultiple`) are not
//! used: by default the instance responds before it transforms them, so each of them would be ambiguous.

use reqwest::Method;
use serde::Deserialize;
use serde::ser::{SerializeMap, Serializer};

use crate::model::answer::Journal;
use crate::model::{Answer, Column, Failure, FailureClass, HttpMethod, Row};

use super::classify::{self, RequestKind, ambiguous, failure};
use super::client::{HttpResponse, RequestError};
use super::text::is_sys_id;
use super::{Client, Connection, Request, journal, request, row};

/// Settings of writes through a staging table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSet {
    pub staging: String,
    /// Prefix of the staging columns: `u_` for `u_` plus the ticket's column.
    pub prefix: String,
    /// The staging column on which the map coalesces; it contains the ticket's sys_id, or is empty for a new ticket.
    pub coalesce: String,
}

impl ImportSet {
    /// The staging column for a ticket's column.
    pub fn column(&self, column: &str) -> String {
        format!("{}{column}", self.prefix)
    }
}

/// The result of one transform map for a row.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TransformResult {
    table: Option<String>,
    status: Option<String>,
    sys_id: Option<String>,
    record_link: Option<String>,
    error_message: Option<String>,
    status_message: Option<String>,
}

impl TransformResult {
    fn status(&self) -> &str {
        self.status.as_deref().unwrap_or_default()
    }

    /// The sys_id of the ticket that the result names.
    fn record_id(&self) -> Option<&str> {
        let linked = self.record_link.as_deref().and_then(|link| link.rsplit('/').next());
        self.sys_id.as_deref().filter(|id| is_sys_id(id)).or(linked.filter(|id| is_sys_id(id)))
    }

    fn message(&self) -> String {
        let texts = [&self.error_message, &self.status_message];
        let messages: Vec<&str> =
            texts.into_iter().flatten().map(|text| text.trim()).filter(|t| !t.is_empty()).collect();
        if messages.is_empty() { "the instance gave no reason".into() } else { messages.join("; ") }
    }
}

impl Client {
    /// The table and method under which the instance's rate-limit rules count a request.
    pub fn rate_limit_scope(&self, method: HttpMethod) -> (&str, HttpMethod) {
        let connection = self.connection();
        match (&connection.import_set, method) {
            (Some(import), HttpMethod::Post | HttpMethod::Patch) => (&import.staging, HttpMethod::Post),
            (None, HttpMethod::Patch) if connection.events.is_some() => (&connection.table, HttpMethod::Post),
            _ => (&connection.table, method),
        }
    }

    /// Stages a row, and reads the ticket that it was transformed into.
    pub(super) async fn stage(
        &self,
        slot: usize,
        import: &ImportSet,
        request: &Request,
        may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
    ) -> Result<(Answer, Option<i64>), RequestError> {
        let mut body = Some(staging_row(self.connection(), import, request)?);
        let url = request::parse_url(&self.urls().path_url(&format!("/api/now/import/{}", import.staging), &[]))?;
        let body_source = &mut || may_send().map(|()| body.take());
        let response = self.send(slot, RequestKind::Create, Method::POST, url, body_source).await?;
        // The rate-limit headers of the ticket's read are those of another API.
        let staged = self.take_feedback(slot);
        let answer = self.transform_answer(slot, import, request, &response).await;
        if let Some(slot) = self.slot(slot) {
            slot.update_feedback(|read_back| {
                let requests = staged.requests + read_back.requests;
                let signal = read_back.signal.or(staged.signal);
                *read_back = crate::quota::LoadFeedback { requests, signal, ..staged };
            });
        }
        let date = response.head.date;
        answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
    }

    /// Classifies the response to a staged row.
    async fn transform_answer(
        &self,
        slot: usize,
        import: &ImportSet,
        request: &Request,
        response: &HttpResponse,
    ) -> Result<Answer, Failure> {
        let result = own_result(self.connection(), import, response)?;
        let update = match request {
            Request::Update { sys_id, .. } => Some(sys_id.as_str()),
            _ => None,
        };
        match (result.status(), update) {
            ("inserted", None) | ("updated", Some(_)) => match result.record_id() {
                Some(id) if update.is_none_or(|sys_id| sys_id == id) => {
                    let (row, _) = self.read_back(slot, request, id, false).await.map_err(read_back_failed)?;
                    self.applied(request, row, None)
                }
                Some(id) => {
                    let reason = format!("the row for {} was transformed into {id}", update.unwrap_or_default());
                    Err(ambiguous_ended("import_row_differs", &reason))
                }
                None => {
                    let reason = "the row was transformed, but the response does not name the ticket";
                    Err(ambiguous_ended("import_unnamed", reason))
                }
            },
            ("updated", None) => {
                let reason = format!(
                    "the row of a new ticket was written to an existing ticket: the transform map must coalesce on {} \
                     alone, and must not match where that column is empty",
                    import.coalesce
                );
                Err(failure(FailureClass::Rejected, "import_coalesced", &reason))
            }
            ("inserted", Some(sys_id)) => {
                let reason = format!(
                    "{sys_id} does not exist, and the transform map created a new ticket from its update; let the map \
                     ignore rows whose {} names no ticket",
                    import.coalesce
                );
                Err(failure(FailureClass::Gone, "import_recreated", &reason))
            }
            ("ignored" | "skipped", None) => Err(failure(FailureClass::Rejected, "import_ignored", &result.message())),
            ("ignored" | "skipped", Some(sys_id)) => self.ignored_update(slot, request, sys_id, &result).await,
            ("error", None) => self.failed_create(slot, request, &result).await,
            ("error", Some(sys_id)) => self.failed_update(slot, request, sys_id, &result).await,
            // A staging table in asynchronous mode has not transformed the row yet.
            (other, _) => {
                let reason = format!(
                    "the row's status is {other:?}: {}; set the staging table to transform synchronously",
                    result.message()
                );
                Err(ambiguous(RequestKind::Create, false, FailureClass::Transient, "import_status", &reason))
            }
        }
    }

    /// Classifies an ignored update: the ticket does not exist, it already has the values, or the map rejects the row.
    async fn ignored_update(
        &self,
        slot: usize,
        request: &Request,
        sys_id: &str,
        result: &TransformResult,
    ) -> Result<Answer, Failure> {
        let (row, _) = self.read_back(slot, request, sys_id, false).await?;
        if !markers(request).is_empty() {
            return Err(failure(FailureClass::Rejected, "import_ignored", &result.message()));
        }
        let warning = (compare_values(self.connection(), request, &row) != ValueMatch::All)
            .then(|| format!("the import row was ignored: {}", result.message()));
        let ignored = || failure(FailureClass::Rejected, "import_ignored", &result.message());
        let state = fields(request).iter().find(|(column, _)| **column == *self.connection().state_column);
        if state.is_some_and(|(_, sent)| *sent != row.state) {
            return Err(ignored());
        }
        // A rule of the instance may reset the values on every write; as with the Table API, that is a warning.
        self.applied(request, row, warning).map_err(|_| ignored())
    }

    /// Classifies a create with a row error. If it names a ticket, a script may have failed after the insert.
    async fn failed_create(&self, slot: usize, request: &Request, result: &TransformResult) -> Result<Answer, Failure> {
        let Some(id) = result.record_id() else { return Err(row_error(result)) };
        match self.read_back(slot, request, id, false).await {
            Ok((row, _)) => match row::compare(RequestKind::Create, self.connection(), request, row) {
                Ok(Answer::Applied { .. }) => {
                    let reason = format!("the row is in error, but {id} was created: {}", result.message());
                    Err(ambiguous_ended("import_error", &reason))
                }
                _ => Err(row_error(result)),
            },
            Err(failure) if failure.class == FailureClass::Gone => Err(row_error(result)),
            Err(failure) => Err(read_back_failed(failure)),
        }
    }

    /// Classifies an update with a row error: its marker or its values show whether it was written.
    async fn failed_update(
        &self,
        slot: usize,
        request: &Request,
        sys_id: &str,
        result: &TransformResult,
    ) -> Result<Answer, Failure> {
        let (row, journal) = match self.read_back(slot, request, sys_id, true).await {
            Ok(read) => read,
            Err(failure) if failure.class == FailureClass::Gone => return Err(failure),
            Err(failure) => return Err(read_back_failed(failure)),
        };
        let warning = Some(format!("the import row is in error, but was written: {}", result.message()));
        match (journal, compare_values(self.connection(), request, &row)) {
            (Some(Journal::Read(found)), _) if !found.is_empty() => self.applied(request, row, warning),
            (Some(Journal::Read(_)), _) | (_, ValueMatch::Differs) => Err(row_error(result)),
            (None, ValueMatch::All) => self.applied(request, row, warning),
            _ => Err(ambiguous_ended("import_error", &result.message())),
        }
    }

    /// Reads the ticket with the columns that were sent and, if requested, the markers of the request in its journal.
    async fn read_back(
        &self,
        slot: usize,
        request: &Request,
        sys_id: &str,
        with_markers: bool,
    ) -> Result<(Row, Option<Journal>), Failure> {
        let columns: Vec<Column> = fields(request).iter().map(|(column, _)| column.clone()).collect();
        let markers = if with_markers { markers(request) } else { Vec::new() };
        match journal::read(self, slot, sys_id, &columns, &markers, &mut || Ok(())).await {
            Ok((Answer::Rows { mut rows, journal }, _)) if rows.len() == 1 => Ok((rows.swap_remove(0), journal)),
            Ok(_) => Err(failure(FailureClass::Transient, "row_missing", "the read returned no record")),
            Err(RequestError::NotSent(reason)) => Err(failure(FailureClass::Transient, "not_sent", &reason)),
            Err(RequestError::Failed(failure, _)) => Err(failure),
        }
    }

    /// The answer to an applied write, whose row was read back.
    fn applied(&self, request: &Request, row: Row, warning: Option<String>) -> Result<Answer, Failure> {
        let kind = if matches!(request, Request::Update { .. }) { RequestKind::Update } else { RequestKind::Create };
        let mut answer = row::compare(kind, self.connection(), request, row)?;
        if let Answer::Applied { warnings, .. } = &mut answer {
            warnings.extend(warning);
        }
        Ok(answer)
    }
}

/// The result of the transform map that writes the route's table.
fn own_result(
    connection: &Connection,
    import: &ImportSet,
    response: &HttpResponse,
) -> Result<TransformResult, Failure> {
    let (head, body) = (&response.head, &response.body);
    if matches!(head.status, 200 | 201) && body.trim_ascii().is_empty() {
        let reason = format!(
            "the response is empty: the bridge's user must be able to read the staging table {}",
            import.staging
        );
        return Err(ambiguous_ended("import_unreadable", &reason));
    }
    let mut results = classify::parse_result::<Vec<TransformResult>>(RequestKind::Create, head, body)?;
    // A row in error may name no table.
    results.retain(|result| result.table.as_deref().is_none_or(|table| table.is_empty() || table == connection.table));
    match results.len() {
        1 => Ok(results.swap_remove(0)),
        0 => {
            let reason = format!(
                "no active transform map of {} wrote the table {} synchronously",
                import.staging, connection.table
            );
            Err(failure(FailureClass::Rejected, "import_no_map", &reason))
        }
        many => {
            let reason = format!(
                "{many} transform maps of {} write the table {}; there must be exactly one",
                import.staging, connection.table
            );
            Err(ambiguous_ended("import_many_maps", &reason))
        }
    }
}

/// An ambiguous write whose transaction has ended.
fn ambiguous_ended(code: &str, reason: &str) -> Failure {
    ambiguous(RequestKind::Create, true, FailureClass::Transient, code, reason)
}

/// The row was transformed, but reading the ticket failed: a later verification decides.
fn read_back_failed(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Ambiguous { .. } => failure,
        _ => {
            let reason = format!("the ticket could not be read after the write: {}", failure.message);
            ambiguous_ended("import_unread", &reason)
        }
    }
}

/// The failure of a row that is in error and wrote nothing.
fn row_error(result: &TransformResult) -> Failure {
    let message = result.message();
    if message.contains("Unique Key violation") || message.contains("Duplicate entry") {
        return failure(FailureClass::Conflict, "unique_key", &message);
    }
    failure(FailureClass::Rejected, "import_error", &message)
}

fn fields(request: &Request) -> &[(Column, String)] {
    match request {
        Request::Create { fields, .. } | Request::Update { fields, .. } => fields,
        _ => &[],
    }
}

fn markers(request: &Request) -> Vec<String> {
    match request {
        Request::Create { notes, .. } | Request::Update { notes, .. } => {
            notes.iter().map(|note| note.marker.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a ticket has the values that were sent.
#[derive(Debug, PartialEq, Eq)]
enum ValueMatch {
    All,
    Differs,
    /// A column is not readable.
    Unknown,
}

fn compare_values(connection: &Connection, request: &Request, row: &Row) -> ValueMatch {
    let mut result = ValueMatch::All;
    for (column, value) in fields(request).iter().filter(|(column, _)| **column != *connection.journal_column) {
        match row.values.get(&**column) {
            Some(stored) if stored == value => {}
            Some(_) => return ValueMatch::Differs,
            None => result = ValueMatch::Unknown,
        }
    }
    result
}

/// Encodes the staging row of a write.
fn staging_row(connection: &Connection, import: &ImportSet, sent: &Request) -> Result<Vec<u8>, Failure> {
    let invalid = |reason: &str| failure(FailureClass::Rejected, "request", reason);
    let (first, second, fields, notes) = match sent {
        Request::Create { correlation, correlation_display, fields, notes } => {
            let display = &connection.correlation_display_column;
            let display = (!correlation_display.is_empty()).then(|| (import.column(display), correlation_display));
            (Some((import.column(&connection.correlation_column), correlation)), display, fields, notes)
        }
        Request::Update { sys_id, fields, notes } if is_sys_id(sys_id) => {
            (Some((import.coalesce.clone(), sys_id)), None, fields, notes)
        }
        Request::Update { .. } => return Err(invalid("the update's sys_id is not valid")),
        _ => return Err(invalid("the request does not write a row")),
    };
    let mut body = Vec::with_capacity(256);
    let mut json = serde_json::Serializer::new(&mut body);
    let encoded = (|| {
        let mut map = json.serialize_map(None)?;
        for (column, value) in first.iter().chain(&second) {
            map.serialize_entry(column, value)?;
        }
        for (column, value) in fields {
            map.serialize_entry(&import.column(column), value)?;
        }
        if !notes.is_empty() {
            map.serialize_entry(&import.column(&connection.journal_column), &journal::render_entry(notes))?;
        }
        SerializeMap::end(map)
    })();
    encoded.map_err(|error: serde_json::Error| invalid(&error.to_string()))?;
    Ok(body)
}
