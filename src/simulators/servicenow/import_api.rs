//! The Import Set API: one row for a staging table (`POST /api/now[/v1]/import/{staging}`), transformed at once into a
//! row of the target table.
//!
//! Known: the answer is 201 whatever became of the row; what did become of it stands in `result`, an element for each
//! transform map: `inserted`, `updated`, `ignored`, `error`. Staging columns cut what is too long and drop what they
//! don't know, empty ones leave the target alone. The one map here coalesces on a staging column that holds the
//! target's sys_id; empty, it inserts. Not known, and so drawn or switched: whether a row error comes before the commit
//! or after it, and names the record; whether a map inserts where the sys_id names no row. `insertMultiple`, which
//! answers before anything is transformed, is not here.

use serde_json::json;

use super::faults::Faults;
use super::history::Via;
use super::instance::{Instance, lock};
use super::reply::Reply;
use super::schema::sys;
use super::storage::{hex, parse_sys_id};
use super::table_api::{TableRequest, fields_of};
use super::world::World;
use super::write::{Op, Write, execute};

/// Where staging columns begin.
const PREFIX: &str = "u_";

/// The staging column on which the map coalesces, with the target's sys_id.
const COALESCE: &str = "u_sys_id";

/// Staging tables and the tables that they are transformed into.
const MAPS: &[(&str, &str)] = &[("u_nowbridge_incident", "incident")];

/// The target of a staging table.
pub(super) fn target_of(staging: &str) -> Option<&'static str> {
    MAPS.iter().find(|(name, _)| *name == staging).map(|(_, target)| *target)
}

/// Stages a row, transforms it and tells what became of it.
pub(super) fn commit(instance: &Instance, request: &TableRequest, faults: &Faults, via: Via) -> Reply {
    if request.method != "POST" || request.sys_id.is_some() {
        return Reply::error(405, "Method not supported", None);
    }
    let account = &request.account;
    if !(account.has("import_transformer") || account.has("itil")) {
        return Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation"));
    }
    let sent = match fields_of(&request.body) {
        Ok(sent) => sent,
        Err(reply) => return reply,
    };
    let (late, breaks) = {
        let mut strikes = lock(&instance.strikes);
        (strikes.late(faults), strikes.breaks_row(faults))
    };
    let mut world = lock(&instance.world);
    let Some(target) = target_of(request.table_name).and_then(|name| world.schema.table(name)) else {
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
        by_label: false,
        keeps_stamps: false,
        late_ms: late,
    };
    let staged = execute(&mut world, &write(Op::Insert, request.table, sent), faults, &instance.options.switches);
    let (key, fields) = match staged {
        Ok(Some(at)) => staged_values(&world, request.table, at),
        Ok(None) | Err(_) => return Reply::error(500, "Exception while executing request: null", None),
    };
    let mut row = json!({
        "transform_map": "nowbridge", "table": target_of(request.table_name), "display_name": "number",
    });
    let done = if breaks == Some(false) {
        Err(("error", "Error in the transform script".to_owned()))
    } else {
        match operation(&world, target, &key, instance.options.switches.import_inserts_unknown) {
            None => Err(("ignored", "Row transform ignored by onBefore script".to_owned())),
            Some((op, id)) => {
                let fields = fields.into_iter().chain(id).collect();
                let unchanged = world.counts.unchanged;
                match execute(&mut world, &write(op, target, fields), faults, &instance.options.switches) {
                    Ok(Some(at)) => Ok((op, at, world.counts.unchanged > unchanged)),
                    Ok(None) => Err(("error", "Target record not found".to_owned())),
                    Err(refusal) => Err(("error", refusal.detail())),
                }
            }
        }
    };
    match done {
        Ok((op, at, unchanged)) => {
            let Some(stored) = world.stores[world.schema.tables[target].store].get(at) else { return Reply::cut() };
            let id = hex(stored.sys_id);
            row["display_value"] = world.raw(stored, world.schema.task.number).into();
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
            if breaks == Some(true) {
                row["status"] = "error".into();
                row["error_message"] = "Error in the onAfter script".into();
            }
        }
        Err((status, why)) => {
            row["status"] = status.into();
            row[if status == "error" { "error_message" } else { "status_message" }] = why.into();
        }
    }
    drop(world);
    instance.count("import_rows");
    if faults.import_unreadable {
        return Reply { status: 201, ..Reply::default() };
    }
    let answer = json!({"import_set": "ISET0010001", "staging_table": request.table_name, "result": [row]});
    Reply::json(201, answer.to_string().into_bytes())
}

