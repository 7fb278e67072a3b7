//! The instance's answer to a request, classified once at the boundary. The engine matches on these types, never on a
//! status code or a text.

use std::collections::BTreeMap;

use super::{Phase, StateModel};

/// Which version of a row exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowVersion {
    /// sys_id.
    pub sys_id: Box<str>,
    /// `sys_mod_count`; `u64::MAX` for a row that was deleted.
    pub mod_count: u64,
}

/// A row as the instance showed it: raw values, times in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// `sys_id`, 32 lower-case hex digits.
    pub sys_id: String,
    /// `number`; empty if the table has none.
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
    /// True if `active` is false or `closed_at` is set; false if the table lacks these columns or the user may not read
    /// them.
    pub inactive: bool,
    /// `resolved_at`, Unix seconds of the instance; `None` if it is empty or not readable.
    pub resolved_at: Option<i64>,
    /// `closed_at`, Unix seconds of the instance; `None` if it is empty or not readable.
    pub closed_at: Option<i64>,
    /// Raw values of the requested columns; a column that the user may not read is absent.
    pub values: BTreeMap<String, String>,
}

impl Row {
    /// The phase of the ticket.
    pub fn phase(&self, states: &StateModel) -> Phase {
        states.phase_of(&self.state, self.inactive)
    }

    /// When the ticket was resolved or closed, Unix seconds of the instance; `None` while it is open, or if the row does
    /// not tell.
    pub fn ended_at(&self, states: &StateModel) -> Option<i64> {
        match self.phase(states) {
            Phase::Resolved => self.resolved_at,
            Phase::Closed => self.closed_at,
            Phase::None | Phase::New | Phase::InProgress | Phase::OnHold => None,
        }
    }
}

/// The result of reading a row's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Journal {
    /// The journal was readable; it contains these of the requested markers.
    Read(Vec<String>),
    /// Neither `sys_journal_field` nor the row's own journal could be trusted: an empty list proves nothing.
    Inconclusive,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request did not leave this machine: the lease had ended, or no connection could be made.
    NotSent {
        /// The cause, for the log.
        reason: String,
    },
    /// A write was applied, and its answer checked.
    Applied {
        /// The row after the write.
        row: Box<Row>,
        /// Differences between the row and the write (business rules, truncations, blanked choices), for the log.
        warnings: Vec<String>,
    },
    /// A ticket was created, and its row does not carry the correlation that was sent: the user may not write the column,
    /// or a rule or the database has changed the value. It can't be found by its correlation.
    WithoutCorrelation {
        /// The row after the write.
        row: Box<Row>,
        /// What was sent and what the row has.
        reason: String,
    },
    /// A read or a look-up found these rows, each verified to be what was requested. Empty: there is none.
    Rows {
        /// Oldest first.
        rows: Vec<Row>,
        /// The journal of the (single) row, if markers were requested.
        journal: Option<Journal>,
    },
    /// The request failed.
    Failed(Failure),
}

/// Why a request failed, in a form that decides what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides what the engine does.
    pub class: FailureClass,
    /// A stable code for users and metrics, such as `http_503` or `data_policy`.
    pub code: String,
    /// The message of the instance or the network, bounded in length and without secrets.
    pub message: String,
}

impl Answer {
    /// True if no request of this method, or none at all, is sent for a while, whoever wants to: the instance named a time
    /// to wait, or rejects the credentials.
    pub fn is_held_back(&self) -> bool {
        let Self::Failed(Failure { class, .. }) = self else { return false };
        match class {
            FailureClass::Throttled { retry_after } => retry_after.is_some_and(|wait| wait > 0),
            FailureClass::Unauthorized => true,
            _ => false,
        }
    }
}

/// The closed list of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Certainly not applied; worth a retry soon.
    Transient,
    /// Certainly not applied: the instance limits the rate (429).
    Throttled {
        /// Milliseconds to wait, if the instance named them. Any length.
        retry_after: Option<u64>,
    },
    /// Certainly not applied: the instance is down for everybody (maintenance, hibernation) and answered a read, or
    /// refused the connection.
    Unavailable,
    /// 401: the instance rejects the credentials.
    Unauthorized,
    /// The instance rejects the content, and will reject it again (data policy, ACL, invalid value).
    Rejected,
    /// 404 for a row: deleted, or no longer visible.
    Gone,
    /// A unique key is already taken.
    Conflict,
    /// The request was sent, and no trustworthy answer came back.
    Ambiguous {
        /// True if the application itself answered, so its transaction has ended: the write is applied by now, or
        /// never. False if the transaction may still be running.
        transaction_ended: bool,
    },
}
