//! Writes by the instance's Import Set API: a row for a staging table, which a transform map makes a ticket of.
//!
//! The map must coalesce on one staging column that holds the ticket's sys_id: an update names its ticket there, and a
//! create leaves it empty, so that it always inserts. The answer is 201 whatever became of the row, and shows neither
//! its state nor its version; so the ticket is read afterwards, on the same slot, and only a row that shows what was
//! sent is called applied. A row error that names no record wrote nothing; one that names a record is judged by what
//! stands there. Whatever can't be judged is in doubt with its transaction ended, since the row was transformed before
//! it was answered. Many rows in one call (`insertMultiple`) are not used: by default they are answered before they are
//! transformed, and every one of them would be in doubt.

use reqwest::Method;
use serde::Deserialize;
use serde::ser::{SerializeMap, Serializer};

use crate::model::answer::Journal;
use crate::model::{Answer, Class, Column, Failure, HttpMethod, Row};

use super::classify::{self, Kind, doubt, failure};
use super::client::{Heard, RequestError};
use super::text::is_sys_id;
use super::{Client, Connection, Request, answer, journal, request};

/// How rows are staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSet {
    /// The staging table.
    pub staging: String,
    /// Begins the names of its columns: `u_` and the ticket's column.
    pub prefix: String,
    /// The staging column on which the map coalesces, with the ticket's sys_id; empty for a new ticket.
    pub coalesce: String,
}

impl ImportSet {
    /// The staging column for a ticket's column.
    pub fn column(&self, column: &str) -> String {
        format!("{}{column}", self.prefix)
    }
}

/// What became of a row by one transform map.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Done {
    table: Option<String>,
    status: Option<String>,
    sys_id: Option<String>,
    record_link: Option<String>,
    error_message: Option<String>,
    status_message: Option<String>,
}

impl Done {
    fn status(&self) -> &str {
        self.status.as_deref().unwrap_or_default()
    }

    /// The ticket that it names.
    fn named(&self) -> Option<&str> {
        let linked = self.record_link.as_deref().and_then(|link| link.rsplit('/').next());
        self.sys_id.as_deref().filter(|id| is_sys_id(id)).or(linked.filter(|id| is_sys_id(id)))
    }

    fn said(&self) -> String {
        let texts = [&self.error_message, &self.status_message];
        let said: Vec<&str> = texts.into_iter().flatten().map(|text| text.trim()).filter(|t| !t.is_empty()).collect();
        if said.is_empty() { "the instance gave no reason".into() } else { said.join("; ") }
    }
}

impl Client {
    /// The table and the method by which the instance counts a request.
    pub fn counted_as(&self, verb: HttpMethod) -> (&str, HttpMethod) {
        let connection = self.connection();
        match (&connection.import, verb) {
            (Some(import), HttpMethod::Post | HttpMethod::Patch) => (&import.staging, HttpMethod::Post),
            (None, HttpMethod::Patch) if connection.events.is_some() => (&connection.table, HttpMethod::Post),
            _ => (&connection.table, verb),
        }
    }

    /// Stages a row, and looks at what became of the ticket.
    pub(super) async fn stage(
        &self,
        slot: usize,
        import: &ImportSet,
        request: &Request,
        may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
    ) -> Result<(Answer, Option<i64>), RequestError> {
        let mut body = Some(body(self.connection(), import, request)?);
        let url = request::parse(&self.urls().path(&format!("/api/now/import/{}", import.staging), &[]))?;
        let compose = &mut || may_send().map(|()| body.take());
        let heard = self.exchange(slot, Kind::Create, Method::POST, url, compose).await?;
        // What the look at the ticket tells of rules is of another interface.
        let told = self.take_feedback(slot);
        let answer = self.transformed(slot, import, request, &heard).await;
        if let Some(slot) = self.slot(slot) {
            slot.press(|looked| {
                let requests = told.requests + looked.requests;
                let sign = looked.sign.or(told.sign);
                *looked = crate::quota::LoadFeedback { requests, sign, ..told };
            });
        }
        let date = heard.head.date;
        answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
    }

