//! The first word with an instance: does it let us in, who are we there, and what time is it.

use serde_json::Value;

use crate::model::Failure;
use crate::servicenow::{Client, Query};

/// What one request told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// The instance's clock, Unix seconds.
    pub date: Option<i64>,
    /// Our own row in `sys_user`; `None` where the user may not read it.
    pub user: Option<OwnUser>,
}

/// Our own user as the instance has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnUser {
    /// Its id: another one under the same address is another instance.
    pub sys_id: String,
    /// Its time zone; empty where it follows the instance's.
    pub time_zone: String,
}

/// Logs in and looks at our own user: one GET, never repeated.
///
/// # Errors
/// The instance's or the network's refusal; `Unauthorised` means that the credentials do not work.
pub async fn greet(client: &Client) -> Result<Greeting, Failure> {
    let user = client.connection().bridge_user.as_str();
    let query = Query::new().eq("user_name", user).encoded();
    // A user name that can't stand in a query can't be looked up; the greeting is then only a log-in.
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
    // An instance drops a condition it does not like and answers with anybody.
    let own = page.rows.iter().find(|row| text(row, "user_name").eq_ignore_ascii_case(user));
    let user = own.map(|row| OwnUser { sys_id: text(row, "sys_id"), time_zone: text(row, "time_zone") });
    Ok(Greeting { date: page.date, user })
}

/// The instance's clock, Unix seconds; `None` where it does not answer or does not let us in.
pub async fn instance_date(client: &Client) -> Option<i64> {
    match greet(client).await {
        Ok(greeting) => greeting.date,
        Err(failure) => {
            tracing::warn!(code = failure.code, message = failure.message, "the instance does not tell its time");
            None
        }
    }
}
