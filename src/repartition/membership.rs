//! Until when the partitions are certainly ours: the lease, counted from when the coordinator last confirmed this member,
//! and renewed well before it ends. A transaction is begun only within it.

use std::time::Duration;

use super::blocking;
use crate::kafka::{self, PollerHandle};
use crate::runtime::clock;

/// For each look at the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// This member of the group.
pub struct Membership {
    handle: PollerHandle,
    /// A topic that the group may commit an offset of and does not read.
    topic: String,
    /// Milliseconds.
    session: u64,
    /// When the coordinator was last asked and knew us, on the mono clock.
    proven: Option<u64>,
}

impl Membership {
    pub fn new(handle: PollerHandle, topic: String, session: Duration) -> Self {
        Self { handle, topic, session: u64::try_from(session.as_millis()).unwrap_or(u64::MAX), proven: None }
    }

    /// When the lease ends, on the mono clock: a fifth before the coordinator's session, since clocks differ.
    pub fn lease(&self) -> u64 {
        self.proven.map_or(0, |at| at.saturating_add(self.session / 5 * 4))
    }

    /// Whether the lease stands.
    pub fn stands(&self) -> bool {
        clock::mono() < self.lease()
    }

    /// Whether it should be renewed.
    pub fn is_due(&self) -> bool {
        self.proven.is_none_or(|at| clock::mono() >= at.saturating_add(self.session / 4))
    }

    /// Asks the coordinator.
    pub async fn renew(&mut self) -> Result<(), kafka::Error> {
        let (handle, topic) = (self.handle.clone(), self.topic.clone());
        self.proven = Some(blocking(move || handle.prove(&topic, TIMEOUT)).await?);
        Ok(())
    }

    /// Records between these offsets and the ends of their partitions.
    pub async fn lag(&self, known: Vec<(i32, i64)>) -> Result<i64, kafka::Error> {
        let handle = self.handle.clone();
        blocking(move || {
            let mut lag = 0;
            for (partition, next) in known {
                lag += (handle.watermarks(partition, TIMEOUT)?.1 - next).max(0);
            }
            Ok(lag)
        })
        .await
    }
}