    /// The row was answered: what does that mean?
    async fn transformed(
        &self,
        slot: usize,
        import: &ImportSet,
        request: &Request,
        heard: &Heard,
    ) -> Result<Answer, Failure> {
        let done = ours(self.connection(), import, heard)?;
        let update = match request {
            Request::Update { sys_id, .. } => Some(sys_id.as_str()),
            _ => None,
        };
        match (done.status(), update) {
            ("inserted", None) | ("updated", Some(_)) => match done.named() {
                Some(id) if update.is_none_or(|sys_id| sys_id == id) => {
                    let (row, _) = self.look(slot, request, id, false).await.map_err(unread)?;
                    self.checked(request, row, None)
                }
                Some(id) => {
                    let why = format!("the row for {} was written to {id}", update.unwrap_or_default());
                    Err(ended("import_row_differs", &why))
                }
                None => Err(ended("import_unnamed", "the row was written, and the answer does not name the ticket")),
            },
            ("updated", None) => {
                let why = format!(
                    "the row of a new ticket was written to an existing one: the transform map must coalesce on {} \
                     alone, and not match where that is empty",
                    import.coalesce
                );
                Err(failure(Class::Rejected, "import_coalesced", &why))
            }
            ("inserted", Some(sys_id)) => {
                let why = format!(
                    "{sys_id} is gone, and the transform map made a new row of what was for it; let the map ignore \
                     rows whose {} names none",
                    import.coalesce
                );
                Err(failure(Class::Gone, "import_made_anew", &why))
            }
            ("ignored" | "skipped", None) => Err(failure(Class::Rejected, "import_ignored", &done.said())),
            ("ignored" | "skipped", Some(sys_id)) => self.ignored(slot, request, sys_id, &done).await,
            ("error", None) => self.failed_create(slot, request, &done).await,
            ("error", Some(sys_id)) => self.failed_update(slot, request, sys_id, &done).await,
            // A staging table in asynchronous mode has not been transformed yet.
            (other, _) => {
                let why = format!(
                    "the row's status is {other:?}: {}; the staging table must be transformed synchronously",
                    done.said()
                );
                Err(doubt(Kind::Create, false, Class::Transient, "import_status", &why))
            }
        }
    }

    /// Nothing was written: because the ticket is gone, because it stands so already, or because the map refuses.
    async fn ignored(&self, slot: usize, request: &Request, sys_id: &str, done: &Done) -> Result<Answer, Failure> {
        let (row, _) = self.look(slot, request, sys_id, false).await?;
        if !markers(request).is_empty() {
            return Err(failure(Class::Rejected, "import_ignored", &done.said()));
        }
        let said = (stand(self.connection(), request, &row) != Stand::All)
            .then(|| format!("the import's row was ignored: {}", done.said()));
        // Values that a rule of the instance puts back every time change nothing, as by the Table API.
        self.checked(request, row, said).map_err(|_| failure(Class::Rejected, "import_ignored", &done.said()))
    }

    /// A create that named a ticket may have made it, by a script that failed behind the insert.
    async fn failed_create(&self, slot: usize, request: &Request, done: &Done) -> Result<Answer, Failure> {
        let Some(id) = done.named() else { return Err(refused(done)) };
        match self.look(slot, request, id, false).await {
            Ok((row, _)) if answer::check(Kind::Create, self.connection(), request, &row).is_ok() => {
                Err(ended("import_error", &format!("the row is in error, and {id} was made: {}", done.said())))
            }
            Ok(_) => Err(refused(done)),
            Err(failure) if failure.class == Class::Gone => Err(refused(done)),
            Err(failure) => Err(unread(failure)),
        }
    }

    /// Of an update that is in error, its marker or its values tell whether it was written.
    async fn failed_update(
        &self,
        slot: usize,
        request: &Request,
        sys_id: &str,
        done: &Done,
    ) -> Result<Answer, Failure> {
        let (row, journal) = match self.look(slot, request, sys_id, true).await {
            Ok(seen) => seen,
            Err(failure) if failure.class == Class::Gone => return Err(failure),
            Err(failure) => return Err(unread(failure)),
        };
        let warning = Some(format!("the import's row is in error, and was written: {}", done.said()));
        match (journal, stand(self.connection(), request, &row)) {
            (Some(Journal::Read(found)), _) if !found.is_empty() => self.checked(request, row, warning),
            (Some(Journal::Read(_)), _) | (_, Stand::NotAll) => Err(refused(done)),
            (None, Stand::All) => self.checked(request, row, warning),
            _ => Err(ended("import_error", &done.said())),
        }
    }

    /// The ticket as it stands, with the columns that were sent and, if asked for, those of our markers it has.
    async fn look(
        &self,
        slot: usize,
        request: &Request,
        sys_id: &str,
        notes: bool,
    ) -> Result<(Row, Option<Journal>), Failure> {
        let columns: Vec<Column> = fields(request).iter().map(|(column, _)| column.clone()).collect();
        let markers = if notes { markers(request) } else { Vec::new() };
        match journal::read(self, slot, sys_id, &columns, &markers, &mut || Ok(())).await {
            Ok((Answer::Rows { mut rows, journal }, _)) if rows.len() == 1 => Ok((rows.swap_remove(0), journal)),
            Ok(_) => Err(failure(Class::Transient, "row_missing", "a read gave no row")),
            Err(RequestError::NotSent(why)) => Err(failure(Class::Transient, "not_sent", &why)),
            Err(RequestError::Failed(failure, _)) => Err(failure),
        }
    }

