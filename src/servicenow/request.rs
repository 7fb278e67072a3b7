//! The requests that the engine sends to ServiceNow, and their encoding as HTTP requests.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use reqwest::Url;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{Column, Failure, FailureClass};

use super::classify::{RequestKind, failure};
use super::row::{OPTIONAL_COLUMNS, STANDARD_COLUMNS};
use super::text::{bounded, is_sys_id, push_encoded};
use super::{Connection, Error};

/// A work note with the marker that identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Without the marker.
    pub text: String,
    /// Unique per note and part, such as `[alerts/3/12345.0]`.
    pub marker: String,
}

/// An operation on the route's table. A write is one HTTP request; a read with markers and a look-up may page.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Creates a ticket. Answer: `Applied`, or the failure.
    Create {
        /// Value of the correlation column; compared in the response.
        correlation: String,
        /// Name of the bridge; omitted if empty.
        correlation_display: String,
        /// Columns and raw values, possibly including the state column.
        fields: Vec<(Column, String)>,
        /// Work notes in order, written as one journal entry.
        notes: Vec<Note>,
    },
    /// Updates a ticket. Answer: `Applied`, or the failure.
    Update {
        sys_id: String,
        /// Columns and raw values.
        fields: Vec<(Column, String)>,
        /// Work notes in order, written as one journal entry.
        notes: Vec<Note>,
    },
    /// Sends an event. Answer: `Applied`, or the failure.
    SendEvent {
        /// The event's message key.
        correlation: String,
        /// The ticket that the event belongs to; `None` for an event that opens an alert.
        ticket: Option<String>,
        /// Columns and raw values, including the severity.
        fields: Vec<(Column, String)>,
        /// Notes in order, and one without text whose marker identifies the attempt.
        notes: Vec<Note>,
    },
    /// Finds events. Answer: `Rows`. With a ticket: at most one row, with its journal; without: all tickets of the
    /// message key, oldest first.
    FindEvents {
        /// The events' message key, compared byte for byte.
        correlation: String,
        ticket: Option<String>,
        /// Markers to search in the ticket's events.
        markers: Vec<String>,
    },
    /// Reads a ticket. Answer: `Rows` with one row, or `Failed` with `Gone`.
    Read {
        sys_id: String,
        /// Columns to return besides the standard ones.
        columns: Vec<Column>,
        /// Markers to search in the ticket's journal; if empty, the journal is not read.
        markers: Vec<String>,
    },
    /// Reads several tickets. Answer: `Rows`, without those that do not exist or are hidden.
    ReadMany {
        sys_ids: Vec<String>,
        /// Columns to return besides the standard ones.
        columns: Vec<Column>,
    },
    /// Finds the tickets with this correlation. Answer: `Rows`, oldest first.
    Find {
        /// Compared byte for byte.
        correlation: String,
        /// Columns to return besides the standard ones.
        columns: Vec<Column>,
    },
}

impl Request {
    /// Whether the request changes something on the instance.
    pub fn writes(&self) -> bool {
        matches!(self, Request::Create { .. } | Request::Update { .. } | Request::SendEvent { .. })
    }

    /// Whether the request always takes one HTTP request; a search for markers may page through a journal.
    pub fn is_single_http_request(&self) -> bool {
        !matches!(self, Request::Read { markers, .. } if !markers.is_empty())
    }
}

/// A write, encoded as an HTTP request.
pub(super) struct EncodedWrite {
    pub kind: RequestKind,
    pub url: Url,
    pub body: Vec<u8>,
}

