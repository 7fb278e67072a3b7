//! The Import Set API: inserts a row into a staging table (`POST /api/now[/v1]/import/{staging}`) and transforms it at
//! once into a row of the target table.
//!
//! Known: the status is always 201. The outcome is in `result`, one element per transform map: `inserted`, `updated`,
//! `ignored`, `error`. Staging columns cut long values, unknown columns are dropped, empty columns do not change the
//! target. The only map here coalesces on a staging column that contains the target's sys_id; if it is empty, the map
//! inserts. Not known, therefore a fault or a setting: whether a row error occurs before or after the commit and names
//! the record; whether a map inserts if the sys_id matches no row. Not implemented: `insertMultiple`, whose response
//! comes before the transformation.

use serde_json::json;

use super::database::Database;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::reply::Reply;
use super::schema::sys;
use super::table_api::{TableRequest, fields_of};
use super::table_storage::{hex, parse_sys_id};
use super::write::{Op, Write, execute};
use super::write_log::Via;

/// Prefix of staging columns.
const PREFIX: &str = "u_";

/// The staging column on which the map coalesces. It contains the target's sys_id.
const COALESCE: &str = "u_sys_id";

/// Staging tables and their target tables.
const MAPS: &[(&str, &str)] = &[("u_nowbridge_incident", "incident")];

/// Returns the target table of a staging table.
pub(super) fn target_of(staging: &str) -> Option<&'static str> {
    MAPS.iter().find(|(name, _)| *name == staging).map(|(_, target)| *target)
}

/// Stages a row, transforms it and returns the outcome.
pub(super) fn commit(instance: &Instance, request: &TableRequest, faults: &Faults, via: Via) -> Reply {
    if request.method != "POST" || request.sys_id.is_some() {
        return Reply::error(405, "Method not supported", None);
    }
    let account = &request.account;
    if !(account.has_role("import_transformer") || account.has_role("itil")) {
        return Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation"));
    }
    let sent = match fields_of(&request.body) {
        Ok(sent) => sent,
        Err(reply) => return reply,
    };
    let (visibility_delay_ms, row_error) = {
        let mut fault_injector = lock(&instance.fault_injector);
        (fault_injector.visibility_delay(faults), fault_injector.import_row_error(faults))
    };
    let mut database = lock(&instance.database);
    let Some(target) = target_of(request.table_name).and_then(|name| database.schema.table(name)) else {
        return Reply::error(400, &format!("Invalid table {}", request.table_name), None);
    };
    let write = |op, table, fields| Write {
        op,
        method: "POST",
        table,
        fields,
        actor: account.actor,
        admin: account.is_admin(),
        via,
        zone: account.zone.clone(),
        input_display_value: false,
        suppress_auto_sys_fields: false,
        visibility_delay_ms,
    };
    let staged = execute(&mut database, &write(Op::Insert, request.table, sent), faults, &instance.options.settings);
    let (key, fields) = match staged {
        Ok(Some(at)) => staged_values(&database, request.table, at),
        Ok(None) | Err(_) => return Reply::error(500, "Exception while executing request: null", None),
    };
    let mut row = json!({
        "transform_map": "nowbridge", "table": target_of(request.table_name), "display_name": "number",
    });
    let outcome = if row_error == Some(false) {
        Err(("error", "Error in the transform script".to_owned()))
    } else {
        match operation(&database, target, &key, instance.options.settings.import_inserts_unknown_sys_id) {
            None => Err(("ignored", "Row transform ignored by onBefore script".to_owned())),
            Some((op, id)) => {
                let fields = fields.into_iter().chain(id).collect();
                let unchanged = database.counts.unchanged;
                match execute(&mut database, &write(op, target, fields), faults, &instance.options.settings) {
                    Ok(Some(at)) => Ok((op, at, database.counts.unchanged > unchanged)),
                    Ok(None) => Err(("error", "Target record not found".to_owned())),
                    Err(error) => Err(("error", error.detail())),
                }
            }
        }
    };
    match outcome {
        Ok((op, at, unchanged)) => {
            let Some(stored) = database.stores[database.schema.tables[target].store].get(at) else {
                return Reply::connection_reset();
            };
            let id = hex(stored.sys_id);
            row["display_value"] = database.raw(stored, database.schema.task.number).into();
            row["record_link"] = format!("{}/api/now/table/incident/{id}", instance.url).into();
            row["sys_id"] = id.into();
            row["status"] = match op {
                _ if unchanged => "ignored",
                Op::Insert => "inserted",
                Op::Update(_) | Op::Delete(_) => "updated",
            }
            .into();
            if unchanged {
                row["status_message"] = "No field values changed".into();
            }
            if row_error == Some(true) {
                row["status"] = "error".into();
                row["error_message"] = "Error in the onAfter script".into();
            }
        }
        Err((status, message)) => {
            row["status"] = status.into();
            row[if status == "error" { "error_message" } else { "status_message" }] = message.into();
        }
    }
    drop(database);
    instance.count("import_rows");
    if faults.staging_table_unreadable {
        return Reply { status: 201, ..Reply::default() };
    }
    let response = json!({"import_set": "ISET0010001", "staging_table": request.table_name, "result": [row]});
    Reply::json(201, response.to_string().into_bytes())
}

