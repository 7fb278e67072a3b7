//! The lease of the stage: it counts from when the coordinator last confirmed this member, and is renewed well before
//! it ends. Transactions commit offsets only within it.

use std::time::Duration;

use super::blocking;
use crate::kafka::{self, PollerHandle};
use crate::runtime::clock;

/// For each request to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// This member of the group.
pub struct Membership {
    handle: PollerHandle,
    /// A topic that the group does not read, and of which it may commit an offset.
    topic: String,
    /// `session.timeout.ms`.
    session_ms: u64,
    /// When the last confirmed request was sent, on the monotonic clock.
    confirmed_at: Option<u64>,
}

impl Membership {
    pub fn new(handle: PollerHandle, topic: String, session: Duration) -> Self {
        let session_ms = u64::try_from(session.as_millis()).unwrap_or(u64::MAX);
        Self { handle, topic, session_ms, confirmed_at: None }
    }

    /// When the lease ends, on the monotonic clock: after four fifths of the session timeout, because clocks differ.
    pub fn lease(&self) -> u64 {
        self.confirmed_at.map_or(0, |at| at.saturating_add(self.session_ms / 5 * 4))
    }

    /// Whether the lease holds.
    pub fn has_lease(&self) -> bool {
        clock::mono() < self.lease()
    }

    /// Whether the lease should be renewed.
    pub fn is_renewal_due(&self) -> bool {
        self.confirmed_at.is_none_or(|at| clock::mono() >= at.saturating_add(self.session_ms / 4))
    }

    /// Renews the lease.
    pub async fn renew(&mut self) -> Result<(), kafka::Error> {
        let (handle, topic) = (self.handle.clone(), self.topic.clone());
        self.confirmed_at = Some(blocking(move || handle.confirm_membership(&topic, TIMEOUT)).await?);
        Ok(())
    }

    /// Returns the number of records from the given offsets to the ends of their partitions.
    pub async fn lag(&self, next_offsets: Vec<(i32, i64)>) -> Result<i64, kafka::Error> {
        let handle = self.handle.clone();
        blocking(move || {
            let mut lag = 0;
            for (partition, next) in next_offsets {
                lag += (handle.watermarks(partition, TIMEOUT)?.1 - next).max(0);
            }
            Ok(lag)
        })
        .await
    }
}
