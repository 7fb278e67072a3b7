//! The requests that the engine asks for, and their form on the wire.

use std::sync::{Mutex, PoisonError};

use reqwest::Url;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{Class, Column, Failure};

use super::answer::STANDARD;
use super::classify::{Kind, failure};
use super::text::{bounded, is_sys_id, push_encoded};
use super::{Connection, Error};

/// A work note with the marker that recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Text, marker not included.
    pub text: String,
    /// The marker, unique per note and part, such as `[alerts/3/12345.0]`.
    pub marker: String,
}

/// One thing to do on the route's table. Writes are one HTTP request; a read with markers and a look-up may page.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Make a ticket. Answered by `Applied`, or why not.
    Create {
        /// Goes into the correlation column; compared in the answer.
        correlation: String,
        /// Names the bridge; left out where empty.
        correlation_display: String,
        /// Columns and raw values, the state column perhaps among them.
        fields: Vec<(Column, String)>,
        /// Work notes in order, written as one journal entry.
        notes: Vec<Note>,
    },
    /// Write to a ticket. Answered by `Applied`, or why not.
    Update {
        /// The ticket.
        sys_id: String,
        /// Columns and raw values.
        fields: Vec<(Column, String)>,
        /// Work notes in order, written as one journal entry.
        notes: Vec<Note>,
    },
    /// Send an event. Answered by `Applied`, or why not.
    Event {
        /// Its message key.
        correlation: String,
        /// The ticket that it belongs to; `None` for the one that opens an alert.
        ticket: Option<String>,
        /// Columns and raw values, the severity among them.
        fields: Vec<(Column, String)>,
        /// Notes in order, and one without text, whose marker names the attempt.
        notes: Vec<Note>,
    },
    /// Look at events. Answered by `Rows`: of a ticket one at most, with its journal; else all tickets, oldest first.
    Events {
        /// Their message key, compared byte for byte.
        correlation: String,
        /// The ticket.
        ticket: Option<String>,
        /// Markers to look for in its events.
        markers: Vec<String>,
    },
    /// Read a ticket. Answered by `Rows` with one row, or `Failed(Gone)`.
    Read {
        /// The ticket.
        sys_id: String,
        /// Columns wanted beside the standard ones.
        columns: Vec<Column>,
        /// Markers to look for in its journal; empty: the journal is not read.
        markers: Vec<String>,
    },
    /// Find the tickets that carry this correlation. Answered by `Rows`, oldest first.
    Find {
        /// The correlation, compared byte for byte.
        correlation: String,
        /// Columns wanted beside the standard ones.
        columns: Vec<Column>,
    },
}

impl Request {
    /// True where it changes something on the instance.
    pub fn writes(&self) -> bool {
        matches!(self, Request::Create { .. } | Request::Update { .. } | Request::Event { .. })
    }

    /// True where it is one HTTP request for certain; a look for markers pages through a journal.
    pub fn is_one_exchange(&self) -> bool {
        !matches!(self, Request::Read { markers, .. } if !markers.is_empty())
    }
}

/// A write as it is sent.
pub(super) struct Wire {
    pub kind: Kind,
    pub url: Url,
    pub body: Vec<u8>,
}

impl Request {
    /// The form of a write on the wire: raw values, and an answer with only the columns that are looked at.
    pub(super) fn wire(&self, connection: &Connection, urls: &Urls) -> Result<Wire, Failure> {
        let (kind, url, correlation, fields, notes) = match self {
            Request::Create { correlation, correlation_display, fields, notes } => {
                (Kind::Create, urls.create_with(fields)?, Some((correlation, correlation_display)), fields, notes)
            }
            Request::Update { sys_id, fields, notes } => {
                (Kind::Update, urls.row_with(sys_id, fields)?, None, fields, notes)
            }
            Request::Event { .. } | Request::Events { .. } | Request::Read { .. } | Request::Find { .. } => {
                return Err(failure(Class::Rejected, "request", "no write of a row"));
            }
        };
        let body = serde_json::to_vec(&Body { connection, correlation, fields, notes })
            .map_err(|error| failure(Class::Rejected, "request", &error.to_string()))?;
        Ok(Wire { kind, url, body })
    }
}

/// The JSON object of a write.
struct Body<'a> {
    connection: &'a Connection,
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
            map.serialize_entry(&self.connection.journal_column, &super::journal::render(self.notes))?;
        }
        map.end()
    }
}

/// The URLs of a connection, their fixed parts made once.
#[derive(Debug)]
pub(super) struct Urls {
    /// The instance, without a trailing slash.
    pub root: String,
    /// `<root>/api/now/table/<table>`
    table: String,
    /// Parameters common to all requests, ending in the standard columns of `sysparm_fields`.
    tail: String,
    /// URLs of creates by the columns that they write: a route writes few sets of columns, and parsing a URL costs a
    /// good part of what the rest of a request does.
    creates: Mutex<Vec<(Vec<Column>, Url)>>,
}

/// Sets of columns whose URLs are kept.
const KEPT: usize = 64;