    fn checked(&self, request: &Request, row: Row, warning: Option<String>) -> Result<Answer, Failure> {
        let kind = if matches!(request, Request::Update { .. }) { Kind::Update } else { Kind::Create };
        let mut warnings = answer::check(kind, self.connection(), request, &row)?;
        warnings.extend(warning);
        Ok(Answer::Applied { row: Box::new(row), warnings })
    }
}

/// What the map of our table made of the row.
fn ours(connection: &Connection, import: &ImportSet, heard: &Heard) -> Result<Done, Failure> {
    if matches!(heard.head.status, 200 | 201) && heard.body.trim_ascii().is_empty() {
        let why = format!("the answer is empty: the bridge's user must be able to read the staging table {}", {
            &import.staging
        });
        return Err(ended("import_unreadable", &why));
    }
    let mut done = classify::result::<Vec<Done>>(Kind::Create, &heard.head, &heard.body)?;
    // A row in error may name no table.
    done.retain(|one| one.table.as_deref().is_none_or(|table| table.is_empty() || table == connection.table));
    match done.len() {
        1 => Ok(done.swap_remove(0)),
        0 => {
            let why =
                format!("no active transform map of {} wrote the table {} at once", import.staging, connection.table);
            Err(failure(Class::Rejected, "import_no_map", &why))
        }
        many => {
            let why = format!(
                "{many} transform maps of {} write the table {}; there must be one",
                import.staging, connection.table
            );
            Err(ended("import_many_maps", &why))
        }
    }
}

/// In doubt, and the transaction has ended.
fn ended(code: &str, why: &str) -> Failure {
    doubt(Kind::Create, true, Class::Transient, code, why)
}

/// The row was transformed, and the ticket could not be read: a later look settles it.
fn unread(why: Failure) -> Failure {
    match why.class {
        Class::Ambiguous { .. } => why,
        _ => ended("import_unread", &format!("the ticket could not be read after the write: {}", why.message)),
    }
}

/// The row is in error, and nothing was written.
fn refused(done: &Done) -> Failure {
    let said = done.said();
    if said.contains("Unique Key violation") || said.contains("Duplicate entry") {
        return failure(Class::Conflict, "unique_key", &said);
    }
    failure(Class::Rejected, "import_error", &said)
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

/// Whether the values sent are those that stand.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    All,
    NotAll,
    /// A column can't be read.
    Unknown,
}

fn stand(connection: &Connection, request: &Request, row: &Row) -> Stand {
    let mut all = Stand::All;
    for (column, value) in fields(request).iter().filter(|(column, _)| **column != *connection.journal_column) {
        match row.values.get(&**column) {
            Some(stands) if stands == value => {}
            Some(_) => return Stand::NotAll,
            None => all = Stand::Unknown,
        }
    }
    all
}

/// The staging row of a write.
fn body(connection: &Connection, import: &ImportSet, sent: &Request) -> Result<Vec<u8>, Failure> {
    let bad = |why: &str| failure(Class::Rejected, "request", why);
    let (first, second, fields, notes) = match sent {
        Request::Create { correlation, correlation_display, fields, notes } => {
            let display = &connection.correlation_display_column;
            let display = (!correlation_display.is_empty()).then(|| (import.column(display), correlation_display));
            (Some((import.column(&connection.correlation_column), correlation)), display, fields, notes)
        }
        Request::Update { sys_id, fields, notes } if is_sys_id(sys_id) => {
            (Some((import.coalesce.clone(), sys_id)), None, fields, notes)
        }
        Request::Update { .. } => return Err(bad("an update whose sys_id is none")),
        _ => return Err(bad("no write of a row")),
    };
    let mut body = Vec::with_capacity(256);
    let mut json = serde_json::Serializer::new(&mut body);
    let written = (|| {
        let mut map = json.serialize_map(None)?;
        for (column, value) in first.iter().chain(&second) {
            map.serialize_entry(column, value)?;
        }
        for (column, value) in fields {
            map.serialize_entry(&import.column(column), value)?;
        }
        if !notes.is_empty() {
            map.serialize_entry(&import.column(&connection.journal_column), &journal::render(notes))?;
        }
        SerializeMap::end(map)
    })();
    written.map_err(|error: serde_json::Error| bad(&error.to_string()))?;
    Ok(body)
}
