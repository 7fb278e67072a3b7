//! Failpoints: kill the process by SIGKILL at a chosen point of delivery, so that tests can examine a crash there.
//!
//! Inactive unless `NOWBRIDGE_FAILPOINT` is set to `<point>:<n>`, which kills the process at the n-th hit of that
//! point. As with a real crash, other threads may be anywhere at that moment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The points at which the process can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// A claim was passed to the producer and is not acked yet.
    Claim,
    /// A claim is acked; its request is not sent yet.
    Send,
    /// A request is in flight.
    InFlight,
    /// A write was answered, and its entry was passed to the producer and is not acked yet.
    Entry,
    /// Entries are acked; the offset is not committed yet.
    Commit,
    /// All records of a Kafka transaction are acked; it is not committed yet.
    Transaction,
    /// A Kafka transaction is committed; its outcome is not processed yet.
    Committed,
}

struct Armed {
    point: Failpoint,
    left: AtomicI64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

fn armed() -> Option<&'static Armed> {
    ARMED.get_or_init(|| parse(&std::env::var("NOWBRIDGE_FAILPOINT").ok()?)).as_ref()
}

fn parse(text: &str) -> Option<Armed> {
    let (point, count) = text.split_once(':')?;
    let point = match point {
        "claim" => Failpoint::Claim,
        "send" => Failpoint::Send,
        "in-flight" => Failpoint::InFlight,
        "entry" => Failpoint::Entry,
        "commit" => Failpoint::Commit,
        "transaction" => Failpoint::Transaction,
        "committed" => Failpoint::Committed,
        _ => return None,
    };
    Some(Armed { point, left: AtomicI64::new(count.parse().ok()?) })
}

/// Hits a failpoint.
pub fn hit(point: Failpoint) {
    let Some(armed) = armed().filter(|a| a.point == point) else { return };
    if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        // An error would only mean that the kernel rejected the signal to our own process.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Hits a failpoint after a delay, while other work is in progress.
pub fn hit_after(point: Failpoint, after: Duration) {
    if armed().is_some_and(|a| a.point == point) {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            hit(point);
        });
    }
}