impl Urls {
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let address = |why: &str| Error::Address { url: shown(&connection.base_url), why: why.into() };
        let url = Url::parse(&connection.base_url).map_err(|error| address(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(address("it must begin with https:// (or http:// for a simulator)"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(address("it must not hold credentials"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(address("it must not hold parameters"));
        }
        let root = url.as_str().trim_end_matches('/').to_owned();
        let table = format!("{root}/api/now/table/{}", connection.table);
        let mut tail = String::from(
            "?sysparm_display_value=false&sysparm_exclude_reference_link=true\
             &sysparm_suppress_pagination_header=true&sysparm_fields=",
        );
        tail.push_str(&STANDARD.join("%2C"));
        for column in [&connection.state_column, &connection.correlation_column] {
            tail.push_str("%2C");
            tail.push_str(column);
        }
        Ok(Self { root, table, tail, creates: Mutex::default() })
    }

    /// POST of a row with these columns; the answer gives them back.
    pub fn create_with(&self, fields: &[(Column, String)]) -> Result<Url, Failure> {
        let columns = || fields.iter().map(|(column, _)| column);
        let mut kept = self.creates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, url)) = kept.iter().find(|(known, _)| known.iter().eq(columns())) {
            return Ok(url.clone());
        }
        let url = parse(&self.create(columns().map(|column| &**column)))?;
        if kept.len() == KEPT {
            kept.clear();
        }
        kept.push((columns().cloned().collect(), url.clone()));
        Ok(url)
    }

    /// PATCH of a row with these columns; the answer gives them back.
    pub fn row_with(&self, sys_id: &str, fields: &[(Column, String)]) -> Result<Url, Failure> {
        check_sys_id(sys_id)?;
        let mut url = self.create_with(fields)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(sys_id);
        }
        Ok(url)
    }

    /// POST of a row; the answer gives `columns` back.
    pub fn create<'a>(&self, columns: impl Iterator<Item = &'a str>) -> String {
        let mut url = String::with_capacity(self.table.len() + self.tail.len() + 160);
        url.push_str(&self.table);
        self.push_tail(&mut url, columns);
        url
    }

    /// GET or PATCH of one row.
    pub fn row<'a>(&self, sys_id: &str, columns: impl Iterator<Item = &'a str>) -> Result<String, Failure> {
        let mut url = String::with_capacity(self.table.len() + self.tail.len() + 192);
        url.push_str(&self.table);
        push_sys_id(&mut url, sys_id)?;
        self.push_tail(&mut url, columns);
        Ok(url)
    }

    /// GET of the rows that a query gives.
    pub fn list<'a>(&self, columns: impl Iterator<Item = &'a str>, query: &str, limit: usize) -> String {
        let mut url = self.create(columns);
        url.push_str("&sysparm_no_count=true&sysparm_limit=");
        url.push_str(&limit.to_string());
        url.push_str("&sysparm_query=");
        push_encoded(&mut url, query);
        url
    }

    /// GET of one row's journal with its entries, which raw values do not show.
    pub fn journal(&self, sys_id: &str, column: &str) -> Result<String, Failure> {
        let mut url = self.table.clone();
        push_sys_id(&mut url, sys_id)?;
        url.push_str("?sysparm_display_value=all&sysparm_exclude_reference_link=true&sysparm_fields=sys_id%2C");
        push_encoded(&mut url, column);
        Ok(url)
    }

    /// A URL as the instance itself knows it: path and parameters, without what a reverse proxy puts in front.
    pub fn within<'a>(&self, url: &'a str) -> &'a str {
        url.strip_prefix(&self.root).unwrap_or(url)
    }

    /// Any path of the instance with these parameters.
    pub fn path(&self, path: &str, query: &[(&str, String)]) -> String {
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

    fn push_tail<'a>(&self, url: &mut String, columns: impl Iterator<Item = &'a str>) {
        url.push_str(&self.tail);
        for column in columns {
            if !STANDARD.contains(&column) {
                url.push_str("%2C");
                push_encoded(url, column);
            }
        }
    }
}

/// A URL that was put together of checked parts.
pub(super) fn parse(url: &str) -> Result<Url, Failure> {
    Url::parse(url).map_err(|error| failure(Class::Rejected, "request", &format!("the URL {url:?}: {error}")))
}

/// A sys_id goes into a path, so nothing else may.
fn check_sys_id(sys_id: &str) -> Result<(), Failure> {
    if is_sys_id(sys_id) {
        return Ok(());
    }
    let why = format!("{:?} is no sys_id (32 lower-case hex digits)", bounded(sys_id, 40));
    Err(failure(Class::Rejected, "request", &why))
}

fn push_sys_id(url: &mut String, sys_id: &str) -> Result<(), Failure> {
    check_sys_id(sys_id)?;
    url.push('/');
    url.push_str(sys_id);
    Ok(())
}

/// An address as it may be shown: what stands before an `@` may be a password.
fn shown(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => address.to_owned(),
    }
}
