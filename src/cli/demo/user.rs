//! The demo's simulated user: assigns tickets, writes notes and resolves some tickets during the alert storm.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::storm::Storm;
use crate::simulators::servicenow::RunningSimulator;

/// Time between two tickets.
const PAUSE: Duration = Duration::from_millis(60);

/// Maximum number of tickets that the user edits.
const MAX_TICKETS: usize = 200;

/// The edits of the user.
#[derive(Debug, Clone, Default)]
pub struct UserActions {
    /// Edited tickets: sys_id, and sys_mod_count after the edit.
    pub versions: Vec<(String, u64)>,
    /// Texts of the notes. Each is unique.
    pub notes: Vec<String>,
    /// Keys of the tickets that the user resolved.
    pub resolved: Vec<String>,
}

/// Edits tickets until enough are edited, or for 50 rounds.
pub async fn work(
    storm: Arc<Storm>,
    simulator: Arc<RunningSimulator>,
    actions: Arc<Mutex<UserActions>>,
    stop: CancellationToken,
) {
    let mut random = fastrand::Rng::with_seed(99);
    let limit = MAX_TICKETS.min(storm.groups.len() / 4);
    let mut groups: Vec<usize> = (0..storm.groups.len()).collect();
    random.shuffle(&mut groups);
    let mut edited = 0;
    for _round in 0..50 {
        for &number in &groups {
            if edited >= limit || stop.is_cancelled() {
                return;
            }
            if number % 4 != edited % 4 {
                continue;
            }
            let key = &storm.groups[number].key;
            if edit_ticket(&simulator, key, edited, &actions) {
                edited += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Edits the ticket of a key. Returns false if it has no open ticket.
fn edit_ticket(simulator: &RunningSimulator, key: &str, number: usize, actions: &Mutex<UserActions>) -> bool {
    let user = ["beth.anglin", "david.loo"][number % 2];
    let note = format!("Looked into it, case {number}.");
    let set = match number % 5 {
        0 => json!({ "state": "6", "close_code": "Solution provided", "close_notes": "Restarted it." }),
        1 | 2 => json!({ "state": "2", "assigned_to": user }),
        _ => json!({}),
    };
    let edit = json!({ "correlation_id": key, "user": user, "set": set, "work_notes": note });
    // Without changes, the request reads the ticket. A user does not edit a resolved ticket.
    let row = simulator.edit_as_user(&json!({ "correlation_id": key, "user": user }));
    if row.map_or(true, |row| !matches!(row["state"].as_str(), Some("1" | "2"))) {
        return false;
    }
    let mut actions = actions.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(row) = simulator.edit_as_user(&edit) else { return false };
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    actions.versions.push((text("sys_id"), text("sys_mod_count").parse().unwrap_or(0)));
    actions.notes.push(note);
    if number.is_multiple_of(5) {
        actions.resolved.push(key.to_owned());
    }
    true
}