impl Request {
    /// Encodes a write: raw values, and a response with only the columns that are evaluated.
    pub(super) fn encode_write(&self, connection: &Connection, urls: &Urls) -> Result<EncodedWrite, Failure> {
        let (kind, url, correlation, fields, notes) = match self {
            Request::Create { correlation, correlation_display, fields, notes } => {
                (RequestKind::Create, urls.create_url(fields)?, Some((correlation, correlation_display)), fields, notes)
            }
            Request::Update { sys_id, fields, notes } => {
                (RequestKind::Update, urls.update_url(sys_id, fields)?, None, fields, notes)
            }
            Request::SendEvent { .. }
            | Request::FindEvents { .. }
            | Request::Read { .. }
            | Request::ReadMany { .. }
            | Request::Find { .. } => {
                return Err(failure(FailureClass::Rejected, "request", "the request does not write a row"));
            }
        };
        let body = serde_json::to_vec(&Body { connection, correlation, fields, notes })
            .map_err(|error| failure(FailureClass::Rejected, "request", &error.to_string()))?;
        Ok(EncodedWrite { kind, url, body })
    }
}

/// The JSON object of a write.
struct Body<'a> {
    connection: &'a Connection,
    /// Correlation and correlation display.
    correlation: Option<(&'a String, &'a String)>,
    fields: &'a [(Column, String)],
    notes: &'a [Note],
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some((correlation, display)) = self.correlation {
            map.serialize_entry(&self.connection.correlation_column, correlation)?;
            if !display.is_empty() {
                map.serialize_entry(&self.connection.correlation_display_column, display)?;
            }
        }
        for (column, value) in self.fields {
            map.serialize_entry(&**column, value)?;
        }
        if !self.notes.is_empty() {
            map.serialize_entry(&self.connection.journal_column, &super::journal::render_entry(self.notes))?;
        }
        map.end()
    }
}

/// Builds the URLs of a connection's requests.
#[derive(Debug)]
pub(super) struct Urls {
    /// The instance's URL without a trailing slash.
    pub root: String,
    /// `<root>/api/now/table/<table>`
    table: String,
    /// The query parameters of all requests; ends with the columns that every response contains.
    common_query: String,
    /// Those columns.
    always: BTreeSet<String>,
    /// Cached URLs of creates, by the columns that they write. A route writes few sets of columns, and parsing a URL
    /// costs a good part of the time that the rest of a request takes.
    cached_for_creates: Mutex<Vec<(Vec<Column>, Url)>>,
}

/// Maximum number of cached create URLs.
const MAX_CACHED_URLS: usize = 64;

