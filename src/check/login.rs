//! The first request to an instance: whether the credentials work, the bridge's user and the instance's clock.

use serde_json::Value;

use crate::model::Failure;
use crate::servicenow::{Client, Query};

/// What the first request to an instance returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The instance's clock, Unix seconds; `None` if the response has no `Date`.
    pub date: Option<i64>,
    /// The bridge's own record in `sys_user`; `None` where the user may not read it.
    pub user: Option<IntegrationUser>,
}

/// The bridge's user on the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IntegrationUser {
    /// Identifies the instance: another sys_id at the same URL means another instance.
    pub sys_id: String,
    /// Empty: the instance's default time zone applies.
    pub time_zone: String,
}

/// Logs in and reads the bridge's own user: one GET, never retried.
///
/// # Errors
/// The request failed; `Unauthorized` means that the credentials do not work.
pub async fn log_in(client: &Client) -> Result<Login, Failure> {
    let user = client.connection().bridge_user.as_str();
    let query = Query::new().eq("user_name", user).encoded();
    // A user name that cannot be part of a query cannot be looked up; the request then only tests the credentials.
    let query = query.unwrap_or_else(|_| "sys_idISEMPTY".into());
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "sys_id,user_name,time_zone".to_owned()),
        ("sysparm_limit", "2".to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let page = client.get(0, "/api/now/table/sys_user", &parameters).await?;
    let text = |row: &serde_json::Map<String, Value>, name: &str| {
        row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    // An instance ignores a condition that it does not know, and then returns other users.
    let own = page.rows.iter().find(|row| text(row, "user_name").eq_ignore_ascii_case(user));
    let user = own.map(|row| IntegrationUser { sys_id: text(row, "sys_id"), time_zone: text(row, "time_zone") });
    Ok(Login { date: page.date, user })
}

/// Reads the instance's clock, Unix seconds; `None` if the instance does not respond or rejects the credentials.
pub async fn instance_date(client: &Client) -> Option<i64> {
    match log_in(client).await {
        Ok(login) => login.date,
        Err(failure) => {
            tracing::warn!(code = failure.code, message = failure.message, "can't read the instance's clock");
            None
        }
    }
}
