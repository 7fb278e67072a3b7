//! Encoded queries: the only way to put a value into `sysparm_query`.
//!
//! ServiceNow's encoded query has no quoting. A caret separates terms and is doubled inside a value; a value that
//! starts with `javascript:` is evaluated on the instance; a comma cannot be escaped inside an `IN` list; an equality
//! with an empty value matches every row whose column is empty. Values that cannot be encoded safely are rejected,
//! never changed.

use std::fmt::Write as _;

/// Maximum length of an encoded query, in bytes after percent-encoding: front ends limit request lines to about 8 KB.
pub const MAX_ENCODED: usize = 6_000;

/// Why a query was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The column name is invalid (dot-walking is allowed).
    #[error("{0:?} is not a column name")]
    Column(String),
    /// The value is empty, which would match every row without a value.
    #[error("the value for {0} is empty, which would match every row without a value")]
    Empty(String),
    /// The instance would execute the value as a script.
    #[error("the value for {0} starts with `javascript:`, which the instance would execute")]
    Script(String),
    /// The value contains a control character or a line break.
    #[error("the value for {0} contains a control character")]
    Control(String),
    /// The value ends with a caret. The separator would follow it, and how ServiceNow reads three carets is not
    /// documented.
    #[error("the value for {0} ends with a caret, which can't be distinguished from a separator")]
    Caret(String),
    /// An element of a list contains a comma.
    #[error("an element of the list for {0} contains a comma, which can't be escaped there")]
    Comma(String),
    /// `or` or `new_query` without a preceding condition.
    #[error("`or` needs a preceding condition")]
    Dangling,
    /// The query has no condition.
    #[error("the query has no condition, so it would match the whole table")]
    NoCondition,
    /// The query is too long for a request line.
    #[error("the encoded query has {0} bytes; the maximum is {MAX_ENCODED}")]
    TooLong(usize),
}

/// How the next condition is joined to the query so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    And,
    Or,
    NewQuery,
}

/// A builder of encoded queries. The first error is kept, and [`Query::encoded`] returns it.
///
/// `and` is the default between conditions. `or` binds to the condition directly before it: `a`, `b`, `or c` means
/// a AND (b OR c). `new_query` starts a group that is OR-ed with all previous conditions.
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

    /// `column = value`. The database ignores case and trailing spaces when it compares: check the rows.
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

    /// `column` is one of `values`. An empty list is rejected.
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

    /// The next condition must hold as well (the default).
    #[must_use]
    pub fn and(mut self) -> Self {
        self.join = Join::And;
        self
    }

    /// The next condition is an alternative to the condition directly before it.
    #[must_use]
    pub fn or(self) -> Self {
        self.joined(Join::Or)
    }

    /// The next condition starts a group that is an alternative to all previous conditions.
    #[must_use]
    pub fn new_query(self) -> Self {
        self.joined(Join::NewQuery)
    }

    /// Sorts by `column`, ascending; several columns apply in order.
    #[must_use]
    pub fn order_by(self, column: &str) -> Self {
        self.ordered("^ORDERBY", column)
    }

    /// Sorts by `column`, descending.
    #[must_use]
    pub fn order_by_desc(self, column: &str) -> Self {
        self.ordered("^ORDERBYDESC", column)
    }

    /// The value of `sysparm_query`, with carets doubled but not percent-encoded: the builder of the URL does that.
    ///
    /// # Errors
    /// The first value or column that was rejected; a query without a condition; a query over [`MAX_ENCODED`] bytes.
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

    /// Writes the separator; returns false after an earlier error or if the column is rejected.
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
    if value.ends_with('^') {
        return Err(QueryError::Caret(column.into()));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_are_joined_in_the_syntax_of_the_instance() {
        let query =
            Query::new().eq("active", "true").eq("a", "1").or().eq("b", "2").new_query().in_list("c", &["x", "y"]);
        let query = query.order_by("sys_updated_on").order_by("sys_id").encoded();
        assert_eq!(query.as_deref(), Ok("active=true^a=1^ORb=2^NQcINx,y^ORDERBYsys_updated_on^ORDERBYsys_id"));
        let query = Query::new().gte("sys_updated_on", "2026-11-23 10:00:00").gt("sys_id", "a^b").encoded();
        assert_eq!(query.as_deref(), Ok("sys_updated_on>=2026-11-23 10:00:00^sys_id>a^^b"));
    }

    #[test]
    fn values_that_cannot_be_encoded_safely_are_rejected() {
        let eq = |value: &str| Query::new().eq("k", value).encoded();
        assert_eq!(eq(""), Err(QueryError::Empty("k".into())));
        assert_eq!(eq("  "), Err(QueryError::Empty("k".into())));
        assert_eq!(eq(" \u{a0}JavaScript:gs.now()"), Err(QueryError::Script("k".into())));
        assert_eq!(eq("a^"), Err(QueryError::Caret("k".into())));
        assert_eq!(eq("a\nb"), Err(QueryError::Control("k".into())));
        assert_eq!(Query::new().in_list("k", &["a,b"]).encoded(), Err(QueryError::Comma("k".into())));
        assert_eq!(Query::new().in_list::<&str>("k", &[]).encoded(), Err(QueryError::Empty("k".into())));
        assert_eq!(Query::new().eq("k=1^NQ", "x").encoded(), Err(QueryError::Column("k=1^NQ".into())));
        assert_eq!(Query::new().or().eq("k", "x").encoded(), Err(QueryError::Dangling));
        assert_eq!(Query::new().order_by("k").encoded(), Err(QueryError::NoCondition));
        assert!(eq(&"x".repeat(5_990)).is_ok());
        assert!(matches!(eq(&"é".repeat(1_000)), Err(QueryError::TooLong(6_004))));
    }

    /// Splits a query as the instance does: at single carets; a doubled caret stands for one.
    fn terms(query: &str) -> Vec<String> {
        query.replace("^^", "\u{1}").split('^').map(|term| term.replace('\u{1}', "^")).collect()
    }

    proptest! {
        #[test]
        fn a_value_never_becomes_a_term(value in ".{1,60}", other in "[a-z^]{1,20}") {
            if let Ok(query) = Query::new().eq("correlation_id", &value).eq("other", &other).encoded() {
                let terms = terms(&query);
                prop_assert_eq!(terms.len(), 2);
                prop_assert_eq!(&terms[0], &format!("correlation_id={value}"));
                prop_assert_eq!(&terms[1], &format!("other={other}"));
            }
        }

        #[test]
        fn scripts_are_always_rejected(blanks in "[ \t\u{3000}]{0,3}", rest in ".{0,20}", upper in any::<u16>()) {
            let word: String = "javascript:".chars().enumerate()
                .map(|(i, c)| if upper >> i & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect();
            let value = format!("{blanks}{word}{rest}");
            prop_assert!(Query::new().eq("k", &value).encoded().is_err());
        }

        #[test]
        fn encoded_values_decode_to_the_original(value in "\\PC{0,40}") {
            let mut url = String::from("http://x/?q=");
            super::super::text::push_encoded(&mut url, &value);
            let url = reqwest::Url::parse(&url).unwrap();
            prop_assert_eq!(url.query_pairs().next().unwrap().1.into_owned(), value);
        }
    }
}
