//! The person on the other side: takes tickets, writes notes, resolves some, while the storm goes on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::storm::Storm;
use crate::simulators::servicenow::Running;

/// How long the person waits between two tickets.
const PAUSE: Duration = Duration::from_millis(60);

/// Tickets that the person works on, at most.
const TICKETS: usize = 200;

/// What the person did.
#[derive(Debug, Clone, Default)]
pub struct Acts {
    /// Tickets taken or resolved: (sys_id, what was done, sys_mod_count afterwards).
    pub versions: Vec<(String, u64)>,
    /// Notes: their texts, each unique.
    pub notes: Vec<String>,
    /// Keys whose ticket the person resolved.
    pub resolved: Vec<String>,
}

/// Works until enough tickets are done or the storm has long been fed.
pub async fn work(storm: Arc<Storm>, simulator: Arc<Running>, acts: Arc<Mutex<Acts>>, stop: CancellationToken) {
    let mut random = fastrand::Rng::with_seed(99);
    let wanted = TICKETS.min(storm.groups.len() / 4);
    let mut groups: Vec<usize> = (0..storm.groups.len()).collect();
    random.shuffle(&mut groups);
    let mut done = 0;
    for _round in 0..50 {
        for &number in &groups {
            if done >= wanted || stop.is_cancelled() {
                return;
            }
            if number % 4 != done % 4 {
                continue;
            }
            let key = &storm.groups[number].key;
            if act(&simulator, key, done, &acts) {
                done += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One act on a ticket; false where there is none that is open.
fn act(simulator: &Running, key: &str, number: usize, acts: &Mutex<Acts>) -> bool {
    let user = ["beth.anglin", "david.loo"][number % 2];
    let note = format!("Looked into it, case {number}.");
    let set = match number % 5 {
        0 => json!({ "state": "6", "close_code": "Solution provided", "close_notes": "Restarted it." }),
        1 | 2 => json!({ "state": "2", "assigned_to": user }),
        _ => json!({}),
    };
    let act = json!({ "correlation_id": key, "user": user, "set": set, "work_notes": note });
    // A person looks at a ticket before working on it; one that is done already is left alone.
    let look = simulator.person(&json!({ "correlation_id": key, "user": user }));
    if look.map_or(true, |row| !matches!(row["state"].as_str(), Some("1" | "2"))) {
        return false;
    }
    let mut acts = acts.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(row) = simulator.person(&act) else { return false };
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    acts.versions.push((text("sys_id"), text("sys_mod_count").parse().unwrap_or(0)));
    acts.notes.push(note);
    if number.is_multiple_of(5) {
        acts.resolved.push(key.to_owned());
    }
    true
}
