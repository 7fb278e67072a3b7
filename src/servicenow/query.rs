//! Encoded queries: the only way a value gets into `sysparm_query`.
//!
//! ServiceNow's encoded query has no quoting. A caret separates terms and is doubled inside a value; a value that
//! begins with `javascript:` is evaluated on the instance; a comma cannot be escaped inside an `IN` list; an equality
//! with an empty value matches every row whose column is empty. Values that cannot be said safely are refused, never
//! changed.

use std::fmt::Write as _;

/// Longest encoded query, in bytes after percent-encoding: front ends cut request lines at about 8 KB.
pub const MAX_ENCODED: usize = 6_000;

/// Why a query was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a column name (dot-walking allowed).
    #[error("{0:?} is not a column name")]
    Column(String),
    /// An empty value would match every row without one.
    #[error("the value for {0} is empty, which would match every row without a value")]
    Empty(String),
    /// The instance would run the value as a script.
    #[error("the value for {0} begins with `javascript:`, which the instance would run")]
    Script(String),
    /// A control character or a line break.
    #[error("the value for {0} holds a control character")]
    Control(String),
    /// A comma in an element of a list.
    #[error("an element of the list for {0} holds a comma, which cannot be escaped there")]
    Comma(String),
    /// Joined at a place where nothing precedes.
    #[error("`or` needs a condition before it")]
    Dangling,
    /// No condition at all.
    #[error("the query has no condition: it would match the whole table")]
    NoCondition,
    /// Too long for a request line.
    #[error("the query takes {0} bytes encoded, more than {MAX_ENCODED}")]
    TooLong(usize),
}

/// How the next condition is joined to what stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    And,
    Or,
    NewQuery,
}

/// A builder of encoded queries; the first error sticks and [`Query::encoded`] returns it.
///
/// `and` is the default between conditions. `or` binds to the condition directly before it: `a`, `b`, `or c` means
/// a AND (b OR c). `new_query` starts a group that is OR-ed with everything before.
#[derive(Debug, Clone)]
pub struct Query {
    text: String,
    order: String,
    conditions: usize,
    join: Join,
    error: Option<QueryError>,
}

impl Default for Query {
    fn default() -> Self {
        Self::new()
    }
}

impl Query {
    /// An empty query.
    pub fn new() -> Self {
        Self { text: String::new(), order: String::new(), conditions: 0, join: Join::And, error: None }
    }

    /// `column = value`. The database compares without regard to case and trailing blanks: check the rows.
    #[must_use]
    pub fn eq(self, column: &str, value: &str) -> Self {
        self.condition(column, "=", value)
    }

    /// `column > value`.
    #[must_use]
    pub fn gt(self, column: &str, value: &str) -> Self {
        self.condition(column, ">", value)
    }

    /// `column >= value`.
    #[must_use]
    pub fn gte(self, column: &str, value: &str) -> Self {
        self.condition(column, ">=", value)
    }

    /// `column < value`.
    #[must_use]
    pub fn lt(self, column: &str, value: &str) -> Self {
        self.condition(column, "<", value)
    }

    /// `column <= value`.
    #[must_use]
    pub fn lte(self, column: &str, value: &str) -> Self {
        self.condition(column, "<=", value)
    }

    /// `column` contains `value`.
    #[must_use]
    pub fn contains(self, column: &str, value: &str) -> Self {
        self.condition(column, "LIKE", value)
    }

    /// `column` is not empty.
    #[must_use]
    pub fn is_not_empty(mut self, column: &str) -> Self {
        if self.start(column) {
            let _ = write!(self.text, "{column}ISNOTEMPTY");
        }
        self
    }

