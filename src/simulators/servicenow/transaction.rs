//! One transaction of the Table API: latency, fault, commit, response.

use std::sync::Arc;
use std::time::Duration;

use super::fault_injection::InjectedFault;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::reply::{LOGIN, Reply, gateway};
use super::table_api::{Api, TableRequest, execute_and_reply, prepare, read};
use super::write::{Write, execute};
use super::write_log::Via;
use super::{em_api, import_api};

pub(super) async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Runs a request: waits `before` milliseconds, commits, waits `after` milliseconds and returns the response, unless a
/// fault is injected.
pub(super) async fn transact(
    instance: &Arc<Instance>,
    request: TableRequest,
    faults: &Arc<Faults>,
    before: u64,
    after: u64,
) -> Reply {
    let _in_flight = instance.in_flight_guard();
    let fault = if faults.table.as_ref().is_none_or(|table| table == request.table_name) {
        lock(&instance.fault_injector).draw(faults, request.is_write(), request.is_list())
    } else {
        None
    };
    match fault {
        Some(InjectedFault::Accepted) => return Reply::bare(202),
        Some(InjectedFault::LoginPage) => return Reply::html(200, LOGIN),
        Some(InjectedFault::Ghost { ms, reset_connection, discarded }) => {
            commit_request_later(instance, request, faults, ms, discarded);
            pause(before).await;
            return if reset_connection { Reply::connection_reset() } else { gateway(504) };
        }
        Some(InjectedFault::ConnectionReset { commits: false }) => {
            pause(before).await;
            return Reply::connection_reset();
        }
        Some(InjectedFault::Status { status, commits: false }) => {
            pause(before).await;
            return fault_response(status);
        }
        _ => {}
    }
    pause(before).await;
    if instance.stop.is_cancelled() {
        return Reply::connection_reset();
    }
    let reply = commit(instance, &request, faults, Via::Rest);
    pause(after).await;
    match fault {
        Some(InjectedFault::ConnectionReset { .. }) => Reply::connection_reset(),
        Some(InjectedFault::Status { status, .. }) => fault_response(status),
        Some(InjectedFault::NullBody) => Reply { body: b"null".to_vec(), ..reply },
        Some(InjectedFault::TruncatedJson) => {
            let mut reply = reply;
            reply.body.truncate(reply.body.len() / 2);
            reply
        }
        Some(InjectedFault::SplicedError) => with_spliced_error(reply),
        _ => reply,
    }
}

/// Executes a request and returns its response.
pub(super) fn commit(instance: &Instance, request: &TableRequest, faults: &Faults, via: Via) -> Reply {
    match request.api {
        Api::Import => return import_api::commit(instance, request, faults, via),
        Api::Events => return em_api::commit(instance, request, faults, via),
        Api::Table => {}
    }
    if !request.is_write() {
        return read(instance, request, faults);
    }
    let delay = lock(&instance.fault_injector).visibility_delay(faults);
    match prepare(request, delay, faults) {
        Ok(write) => execute_and_reply(instance, request, &Write { via, ..write }, faults),
        Err(reply) => reply,
    }
}

const CANCELLED: &str = "Transaction cancelled: maximum execution time exceeded";
const SEE_LOGS: &str = "Transaction cancelled: maximum execution time exceeded Check logs for error trace or enable \
    glide.rest.debug property to verify REST request processing";

pub(super) fn fault_response(status: u16) -> Reply {
    if status == 500 { Reply::error(500, CANCELLED, Some(SEE_LOGS)) } else { gateway(status) }
}

/// The response to a list that the transaction quota ended while it was streamed: half of the list, and an error beside
/// the result.
fn with_spliced_error(mut reply: Reply) -> Reply {
    let Ok(text) = String::from_utf8(reply.body) else { return Reply::json(200, Vec::new()) };
    let end = text.get(..text.len() / 2).and_then(|half| half.rfind("},{")).map_or("{\"result\":[".len(), |at| at + 1);
    let kept = text.get(..end).unwrap_or("{\"result\":[");
    let error = serde_json::json!({"detail": SEE_LOGS, "message": CANCELLED});
    reply.body = format!("{kept}],\"error\":{error},\"status\":\"failure\"}}").into_bytes();
    reply
}

/// Runs `commit` after `ms` milliseconds, or discards it then. `commit` returns whether the instance accepted the
/// write.
pub(super) fn delayed_commit(
    instance: &Arc<Instance>,
    ms: u64,
    discarded: bool,
    commit: impl Future<Output = bool> + Send + 'static,
) {
    lock(&instance.fault_injector).ghost_writes_pending += 1;
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let due = tokio::select! {
            () = pause(ms) => true,
            () = instance.stop.cancelled() => false,
        };
        if due && discarded {
            instance.count("ghost_writes_discarded");
        } else if due {
            instance.count(if commit.await { "ghost_writes_committed" } else { "ghost_writes_rejected" });
        }
        lock(&instance.fault_injector).ghost_writes_pending -= 1;
    });
}

/// Executes a request after `ms` milliseconds, or discards it then.
fn commit_request_later(
    instance: &Arc<Instance>,
    request: TableRequest,
    faults: &Arc<Faults>,
    ms: u64,
    discarded: bool,
) {
    let (later, faults) = (Arc::clone(instance), Arc::clone(faults));
    if request.api != Api::Table {
        let write = async move {
            commit(&later, &request, &faults, Via::GhostWrite);
            true
        };
        return delayed_commit(instance, ms, discarded, write);
    }
    let delay = lock(&instance.fault_injector).visibility_delay(&faults);
    let Ok(write) = prepare(&request, delay, &faults) else { return };
    let write = async move {
        let write = Write { via: Via::GhostWrite, ..write };
        execute(&mut lock(&later.database), &write, &faults, &later.options.settings).is_ok()
    };
    delayed_commit(instance, ms, discarded, write);
}
