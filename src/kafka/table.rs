//! Reads one partition of a compacted topic from its start, quickly.

use std::sync::Arc;
use std::time::Duration;

use super::options::Isolation;
use super::{Error, KafkaOptions};

/// Where to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the partition's end as of the call, open transactions included: a reader of committed records waits until
    /// those are settled.
    End,
    /// Behind this offset.
    Including(i64),
}

/// What to read.
#[derive(Debug, Clone)]
pub struct TableRead {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Which records of transactions are seen.
    pub isolation: Isolation,
    /// Where to stop.
    pub until: Until,
    /// Name of a consumer group that this user may use; none is joined.
    pub group: String,
    /// Give up when nothing has come for so long.
    pub patience: Duration,
}

/// A record, borrowed while it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct TableRecord<'a> {
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Offset.
    pub offset: i64,
    /// Unix milliseconds.
    pub timestamp: Option<i64>,
}

/// How far a read came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEnd {
    /// Records seen.
    pub records: u64,
    /// One above the last offset that was looked at or skipped.
    pub next: i64,
}

/// Reads, and calls `each` for every record in order. Blocks: call it from `spawn_blocking`.
pub fn read(
    options: &KafkaOptions,
    what: &TableRead,
    each: &mut dyn FnMut(TableRecord<'_>),
) -> Result<TableEnd, Error> {
    let _ = (options, what, each);
    Err(Error::Unexpected("not built yet".into()))
}