/// What the map does: what the coalesce column names, or an insert; `None`: its script ignores the row.
fn operation(world: &World, target: usize, key: &str, inserts_unknown: bool) -> Option<(Op, Option<(String, String)>)> {
    if key.is_empty() {
        return Some((Op::Insert, None));
    }
    match parse_sys_id(key).filter(|id| world.locate(target, *id).is_some()) {
        Some(id) => Some((Op::Update(id), None)),
        None if inserts_unknown => Some((Op::Insert, Some(("sys_id".into(), key.into())))),
        None => None,
    }
}

/// What the staging row holds, cut as its columns cut: the coalesce value, and the target's columns.
fn staged_values(world: &World, staging: usize, at: u32) -> (String, Vec<(String, String)>) {
    let table = &world.schema.tables[staging];
    let Some(row) = world.stores[table.store].get(at) else { return Default::default() };
    let mut key = String::new();
    let mut fields = Vec::new();
    for col in table.columns.iter().copied().filter(|col| *col > sys::CLASS) {
        let (name, value) = (&world.schema.def(table.store, col).name, world.raw(row, col));
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
        let answer = bench.send(Method::POST, STAGING, row).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["result"].as_array().map(Vec::len), Some(1));
        answer["result"][0].clone()
    }

    #[tokio::test]
    async fn rows_are_inserted_updated_ignored_and_in_error_and_all_are_answered_201() {
        let bench = Bench::start(Options::default()).await;
        let row = json!({"u_correlation_id": "k", "u_short_description": "x".repeat(200), "u_nonsense": "y"});
        let (first, second) = (post(&bench, &row).await, post(&bench, &row).await);
        assert_eq!((&first["status"], &second["status"]), (&json!("inserted"), &json!("inserted")), "no key: new rows");
        assert_eq!(first["table"], "incident");
        let id = first["sys_id"].clone();
        let update = json!({"u_sys_id": id, "u_impact": "1", "u_short_description": ""});
        let updated = post(&bench, &update).await;
        assert_eq!((&updated["status"], &updated["sys_id"]), (&json!("updated"), &id));
        assert_eq!(post(&bench, &update).await["status"], "ignored", "nothing has changed");
        let stands = bench.running.rows("incident", 0, 10)["rows"][0].clone();
        assert_eq!((&stands["impact"], &stands["short_description"]), (&json!("1"), &json!("x".repeat(160))));
        let refused = post(&bench, &json!({"u_sys_id": id, "u_state": "7"})).await;
        assert_eq!(refused["status"], "error");
        assert!(refused["error_message"].as_str().is_some_and(|why| why.starts_with("Data Policy")), "{refused}");
        let gone = post(&bench, &json!({"u_sys_id": "0".repeat(32), "u_state": "2"})).await;
        assert_eq!(gone["status"], "ignored");
        assert_eq!(bench.running.rows("u_nowbridge_incident", 0, 0)["total"], 6, "each row was staged");
        let unknown = bench.send(Method::POST, "/api/now/import/incident", &row).await;
        assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_row_error_can_come_after_the_commit_and_an_answer_can_be_empty() {
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
            .set_faults(&json!({"import_error_before_commit": 0.0, "import_unreadable": true}))
            .expect("faults");
        let answer = bench.send(Method::POST, STAGING, &json!({"u_correlation_id": "k"})).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.text().await.expect("a body"), "");
        assert_eq!(bench.running.rows("incident", 0, 0)["total"], 2);
    }
}
