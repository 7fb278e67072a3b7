//! One transaction of the Table API: wait, be struck perhaps, commit, answer.

use std::sync::Arc;
use std::time::Duration;

use super::fault_injection::Strike;
use super::faults::Faults;
use super::history::Via;
use super::instance::{Instance, lock};
use super::reply::{LOGIN, Reply, gateway};
use super::table_api::{Door, TableRequest, perform, prepare, read};
use super::write::{Write, execute};
use super::{em_api, import_api};

pub(super) async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Waits, is struck perhaps, commits, waits, answers.
pub(super) async fn transact(
    instance: &Arc<Instance>,
    request: TableRequest,
    faults: &Arc<Faults>,
    before: u64,
    after: u64,
) -> Reply {
    let _running = instance.run();
    let strike = if faults.table.as_ref().is_none_or(|table| table == request.table_name) {
        lock(&instance.strikes).draw(faults, request.is_write(), request.is_list())
    } else {
        None
    };
    match strike {
        Some(Strike::Accepted) => return Reply::bare(202),
        Some(Strike::Html) => return Reply::html(200, LOGIN),
        Some(Strike::Ghost { ms, cut, refused }) => {
            haunt_request(instance, request, faults, ms, refused);
            pause(before).await;
            return if cut { Reply::cut() } else { gateway(504) };
        }
        Some(Strike::Cut { commits: false }) => {
            pause(before).await;
            return Reply::cut();
        }
        Some(Strike::Status { status, commits: false }) => {
            pause(before).await;
            return struck_status(status);
        }
        _ => {}
    }
    pause(before).await;
    if instance.stop.is_cancelled() {
        return Reply::cut();
    }
    let reply = commit(instance, &request, faults, Via::Rest);
    pause(after).await;
    match strike {
        Some(Strike::Cut { .. }) => Reply::cut(),
        Some(Strike::Status { status, .. }) => struck_status(status),
        Some(Strike::Null) => Reply { body: b"null".to_vec(), ..reply },
        Some(Strike::CutJson) => {
            let mut reply = reply;
            reply.body.truncate(reply.body.len() / 2);
            reply
        }
        Some(Strike::Spliced) => spliced(reply),
        _ => reply,
    }
}

/// Executes a request and answers it.
pub(super) fn commit(instance: &Instance, request: &TableRequest, faults: &Faults, via: Via) -> Reply {
    match request.door {
        Door::Import => return import_api::commit(instance, request, faults, via),
        Door::Events => return em_api::commit(instance, request, faults, via),
        Door::Table => {}
    }
    if !request.is_write() {
        return read(instance, request, faults);
    }
    let late = lock(&instance.strikes).late(faults);
    match prepare(request, late, faults) {
        Ok(write) => perform(instance, request, &Write { via, ..write }, faults),
        Err(reply) => reply,
    }
}

const CANCELLED: &str = "Transaction cancelled: maximum execution time exceeded";
const SEE_LOGS: &str = "Transaction cancelled: maximum execution time exceeded Check logs for error trace or enable \
    glide.rest.debug property to verify REST request processing";

pub(super) fn struck_status(status: u16) -> Reply {
    if status == 500 { Reply::error(500, CANCELLED, Some(SEE_LOGS)) } else { gateway(status) }
}

/// A list that the quota ended while it was streamed: half of it, and an error beside the result.
fn spliced(mut reply: Reply) -> Reply {
    let Ok(text) = String::from_utf8(reply.body) else { return Reply::json(200, Vec::new()) };
    let end = text.get(..text.len() / 2).and_then(|half| half.rfind("},{")).map_or("{\"result\":[".len(), |at| at + 1);
    let kept = text.get(..end).unwrap_or("{\"result\":[");
    let error = serde_json::json!({"detail": SEE_LOGS, "message": CANCELLED});
    reply.body = format!("{kept}],\"error\":{error},\"status\":\"failure\"}}").into_bytes();
    reply
}

/// Lets something happen so much later, or be refused then; `strike` is told to happen, and answers whether it was taken.
pub(super) fn delayed_commit(
    instance: &Arc<Instance>,
    ms: u64,
    refused: bool,
    strike: impl Future<Output = bool> + Send + 'static,
) {
    lock(&instance.strikes).ghosts_pending += 1;
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let due = tokio::select! {
            () = pause(ms) => true,
            () = instance.stop.cancelled() => false,
        };
        if due && refused {
            instance.count("ghosts_refused");
        } else if due {
            instance.count(if strike.await { "ghosts_committed" } else { "ghosts_rejected" });
        }
        lock(&instance.strikes).ghosts_pending -= 1;
    });
}

/// Lets a request happen later, or be refused then.
fn haunt_request(instance: &Arc<Instance>, request: TableRequest, faults: &Arc<Faults>, ms: u64, refused: bool) {
    let (by, faults) = (Arc::clone(instance), Arc::clone(faults));
    if request.door != Door::Table {
        let strike = async move {
            commit(&by, &request, &faults, Via::Ghost);
            true
        };
        return delayed_commit(instance, ms, refused, strike);
    }
    let late = lock(&instance.strikes).late(&faults);
    let Ok(write) = prepare(&request, late, &faults) else { return };
    let strike = async move {
        let write = Write { via: Via::Ghost, ..write };
        execute(&mut lock(&by.world), &write, &faults, &by.options.switches).is_ok()
    };
    delayed_commit(instance, ms, refused, strike);
}
