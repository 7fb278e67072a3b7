//! A test aid: ends the process by SIGKILL at a chosen instruction of the delivery, so that a test can prove what a
//! crash there does. Inert unless `NOWBRIDGE_CRASH_AT` is set, to `<point>:<n>`: the n-th time the point is passed.
//! It guarantees nothing about where other threads are at that moment, as a real crash doesn't either.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Where a crash can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A claim was handed to the producer; its ack has not come.
    Claim,
    /// A claim is acked; its request has not left.
    Send,
    /// A request is out.
    InFlight,
    /// A write was answered and its entry handed to the producer; the ack has not come.
    Entry,
    /// Entries are acked; the offset is not committed.
    Commit,
    /// Everything of a Kafka transaction is handed over and acked; it is not committed.
    Transaction,
    /// A Kafka transaction is committed, and nobody here knows it.
    Committed,
}

struct Armed {
    point: Point,
    left: AtomicI64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

fn armed() -> Option<&'static Armed> {
    ARMED.get_or_init(|| parse(&std::env::var("NOWBRIDGE_CRASH_AT").ok()?)).as_ref()
}

fn parse(text: &str) -> Option<Armed> {
    let (point, count) = text.split_once(':')?;
    let point = match point {
        "claim" => Point::Claim,
        "send" => Point::Send,
        "in-flight" => Point::InFlight,
        "entry" => Point::Entry,
        "commit" => Point::Commit,
        "transaction" => Point::Transaction,
        "committed" => Point::Committed,
        _ => return None,
    };
    Some(Armed { point, left: AtomicI64::new(count.parse().ok()?) })
}

/// The point is passed now.
pub fn pass(point: Point) {
    let Some(armed) = armed().filter(|a| a.point == point) else { return };
    if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        // What follows is over in any case; an error would only mean that the kernel refused our own signal.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// The point is passed a moment from now, while something else is under way.
pub fn pass_soon(point: Point, after: Duration) {
    if armed().is_some_and(|a| a.point == point) {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            pass(point);
        });
    }
}