    /// `column` is one of `values`. An empty list is refused.
    #[must_use]
    pub fn in_list<S: AsRef<str>>(mut self, column: &str, values: &[S]) -> Self {
        if values.is_empty() {
            return self.fail(QueryError::Empty(column.into()));
        }
        if !self.start(column) {
            return self;
        }
        let _ = write!(self.text, "{column}IN");
        for (index, value) in values.iter().enumerate() {
            let value = value.as_ref();
            if value.contains(',') {
                return self.fail(QueryError::Comma(column.into()));
            }
            if let Err(error) = check(column, value) {
                return self.fail(error);
            }
            if index > 0 {
                self.text.push(',');
            }
            push_escaped(&mut self.text, value);
        }
        self
    }

    /// The next condition holds as well (the default).
    #[must_use]
    pub fn and(mut self) -> Self {
        self.join = Join::And;
        self
    }

    /// The next condition is an alternative to the one directly before it.
    #[must_use]
    pub fn or(self) -> Self {
        self.joined(Join::Or)
    }

    /// The next condition starts a group that is an alternative to everything before.
    #[must_use]
    pub fn new_query(self) -> Self {
        self.joined(Join::NewQuery)
    }

    /// Sorts by `column`, rising; several apply in order.
    #[must_use]
    pub fn order_by(self, column: &str) -> Self {
        self.ordered("^ORDERBY", column)
    }

    /// Sorts by `column`, falling.
    #[must_use]
    pub fn order_by_desc(self, column: &str) -> Self {
        self.ordered("^ORDERBYDESC", column)
    }

    /// The value of `sysparm_query`, carets doubled, not yet percent-encoded (whoever builds the URL does that once).
    ///
    /// # Errors
    /// The first thing that was refused; a query without a condition; one over [`MAX_ENCODED`] bytes.
    pub fn encoded(self) -> Result<String, QueryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.conditions == 0 {
            return Err(QueryError::NoCondition);
        }
        let mut text = self.text;
        text.push_str(&self.order);
        let length = super::text::encoded_len(&text);
        if length > MAX_ENCODED { Err(QueryError::TooLong(length)) } else { Ok(text) }
    }

    fn condition(mut self, column: &str, operator: &str, value: &str) -> Self {
        if let Err(error) = check(column, value) {
            return self.fail(error);
        }
        if self.start(column) {
            self.text.push_str(column);
            self.text.push_str(operator);
            push_escaped(&mut self.text, value);
        }
        self
    }

    fn joined(mut self, join: Join) -> Self {
        if self.conditions == 0 {
            return self.fail(QueryError::Dangling);
        }
        self.join = join;
        self
    }

    fn ordered(mut self, operator: &str, column: &str) -> Self {
        if !super::text::is_column(column) {
            return self.fail(QueryError::Column(column.into()));
        }
        self.order.push_str(operator);
        self.order.push_str(column);
        self
    }

    /// Writes the separator; false where an earlier error stands or the column is refused.
    fn start(&mut self, column: &str) -> bool {
        if !super::text::is_column(column) && self.error.is_none() {
            self.error = Some(QueryError::Column(column.into()));
        }
        if self.error.is_some() {
            return false;
        }
        if self.conditions > 0 {
            self.text.push_str(match self.join {
                Join::And => "^",
                Join::Or => "^OR",
                Join::NewQuery => "^NQ",
            });
        }
        self.conditions += 1;
        self.join = Join::And;
        true
    }

    fn fail(mut self, error: QueryError) -> Self {
        self.error.get_or_insert(error);
        self
    }
}

fn check(column: &str, value: &str) -> Result<(), QueryError> {
    if value.trim().is_empty() {
        return Err(QueryError::Empty(column.into()));
    }
    if value.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(QueryError::Control(column.into()));
    }
    let bare = value.trim_start().as_bytes();
    if bare.get(..11).is_some_and(|head| head.eq_ignore_ascii_case(b"javascript:")) {
        return Err(QueryError::Script(column.into()));
    }
    Ok(())
}

fn push_escaped(text: &mut String, value: &str) {
    for (index, piece) in value.split('^').enumerate() {
        if index > 0 {
            text.push_str("^^");
        }
        text.push_str(piece);
    }
}
