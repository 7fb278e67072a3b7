//! Recording of checks, and the remedies for failures of an instance.

use super::report::{Check, Outcome, Report};
use super::{Progress, ProgressListener};
use crate::model::{Failure, FailureClass};

/// The outcome of one check.
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

    /// A check that failed because a request to the instance failed.
    pub fn failed(failure: &Failure) -> Self {
        let (detail, remedy) = describe(failure);
        Self::fail(detail, remedy)
    }
}

/// Records checks and notifies a listener.
pub struct CheckRun<'a> {
    pub report: Report,
    listener: ProgressListener<'a>,
}

impl<'a> CheckRun<'a> {
    pub fn new(listener: ProgressListener<'a>) -> Self {
        Self { report: Report::default(), listener }
    }

    /// Notifies the listener that a subject is being checked.
    pub fn start(&mut self, subject: &str) {
        (self.listener)(Progress::Started(subject));
    }

    /// Records a check; returns whether checks that depend on it can run.
    pub fn record(&mut self, id: impl Into<String>, title: impl Into<String>, verdict: Verdict) -> bool {
        let Verdict { outcome, detail, remedy } = verdict;
        let check = Check { id: id.into(), title: title.into(), outcome, detail, remedy };
        (self.listener)(Progress::Finished(&check));
        self.report.checks.push(check);
        matches!(outcome, Outcome::Pass | Outcome::Warn)
    }
}

/// Describes a failure; returns the detail and the remedy.
pub fn describe(failure: &Failure) -> (String, String) {
    let remedy = match (&failure.class, failure.code.as_str()) {
        (FailureClass::Unauthorized, _) | (_, "token_rejected") => {
            "check the user and password (or the client id and secret). The instance responds in the same way for a \
             locked account, for a human user where only machine identities may use Basic authentication (set Identity \
             type to Machine), and where the grant is disabled. Five rejections lock an account: do not just retry"
        }
        (_, "api_acl") => "give the bridge's user the roles `snc_platform_rest_api_access` and `itil`",
        (_, "acl") => "give the bridge's user a role with this permission, such as `itil` for incidents",
        (_, "data_policy") => "map the columns that the instance names",
        (_, "business_rule") => "ask the instance's administrators: one of their business rules blocks the bridge",
        (_, "hibernating") => "wake up the instance: log in at developer.servicenow.com",
        (_, "not_api" | "redirected") => {
            "check the instance's `url`: the response is not from the REST API (a login page, a proxy, a portal)"
        }
        (_, "proxy_auth") => "add the proxy's user and password to the instance's `proxy` setting",
        (_, "connect") => {
            "check the instance's `url`, name resolution, firewall and proxy; for certificate errors set `ca_file`"
        }
        (FailureClass::Throttled { .. }, _) => "wait: the instance's rate limit is reached (`run` waits by itself)",
        (FailureClass::Unavailable | FailureClass::Transient | FailureClass::Ambiguous { .. }, _) => {
            "try again later; if the failure persists, check the instance's status"
        }
        (FailureClass::Rejected | FailureClass::Gone | FailureClass::Conflict, _) => "see the instance's message",
    };
    let waiting = match failure.class {
        FailureClass::Throttled { retry_after: Some(ms) } => format!(" (retry after {} s)", ms / 1000),
        _ => String::new(),
    };
    (format!("{}: {}{waiting}", failure.code, failure.message), remedy.to_owned())
}
