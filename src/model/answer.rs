//! What came back from the instance, classified once at the boundary. The engine matches on these and never on a
//! status code or a text.

use std::collections::BTreeMap;

/// A row as the instance showed it: raw values, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// `sys_id`, 32 lower-case hex digits.
    pub sys_id: String,
    /// `number`; empty where the table has none.
    pub number: String,
    /// Raw value of the state column.
    pub state: String,
    /// `sys_mod_count`.
    pub mod_count: u64,
    /// `sys_updated_by`: a user name.
    pub updated_by: String,
    /// `sys_updated_on`, Unix seconds.
    pub updated_on: i64,
    /// `sys_created_on`, Unix seconds.
    pub created_on: i64,
    /// Raw values of the columns that were asked for; a column the user may not read is absent.
    pub values: BTreeMap<String, String>,
}

/// Whether a look at the journal could tell anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Journal {
    /// The journal was readable; these of the markers asked for stand in it.
    Read(Vec<String>),
    /// Neither `sys_journal_field` nor the row's own journal could be trusted: an empty list proves nothing.
    Inconclusive,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing left this machine: the lease had ended, or no connection could be made.
    NotSent {
        /// Why, for the log.
        reason: String,
    },
    /// A write was applied, and its answer checked: this is the row after it.
    Applied {
        /// The row as answered.
        row: Box<Row>,
        /// Differences between what was sent and what stands, for people: business rules, cuts, blanked choices.
        warnings: Vec<String>,
    },
    /// A look or a read found these rows, each verified to be what was asked for. Empty is an answer: there is none.
    Rows {
        /// The rows, oldest first.
        rows: Vec<Row>,
        /// The journal of the (single) row, where markers were asked for.
        journal: Option<Journal>,
    },
    /// No row, and why.
    Failed(Failure),
}

/// Why a request failed, in a form that decides what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The closed class; decides.
    pub class: Class,
    /// A stable code for people and metrics, such as `http_503` or `data_policy`.
    pub code: String,
    /// What the instance or the network said, bounded in length and free of secrets.
    pub message: String,
}

/// Every way a request can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Certainly not applied, and worth trying again soon.
    Transient,
    /// Certainly not applied: the instance asks for less (429).
    Throttled {
        /// Milliseconds to wait, where the instance said so. Any length.
        retry_after: Option<u64>,
    },
    /// Certainly not applied: the instance is down for everybody (maintenance, hibernation) and answered a look or
    /// refused the connection.
    Unavailable,
    /// 401: the credentials do not work.
    Unauthorised,
    /// The instance refused the content, and will again (data policy, ACL, invalid).
    Rejected,
    /// 404 on a row: deleted, or no longer visible.
    Gone,
    /// A unique key is already taken.
    Conflict,
    /// The request was sent, and nothing trustworthy came back.
    Ambiguous {
        /// True where the application itself answered, so its transaction has ended: the write is there or never
        /// will be. False where it may still be running.
        ended: bool,
    },
}
