//! Encoded queries: parsing and matching.
//!
//! Like a real instance, it drops terms with an unknown field or operator and runs the rest, which may be the whole
//! table. Values are compared without case and trailing blanks.

use std::cmp::Ordering;

use super::columns::ColumnType;
use super::database::Database;
use super::schema::{Col, Schema, sys};
use super::table_storage::{collation_key, parse_sys_id, raw};
use super::time;

/// The condition of a term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Equal(String),
    NotEqual(String),
    Compare { greater: bool, or_equal: bool, value: String },
    In(Vec<String>),
    NotIn(Vec<String>),
    Like(String),
    NotLike(String),
    Starts(String),
    Ends(String),
    Empty,
    NotEmpty,
    Anything,
    Between(String, String),
    SameAs(Vec<Col>),
    NotSameAs(Vec<Col>),
    InstanceOf(Vec<usize>),
}

/// A field, possibly dot-walked through references, and its condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub path: Vec<Col>,
    pub condition: Condition,
}

/// A parsed query: an OR of groups, each an AND of clauses, each an OR of terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub groups: Vec<Vec<Vec<Term>>>,
    /// Paths, each with whether it is descending.
    pub order: Vec<(Vec<Col>, bool)>,
    /// The terms that could not be parsed.
    pub dropped: Vec<String>,
}

/// Longest first, so that `>=` is not parsed as `>`.
const OPERATORS: &[&str] = &[
    "DOES NOT CONTAIN",
    "EMPTYSTRING",
    "ISNOTEMPTY",
    "INSTANCEOF",
    "STARTSWITH",
    "NOT LIKE",
    "ENDSWITH",
    "ANYTHING",
    "CONTAINS",
    "NSAMEAS",
    "ISEMPTY",
    "BETWEEN",
    "NOT IN",
    "SAMEAS",
    "LIKE",
    ">=",
    "<=",
    "!=",
    "!*",
    "IN",
    "=",
    ">",
    "<",
    "*",
    "%",
];

/// Splits at single carets. A double caret is a literal caret.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '^' {
            if let Some(part) = parts.last_mut() {
                part.push(c);
            }
        } else if chars.peek() == Some(&'^') {
            chars.next();
            if let Some(part) = parts.last_mut() {
                part.push('^');
            }
        } else {
            parts.push(String::new());
        }
    }
    parts
}

/// Parses an encoded query for a table; never fails. `zone` is the session user's time zone, in which
/// `javascript:gs.dateGenerate` is evaluated.
pub(super) fn parse(schema: &Schema, table: usize, text: &str, zone: &jiff::tz::TimeZone) -> Query {
    let mut query = Query::default();
    let mut group: Vec<Vec<Term>> = Vec::new();
    for part in split(text) {
        if let Some(field) = part.strip_prefix("ORDERBYDESC") {
            query.order.extend(path(schema, table, field).map(|path| (path, true)));
            continue;
        }
        if let Some(field) = part.strip_prefix("ORDERBY") {
            query.order.extend(path(schema, table, field).map(|path| (path, false)));
            continue;
        }
        if part.is_empty() || part == "EQ" {
            continue;
        }
        let (part, or) = if let Some(rest) = part.strip_prefix("NQ") {
            query.groups.push(std::mem::take(&mut group));
            (rest, false)
        } else if let Some(rest) = part.strip_prefix("OR") {
            (rest, true)
        } else {
            (part.as_str(), false)
        };
        match term(schema, table, part, zone) {
            Some(term) => match group.last_mut() {
                Some(clause) if or => clause.push(term),
                _ => group.push(vec![term]),
            },
            None => query.dropped.push(part.into()),
        }
    }
    query.groups.push(group);
    query
}