impl Urls {
    /// Builds the URLs of the connection's table.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let invalid = |reason: &str| {
            let url = redact_credentials(&connection.base_url);
            Error::Address { url, reason: reason.into() }
        };
        let url = Url::parse(&connection.base_url).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("it must start with https:// (or http:// for a simulator)"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it must not contain credentials"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must not contain parameters"));
        }
        let root = url.as_str().trim_end_matches('/').to_owned();
        let table = format!("{root}/api/now/table/{}", connection.table);
        let mut common_query = String::from(
            "?sysparm_display_value=false&sysparm_exclude_reference_link=true\
             &sysparm_suppress_pagination_header=true&sysparm_fields=",
        );
        common_query.push_str(&STANDARD_COLUMNS.join("%2C"));
        let standard = [&connection.state_column, &connection.correlation_column];
        let standard = standard.into_iter().map(String::as_str).chain(OPTIONAL_COLUMNS);
        let mut named: Vec<&str> = STANDARD_COLUMNS.to_vec();
        for column in standard.chain(connection.columns.iter().map(|column| &**column)) {
            if !named.contains(&column) {
                named.push(column);
                common_query.push_str("%2C");
                push_encoded(&mut common_query, column);
            }
        }
        let always = named.into_iter().map(str::to_owned).collect();
        Ok(Self { root, table, common_query, always, cached_for_creates: Mutex::default() })
    }

    /// The URL to POST a row with these columns; the response returns them.
    pub fn create_url(&self, fields: &[(Column, String)]) -> Result<Url, Failure> {
        let columns = || fields.iter().map(|(column, _)| column);
        let mut cached = self.cached_for_creates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, url)) = cached.iter().find(|(known, _)| known.iter().eq(columns())) {
            return Ok(url.clone());
        }
        let url = parse_url(&self.table_url(columns().map(|column| &**column)))?;
        if cached.len() == MAX_CACHED_URLS {
            cached.clear();
        }
        cached.push((columns().cloned().collect(), url.clone()));
        Ok(url)
    }

    /// The URL to PATCH a row with these columns; the response returns them.
    pub fn update_url(&self, sys_id: &str, fields: &[(Column, String)]) -> Result<Url, Failure> {
        check_sys_id(sys_id)?;
        let mut url = self.create_url(fields)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(sys_id);
        }
        Ok(url)
    }

    /// The table's URL; the response returns `columns`.
    pub fn table_url<'a>(&self, columns: impl Iterator<Item = &'a str>) -> String {
        let mut url = String::with_capacity(self.table.len() + self.common_query.len() + 160);
        url.push_str(&self.table);
        self.push_common_query(&mut url, columns);
        url
    }

    /// The URL of one row.
    pub fn row_url<'a>(&self, sys_id: &str, columns: impl Iterator<Item = &'a str>) -> Result<String, Failure> {
        let mut url = String::with_capacity(self.table.len() + self.common_query.len() + 192);
        url.push_str(&self.table);
        push_sys_id(&mut url, sys_id)?;
        self.push_common_query(&mut url, columns);
        Ok(url)
    }

    /// The URL of the rows that match a query.
    pub fn list_url<'a>(&self, columns: impl Iterator<Item = &'a str>, query: &str, limit: usize) -> String {
        let mut url = self.table_url(columns);
        url.push_str("&sysparm_no_count=true&sysparm_limit=");
        url.push_str(&limit.to_string());
        url.push_str("&sysparm_query=");
        push_encoded(&mut url, query);
        url
    }

    /// The URL of one row's journal with display values; raw values do not show its entries.
    pub fn journal_url(&self, sys_id: &str, column: &str) -> Result<String, Failure> {
        let mut url = self.table.clone();
        push_sys_id(&mut url, sys_id)?;
        url.push_str("?sysparm_display_value=all&sysparm_exclude_reference_link=true&sysparm_fields=sys_id%2C");
        push_encoded(&mut url, column);
        Ok(url)
    }

    /// Path and query of a URL relative to the instance, without the path prefix of a reverse proxy.
    pub fn strip_root<'a>(&self, url: &'a str) -> &'a str {
        url.strip_prefix(&self.root).unwrap_or(url)
    }

    /// The URL of any path of the instance with these parameters.
    pub fn path_url(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut url = self.root.clone();
        if !path.starts_with('/') {
            url.push('/');
        }
        url.push_str(path);
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            push_encoded(&mut url, name);
            url.push('=');
            push_encoded(&mut url, value);
        }
        url
    }

    fn push_common_query<'a>(&self, url: &mut String, columns: impl Iterator<Item = &'a str>) {
        url.push_str(&self.common_query);
        for column in columns {
            if !self.always.contains(column) {
                url.push_str("%2C");
                push_encoded(url, column);
            }
        }
    }
}

/// Parses a URL that was built from validated parts.
pub(super) fn parse_url(url: &str) -> Result<Url, Failure> {
    Url::parse(url)
        .map_err(|error| failure(FailureClass::Rejected, "request", &format!("invalid URL {url:?}: {error}")))
}

/// A sys_id becomes part of a path, so anything else is rejected.
fn check_sys_id(sys_id: &str) -> Result<(), Failure> {
    if is_sys_id(sys_id) {
        return Ok(());
    }
    let reason = format!("{:?} is not a sys_id (32 lower-case hex digits)", bounded(sys_id, 40));
    Err(failure(FailureClass::Rejected, "request", &reason))
}

fn push_sys_id(url: &mut String, sys_id: &str) -> Result<(), Failure> {
    check_sys_id(sys_id)?;
    url.push('/');
    url.push_str(sys_id);
    Ok(())
}

/// The URL without anything before an `@`, which may be a password.
fn redact_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => url.to_owned(),
    }
}
