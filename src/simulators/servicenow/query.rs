//! Encoded queries: their grammar, and whether a row matches.
//!
//! As lax as the real thing: a term with an unknown field or operator is dropped and the rest still runs, which in the
//! end may be the whole table. Values compare without case and trailing blanks.

use std::cmp::Ordering;

use super::columns::Kind;
use super::schema::{Col, Schema, sys};
use super::storage::{fold, parse_sys_id, raw};
use super::time;
use super::world::World;

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Equal(String),
    NotEqual(String),
    Compare(bool, bool, String),
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

/// A field, perhaps behind references, and its test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub path: Vec<Col>,
    pub test: Test,
}

/// Groups are OR-ed; within a group all clauses must hold; of a clause one term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub groups: Vec<Vec<Vec<Term>>>,
    /// Path and whether descending.
    pub order: Vec<(Vec<Col>, bool)>,
    /// Terms that were not understood.
    pub dropped: Vec<String>,
}

/// Longest first, so that `>=` is not read as `>`.
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

/// Splits at single carets; two in a row are a literal one.
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

/// Reads an encoded query for a table. Nothing is an error; `zone` is the session user's time zone, which
/// `javascript:gs.dateGenerate` is read in.
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

/// Resolves a dot-walked name to columns; none if any step does not exist.
pub(super) fn path(schema: &Schema, table: usize, name: &str) -> Option<Vec<Col>> {
    let mut at = table;
    let mut path = Vec::new();
    let mut steps = name.split('.').peekable();
    while let Some(step) = steps.next() {
        let col = schema.column(at, step)?;
        path.push(col);
        if steps.peek().is_some() {
            let Kind::Reference(target) = schema.def(schema.tables[at].store, col).kind else { return None };
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
    let list = || value.split(',').map(fold).collect();
    let one = || fold(&evaluate(value, zone));
    let test = match *operator {
        "=" => Test::Equal(one()),
        "!=" => Test::NotEqual(one()),
        ">" => Test::Compare(true, false, one()),
        ">=" => Test::Compare(true, true, one()),
        "<" => Test::Compare(false, false, one()),
        "<=" => Test::Compare(false, true, one()),
        "IN" => Test::In(list()),
        "NOT IN" => Test::NotIn(list()),
        "LIKE" | "CONTAINS" | "*" => Test::Like(one()),
        "NOT LIKE" | "DOES NOT CONTAIN" | "!*" => Test::NotLike(one()),
        "STARTSWITH" => Test::Starts(one()),
        "ENDSWITH" | "%" => Test::Ends(one()),
        "ISEMPTY" | "EMPTYSTRING" => Test::Empty,
        "ISNOTEMPTY" => Test::NotEmpty,
        "ANYTHING" => Test::Anything,
        "BETWEEN" => {
            let (from, to) = value.split_once('@')?;
            Test::Between(fold(&evaluate(from, zone)), fold(&evaluate(to, zone)))
        }
        "SAMEAS" => Test::SameAs(path(schema, table, value)?),
        "NSAMEAS" => Test::NotSameAs(path(schema, table, value)?),
        "INSTANCEOF" => {
            let ancestor = schema.table(value)?;
            Test::InstanceOf((0..schema.tables.len()).filter(|at| schema.is_a(*at, ancestor)).collect())
        }
        _ => return None,
    };
    Some(Term { path: columns, test })
}

/// Of scripts only `gs.dateGenerate('date','time')` is run; others evaluate to nothing.
fn evaluate(value: &str, zone: &jiff::tz::TimeZone) -> String {
    let Some(script) = value.strip_prefix("javascript:") else { return value.into() };
    let inner = script.trim().strip_prefix("gs.dateGenerate(").and_then(|rest| rest.strip_suffix(')'));
    let Some((date, hour)) = inner.and_then(|inner| inner.split_once(',')) else { return String::new() };
    let clean = |part: &str| part.trim().trim_matches(['\'', '"']).to_owned();
    time::from_zone(&format!("{} {}", clean(date), clean(hour)), zone).unwrap_or_default()
}

impl Query {
    /// Whether a version of a row matches.
    pub fn matches(&self, world: &World, store: usize, row: &super::storage::Row) -> bool {
        self.groups
            .iter()
            .any(|group| group.iter().all(|clause| clause.iter().any(|term| term.matches(world, store, row))))
    }

    /// The order asked for; equal if none.
    pub fn compare(&self, world: &World, store: usize, a: &super::storage::Row, b: &super::storage::Row) -> Ordering {
        for (path, descending) in &self.order {
            let order = match path.as_slice() {
                [sys::UPDATED_ON] => a.updated.cmp(&b.updated),
                [sys::CREATED_ON] => a.created.cmp(&b.created),
                [sys::ID] => a.sys_id.cmp(&b.sys_id),
                path => {
                    let numeric = world.kind_at(store, path) == Some(Kind::Integer);
                    compare(&fold(&world.walk(store, a, path)), &fold(&world.walk(store, b, path)), numeric)
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
    fn matches(&self, world: &World, store: usize, row: &super::storage::Row) -> bool {
        // The two columns of every poll are compared without making text of them.
        match (self.path.as_slice(), &self.test) {
            ([sys::UPDATED_ON], Test::Compare(above, equal, value)) => {
                if let Some(bound) = time::parse(value) {
                    return holds(row.updated.cmp(&bound), *above, *equal);
                }
            }
            ([sys::UPDATED_ON], Test::Equal(value)) => {
                if let Some(bound) = time::parse(value) {
                    return row.updated == bound;
                }
            }
            ([sys::ID], Test::Compare(above, equal, value)) => {
                if let Some(bound) = parse_sys_id(value) {
                    return holds(row.sys_id.cmp(&bound), *above, *equal);
                }
            }
            _ => {}
        }
        let value = match self.path.as_slice() {
            [col] => fold(&raw(&world.schema, &world.actors, row, *col)),
            path => fold(&world.walk(store, row, path)),
        };
        let numeric = || matches!(world.kind_at(store, &self.path), Some(Kind::Integer | Kind::Choice));
        match &self.test {
            Test::Equal(wanted) => value == *wanted,
            Test::NotEqual(wanted) => value != *wanted,
            Test::Compare(above, equal, wanted) => holds(compare(&value, wanted, numeric()), *above, *equal),
            Test::In(list) => list.contains(&value),
            Test::NotIn(list) => !list.contains(&value),
            Test::Like(part) => value.contains(part.as_str()),
            Test::NotLike(part) => !value.contains(part.as_str()),
            Test::Starts(part) => value.starts_with(part.as_str()),
            Test::Ends(part) => value.ends_with(part.as_str()),
            Test::Empty => value.is_empty(),
            Test::NotEmpty => !value.is_empty(),
            Test::Anything => true,
            Test::Between(from, to) => {
                holds(compare(&value, from, numeric()), true, true)
                    && holds(compare(&value, to, numeric()), false, true)
            }
            Test::SameAs(path) => value == fold(&world.walk(store, row, path)),
            Test::NotSameAs(path) => value != fold(&world.walk(store, row, path)),
            Test::InstanceOf(tables) => tables.contains(&row.table),
        }
    }
}

fn holds(order: Ordering, above: bool, equal: bool) -> bool {
    match order {
        Ordering::Equal => equal,
        Ordering::Greater => above,
        Ordering::Less => !above,
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::simulators::servicenow::options::Options;
    use crate::simulators::servicenow::storage::{Row, set};

    fn world() -> World {
        World::new(&Options::default()).expect("a world")
    }

    fn read(world: &World, text: &str) -> Query {
        parse(&world.schema, world.schema.incident, text, &TimeZone::UTC)
    }

    /// Whether a row with these values matches.
    fn matches(text: &str, values: &[(&str, &str)]) -> bool {
        let world = world();
        let mut row = Row::new(world.schema.incident, 7, 1_700_000_000, 0);
        for (name, value) in values {
            let col = world.schema.column(world.schema.incident, name).expect("a column");
            set(&world.schema, &mut row, col, value);
        }
        read(&world, text).matches(&world, world.schema.task_store, &row)
    }

    #[test]
    fn or_binds_to_the_condition_before_it_and_nq_starts_over() {
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
    fn a_doubled_caret_is_a_value_s_own() {
        assert!(matches("correlation_id=a^^b^state=1", &[("correlation_id", "a^b")]));
        assert!(!matches("correlation_id=a^^b^state=2", &[("correlation_id", "a^b")]));
    }

    #[test]
    fn values_compare_without_case_and_trailing_blanks() {
        assert!(matches("correlation_id=KEY", &[("correlation_id", "key  ")]));
        assert!(!matches("correlation_id=key", &[("correlation_id", " key")]));
        assert!(matches("correlation_idINx,KEY", &[("correlation_id", "key")]));
        assert!(matches("correlation_idNOT INx,y", &[("correlation_id", "key")]));
    }

    #[test]
    fn operators_do_what_their_names_say() {
        let row = [("short_description", "Disk full on db-01"), ("urgency", "2"), ("close_notes", "")];
        for (text, holds) in [
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
            assert_eq!(matches(text, &row), holds, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_dropped_and_the_rest_runs() {
        let world = world();
        let query = read(&world, "nonsense=1^state=1^urgencySIMILAR2^caller_id.shoe_size=44");
        assert_eq!(query.dropped, ["nonsense=1", "urgencySIMILAR2", "caller_id.shoe_size=44"]);
        assert_eq!(query.groups[0].len(), 1);
        assert!(matches("nonsense=1", &[]));
        let query = read(&world, "state=1^ORDERBYDESCsys_updated_on^ORDERBYsys_id^ORDERBYnonsense");
        assert_eq!(query.order, [(vec![sys::UPDATED_ON], true), (vec![sys::ID], false)]);
    }

    #[test]
    fn paths_follow_references() {
        let beth = super::super::storage::hex(super::super::world::sys_id_of("sys_user", "beth.anglin"));
        let row = [("assigned_to", beth.as_str())];
        assert!(matches("assigned_to.email=beth.anglin@example.com", &row));
        assert!(!matches("caller_id.email=beth.anglin@example.com", &row));
    }
}