/// Resolves a dot-walked name to columns; `None` if a step does not exist.
pub(super) fn path(schema: &Schema, table: usize, name: &str) -> Option<Vec<Col>> {
    let mut at = table;
    let mut path = Vec::new();
    let mut steps = name.split('.').peekable();
    while let Some(step) = steps.next() {
        let col = schema.column(at, step)?;
        path.push(col);
        if steps.peek().is_some() {
            let ColumnType::Reference(target) = schema.column_at(schema.tables[at].store, col).kind else {
                return None;
            };
            at = schema.table(target)?;
        }
    }
    Some(path)
}

fn term(schema: &Schema, table: usize, text: &str, zone: &jiff::tz::TimeZone) -> Option<Term> {
    let end = text.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.'))?;
    let (field, rest) = text.split_at(end);
    let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator))?;
    let value = rest.get(operator.len()..)?;
    let columns = path(schema, table, field)?;
    let list = || value.split(',').map(collation_key).collect();
    let single = || collation_key(&evaluate(value, zone));
    let condition = match *operator {
        "=" => Condition::Equal(single()),
        "!=" => Condition::NotEqual(single()),
        ">" => Condition::Compare { greater: true, or_equal: false, value: single() },
        ">=" => Condition::Compare { greater: true, or_equal: true, value: single() },
        "<" => Condition::Compare { greater: false, or_equal: false, value: single() },
        "<=" => Condition::Compare { greater: false, or_equal: true, value: single() },
        "IN" => Condition::In(list()),
        "NOT IN" => Condition::NotIn(list()),
        "LIKE" | "CONTAINS" | "*" => Condition::Like(single()),
        "NOT LIKE" | "DOES NOT CONTAIN" | "!*" => Condition::NotLike(single()),
        "STARTSWITH" => Condition::Starts(single()),
        "ENDSWITH" | "%" => Condition::Ends(single()),
        "ISEMPTY" | "EMPTYSTRING" => Condition::Empty,
        "ISNOTEMPTY" => Condition::NotEmpty,
        "ANYTHING" => Condition::Anything,
        "BETWEEN" => {
            let (from, to) = value.split_once('@')?;
            Condition::Between(collation_key(&evaluate(from, zone)), collation_key(&evaluate(to, zone)))
        }
        "SAMEAS" => Condition::SameAs(path(schema, table, value)?),
        "NSAMEAS" => Condition::NotSameAs(path(schema, table, value)?),
        "INSTANCEOF" => {
            let ancestor = schema.table(value)?;
            Condition::InstanceOf((0..schema.tables.len()).filter(|at| schema.is_a(*at, ancestor)).collect())
        }
        _ => return None,
    };
    Some(Term { path: columns, condition })
}

/// Evaluates a value. Of scripts it supports only `gs.dateGenerate('date','time')`; others give an empty text.
fn evaluate(value: &str, zone: &jiff::tz::TimeZone) -> String {
    let Some(script) = value.strip_prefix("javascript:") else { return value.into() };
    let inner = script.trim().strip_prefix("gs.dateGenerate(").and_then(|rest| rest.strip_suffix(')'));
    let Some((date, hour)) = inner.and_then(|inner| inner.split_once(',')) else { return String::new() };
    let clean = |part: &str| part.trim().trim_matches(['\'', '"']).to_owned();
    time::from_zone(&format!("{} {}", clean(date), clean(hour)), zone).unwrap_or_default()
}

impl Query {
    /// Whether a row version matches.
    pub fn matches(&self, database: &Database, store: usize, row: &super::table_storage::Row) -> bool {
        self.groups
            .iter()
            .any(|group| group.iter().all(|clause| clause.iter().any(|term| term.matches(database, store, row))))
    }

    /// Compares two rows in the query's order. Without an order they are equal.
    pub fn compare(
        &self,
        database: &Database,
        store: usize,
        a: &super::table_storage::Row,
        b: &super::table_storage::Row,
    ) -> Ordering {
        for (path, descending) in &self.order {
            let order = match path.as_slice() {
                [sys::UPDATED_ON] => a.updated.cmp(&b.updated),
                [sys::CREATED_ON] => a.created.cmp(&b.created),
                [sys::ID] => a.sys_id.cmp(&b.sys_id),
                path => {
                    let numeric = database.type_at(store, path) == Some(ColumnType::Integer);
                    compare(
                        &collation_key(&database.value_at_path(store, a, path)),
                        &collation_key(&database.value_at_path(store, b, path)),
                        numeric,
                    )
                }
            };
            if order != Ordering::Equal {
                return if *descending { order.reverse() } else { order };
            }
        }
        Ordering::Equal
    }
}