/// Returns the operation of the map: an update of the row that the coalesce column names, or an insert. `None`: the
/// map's script ignores the row.
fn operation(
    database: &Database,
    target: usize,
    key: &str,
    inserts_unknown: bool,
) -> Option<(Op, Option<(String, String)>)> {
    if key.is_empty() {
        return Some((Op::Insert, None));
    }
    match parse_sys_id(key).filter(|id| database.locate(target, *id).is_some()) {
        Some(id) => Some((Op::Update(id), None)),
        None if inserts_unknown => Some((Op::Insert, Some(("sys_id".into(), key.into())))),
        None => None,
    }
}

/// Returns the values of a staged row: the coalesce value, and the columns of the target.
fn staged_values(database: &Database, staging: usize, at: u32) -> (String, Vec<(String, String)>) {
    let table = &database.schema.tables[staging];
    let Some(row) = database.stores[table.store].get(at) else { return Default::default() };
    let mut key = String::new();
    let mut fields = Vec::new();
    for col in table.columns.iter().copied().filter(|col| *col > sys::CLASS) {
        let (name, value) = (&database.schema.column_at(table.store, col).name, database.raw(row, col));
        match name.strip_prefix(PREFIX) {
            _ if value.is_empty() => {}
            _ if **name == *COALESCE => key = value.into_owned(),
            Some(name) => fields.push((name.to_owned(), value.into_owned())),
            None => {}
        }
    }
    (key, fields)
}

#[cfg(test)]
mod tests {
    use reqwest::{Method, StatusCode};
    use serde_json::Value;

    use super::super::tests::Bench;
    use super::super::*;
    use super::*;

    const STAGING: &str = "/api/now/import/u_nowbridge_incident";

    async fn post(bench: &Bench, row: &Value) -> Value {
        let response = bench.send(Method::POST, STAGING, row).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let response: Value = response.json().await.expect("JSON");
        assert_eq!(response["result"].as_array().map(Vec::len), Some(1));
        response["result"][0].clone()
    }

    #[tokio::test]
    async fn rows_are_inserted_updated_ignored_or_rejected_and_the_status_is_always_201() {
        let bench = Bench::start(Options::default()).await;
        let row = json!({"u_correlation_id": "k", "u_short_description": "x".repeat(200), "u_nonsense": "y"});
        let (first, second) = (post(&bench, &row).await, post(&bench, &row).await);
        assert_eq!(
            (&first["status"], &second["status"]),
            (&json!("inserted"), &json!("inserted")),
            "without sys_id each row is inserted"
        );
        assert_eq!(first["table"], "incident");
        let id = first["sys_id"].clone();
        let update = json!({"u_sys_id": id, "u_impact": "1", "u_short_description": ""});
        let updated = post(&bench, &update).await;
        assert_eq!((&updated["status"], &updated["sys_id"]), (&json!("updated"), &id));
        assert_eq!(post(&bench, &update).await["status"], "ignored", "no value has changed");
        let stored = bench.running.rows("incident", 0, 10)["rows"][0].clone();
        assert_eq!((&stored["impact"], &stored["short_description"]), (&json!("1"), &json!("x".repeat(160))));
        let rejected = post(&bench, &json!({"u_sys_id": id, "u_state": "7"})).await;
        assert_eq!(rejected["status"], "error");
        assert!(rejected["error_message"].as_str().is_some_and(|text| text.starts_with("Data Policy")), "{rejected}");
        let unknown_id = post(&bench, &json!({"u_sys_id": "0".repeat(32), "u_state": "2"})).await;
        assert_eq!(unknown_id["status"], "ignored");
        assert_eq!(bench.running.rows("u_nowbridge_incident", 0, 0)["total"], 6, "each row was staged");
        let unknown = bench.send(Method::POST, "/api/now/import/incident", &row).await;
        assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_row_error_can_occur_after_the_commit_and_a_response_can_be_empty() {
        let bench = Bench::start(Options::default()).await;
        bench.running.set_faults(&json!({"import_error_after_commit": 1.0})).expect("faults");
        let after = post(&bench, &json!({"u_correlation_id": "k"})).await;
        assert!(after["status"] == "error" && after["sys_id"].is_string(), "{after}");
        let faults = json!({"import_error_after_commit": 0.0, "import_error_before_commit": 1.0});
        bench.running.set_faults(&faults).expect("faults");
        let before = post(&bench, &json!({"u_correlation_id": "k"})).await;
        assert!(before["status"] == "error" && before["sys_id"].is_null(), "{before}");
        assert_eq!(bench.running.rows("incident", 0, 0)["total"], 1);
        bench
            .running
            .set_faults(&json!({"import_error_before_commit": 0.0, "staging_table_unreadable": true}))
            .expect("faults");
        let response = bench.send(Method::POST, STAGING, &json!({"u_correlation_id": "k"})).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.text().await.expect("a body"), "");
        assert_eq!(bench.running.rows("incident", 0, 0)["total"], 2);
    }
}
