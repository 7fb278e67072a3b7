//! The bookkeeping of a round of checks, and what the failures of an instance mean for a person.

use super::report::{Check, Outcome, Report};
use super::{Listener, Progress};
use crate::model::{Class, Failure};

/// How one check went, before it has a name.
pub struct Verdict {
    pub outcome: Outcome,
    pub detail: String,
    pub remedy: String,
}

impl Verdict {
    pub fn pass(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Pass, detail: detail.into(), remedy: String::new() }
    }

    pub fn warn(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, detail: detail.into(), remedy: remedy.into() }
    }

    pub fn fail(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, detail: detail.into(), remedy: remedy.into() }
    }

    pub fn skipped(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, detail: detail.into(), remedy: String::new() }
    }

    /// A check that could not be made because the instance failed.
    pub fn failed(failure: &Failure) -> Self {
        let (detail, remedy) = in_words(failure);
        Self::fail(detail, remedy)
    }
}

/// Collects checks and tells a listener.
pub struct Rounds<'a> {
    pub report: Report,
    listener: Listener<'a>,
}

impl<'a> Rounds<'a> {
    pub fn new(listener: Listener<'a>) -> Self {
        Self { report: Report::default(), listener }
    }

    /// Tells what is being looked at.
    pub fn looking(&mut self, what: &str) {
        (self.listener)(Progress::Looking(what));
    }

    /// Notes a check; answers whether what rests on it can be looked at.
    pub fn note(&mut self, id: impl Into<String>, what: impl Into<String>, verdict: Verdict) -> bool {
        let Verdict { outcome, detail, remedy } = verdict;
        let check = Check { id: id.into(), what: what.into(), outcome, detail, remedy };
        (self.listener)(Progress::Done(&check));
        self.report.checks.push(check);
        matches!(outcome, Outcome::Pass | Outcome::Warn)
    }
}

/// What a failure says and what to do about it.
pub fn in_words(failure: &Failure) -> (String, String) {
    let remedy = match (&failure.class, failure.code.as_str()) {
        (Class::Unauthorised, _) | (_, "token_refused") => {
            "check user and password (or client id and secret). The same answer is given to a locked account, to a \
             human user where only machine identities may use Basic authentication (set Identity type to Machine), \
             and where the grant is switched off. Five refusals lock an account, so don't just try again"
        }
        (_, "api_acl") => "give the bridge's user the roles `snc_platform_rest_api_access` and `itil`",
        (_, "acl") => "give the bridge's user a role that may do this, such as `itil` for incidents",
        (_, "data_policy") => "map the columns that the instance names",
        (_, "business_rule") => "talk to the instance's administrators: one of their rules stops the bridge",
        (_, "hibernating") => "wake the instance up: log in at developer.servicenow.com",
        (_, "not_api" | "redirected") => {
            "check the instance's `url`: what answers there is not the REST API (a login page, a proxy, a portal)"
        }
        (_, "proxy_auth") => "put the proxy's user and password into the instance's `proxy` setting",
        (_, "connect") => {
            "check the instance's `url`, name resolution, firewall and proxy; for certificate errors set `ca_file`"
        }
        (Class::Throttled { .. }, _) => "wait: the instance's rate limit is reached; the bridge itself would wait",
        (Class::Unavailable | Class::Transient | Class::Ambiguous { .. }, _) => {
            "try again later; if it stays so, look at the instance's own status"
        }
        (Class::Rejected | Class::Gone | Class::Conflict, _) => "see what the instance says",
    };
    let waiting = match failure.class {
        Class::Throttled { retry_after: Some(ms) } => format!(" (asks for {} s of patience)", ms / 1000),
        _ => String::new(),
    };
    (format!("{}: {}{waiting}", failure.code, failure.message), remedy.to_owned())
}