fn compare(a: &str, b: &str, numeric: bool) -> Ordering {
    match (numeric, a.parse::<i64>(), b.parse::<i64>()) {
        (true, Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

impl Term {
    fn matches(&self, database: &Database, store: usize, row: &super::table_storage::Row) -> bool {
        // The two columns of every poll are compared without converting them to text.
        match (self.path.as_slice(), &self.condition) {
            ([sys::UPDATED_ON], Condition::Compare { greater, or_equal, value }) => {
                if let Some(bound) = time::parse(value) {
                    return satisfies(row.updated.cmp(&bound), *greater, *or_equal);
                }
            }
            ([sys::UPDATED_ON], Condition::Equal(value)) => {
                if let Some(bound) = time::parse(value) {
                    return row.updated == bound;
                }
            }
            ([sys::ID], Condition::Compare { greater, or_equal, value }) => {
                if let Some(bound) = parse_sys_id(value) {
                    return satisfies(row.sys_id.cmp(&bound), *greater, *or_equal);
                }
            }
            _ => {}
        }
        let value = match self.path.as_slice() {
            [col] => collation_key(&raw(&database.schema, &database.actors, row, *col)),
            path => collation_key(&database.value_at_path(store, row, path)),
        };
        let numeric = || matches!(database.type_at(store, &self.path), Some(ColumnType::Integer | ColumnType::Choice));
        match &self.condition {
            Condition::Equal(wanted) => value == *wanted,
            Condition::NotEqual(wanted) => value != *wanted,
            Condition::Compare { greater, or_equal, value: wanted } => {
                satisfies(compare(&value, wanted, numeric()), *greater, *or_equal)
            }
            Condition::In(list) => list.contains(&value),
            Condition::NotIn(list) => !list.contains(&value),
            Condition::Like(part) => value.contains(part.as_str()),
            Condition::NotLike(part) => !value.contains(part.as_str()),
            Condition::Starts(part) => value.starts_with(part.as_str()),
            Condition::Ends(part) => value.ends_with(part.as_str()),
            Condition::Empty => value.is_empty(),
            Condition::NotEmpty => !value.is_empty(),
            Condition::Anything => true,
            Condition::Between(from, to) => {
                satisfies(compare(&value, from, numeric()), true, true)
                    && satisfies(compare(&value, to, numeric()), false, true)
            }
            Condition::SameAs(path) => value == collation_key(&database.value_at_path(store, row, path)),
            Condition::NotSameAs(path) => value != collation_key(&database.value_at_path(store, row, path)),
            Condition::InstanceOf(tables) => tables.contains(&row.table),
        }
    }
}

fn satisfies(order: Ordering, greater: bool, or_equal: bool) -> bool {
    match order {
        Ordering::Equal => or_equal,
        Ordering::Greater => greater,
        Ordering::Less => !greater,
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::simulators::servicenow::options::Options;
    use crate::simulators::servicenow::table_storage::{Row, set};

    fn database() -> Database {
        Database::new(&Options::default()).expect("a database")
    }

    fn read(database: &Database, text: &str) -> Query {
        parse(&database.schema, database.schema.incident, text, &TimeZone::UTC)
    }

    /// Whether a row with these values matches.
    fn matches(text: &str, values: &[(&str, &str)]) -> bool {
        let database = database();
        let mut row = Row::new(database.schema.incident, 7, 1_700_000_000, 0);
        for (name, value) in values {
            let col = database.schema.column(database.schema.incident, name).expect("a column");
            set(&database.schema, &mut row, col, value);
        }
        read(&database, text).matches(&database, database.schema.task_store, &row)
    }

    #[test]
    fn or_extends_the_preceding_term_and_nq_starts_a_new_group() {
        let text = "state=1^urgency=1^ORurgency=2";
        assert!(matches(text, &[("state", "1"), ("urgency", "2")]));
        assert!(!matches(text, &[("state", "2"), ("urgency", "1")]));
        assert!(!matches(text, &[("state", "1"), ("urgency", "3")]));
        let text = "state=6^urgency=1^NQcorrelation_id=k^EQ";
        assert!(matches(text, &[("correlation_id", "k")]));
        assert!(matches(text, &[("state", "6"), ("urgency", "1")]));
        assert!(!matches(text, &[("state", "6")]));
    }

    #[test]
    fn a_double_caret_is_a_literal_caret() {
        assert!(matches("correlation_id=a^^b^state=1", &[("correlation_id", "a^b")]));
        assert!(!matches("correlation_id=a^^b^state=2", &[("correlation_id", "a^b")]));
    }

    #[test]
    fn values_are_compared_without_case_and_trailing_blanks() {
        assert!(matches("correlation_id=KEY", &[("correlation_id", "key  ")]));
        assert!(!matches("correlation_id=key", &[("correlation_id", " key")]));
        assert!(matches("correlation_idINx,KEY", &[("correlation_id", "key")]));
        assert!(matches("correlation_idNOT INx,y", &[("correlation_id", "key")]));
    }

    #[test]
    fn every_operator_is_evaluated() {
        let row = [("short_description", "Disk full on db-01"), ("urgency", "2"), ("close_notes", "")];
        for (text, satisfies) in [
            ("short_descriptionLIKEFULL", true),
            ("short_descriptionCONTAINSempty", false),
            ("short_descriptionNOT LIKEfull", false),
            ("short_descriptionSTARTSWITHdisk", true),
            ("short_descriptionENDSWITHdb-01", true),
            ("short_description*full", true),
            ("urgency>1", true),
            ("urgency>=3", false),
            ("urgency<3", true),
            ("urgency<=2", true),
            ("urgency!=2", false),
            ("urgencyBETWEEN1@2", true),
            ("close_notesISEMPTY", true),
            ("close_notesISNOTEMPTY", false),
            ("close_notesANYTHING", true),
            ("impactSAMEASurgency", false),
            ("sys_class_nameINSTANCEOFtask", true),
            ("sys_created_on>=2023-11-14 00:00:00", true),
            ("sys_updated_on=2023-11-14 22:13:20", true),
            ("sys_updated_on>2023-11-14 22:13:20", false),
            ("sys_updated_on>2023-11-14 22:13:20^NQsys_updated_on=2023-11-14 22:13:20^sys_id>0000", true),
            ("sys_created_on>javascript:gs.dateGenerate('2023-11-14','00:00:00')", true),
        ] {
            assert_eq!(matches(text, &row), satisfies, "{text}");
        }
    }

    #[test]
    fn unknown_terms_are_dropped_and_the_rest_runs() {
        let database = database();
        let query = read(&database, "nonsense=1^state=1^urgencySIMILAR2^caller_id.shoe_size=44");
        assert_eq!(query.dropped, ["nonsense=1", "urgencySIMILAR2", "caller_id.shoe_size=44"]);
        assert_eq!(query.groups[0].len(), 1);
        assert!(matches("nonsense=1", &[]));
        let query = read(&database, "state=1^ORDERBYDESCsys_updated_on^ORDERBYsys_id^ORDERBYnonsense");
        assert_eq!(query.order, [(vec![sys::UPDATED_ON], true), (vec![sys::ID], false)]);
    }

    #[test]
    fn dot_walked_fields_follow_references() {
        let beth = super::super::table_storage::hex(super::super::database::sys_id_of("sys_user", "beth.anglin"));
        let row = [("assigned_to", beth.as_str())];
        assert!(matches("assigned_to.email=beth.anglin@example.com", &row));
        assert!(!matches("caller_id.email=beth.anglin@example.com", &row));
    }
}
