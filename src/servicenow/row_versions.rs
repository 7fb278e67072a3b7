//! Versions of rows that the routes of one process have seen, for each other.
//!
//! A source route polls a table whose tickets a sink route writes: what it sees may contradict what the sink knows of a
//! row, which then has to be read again (protocol rule 7h). Versions are passed on as they are read, and those that a
//! sink does not take in time are lost: it decides on rows of a limited age in any case.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use crate::model::RowVersion;

/// Number of pages that wait for the slowest route.
const CAPACITY: usize = 64;

/// Passes the versions of an instance's rows on to the routes of this process.
#[derive(Debug, Clone)]
pub struct RowVersions {
    sender: broadcast::Sender<Arc<[RowVersion]>>,
}

/// What one route receives.
#[derive(Debug)]
pub struct RowVersionsReceiver {
    receiver: broadcast::Receiver<Arc<[RowVersion]>>,
}

impl Default for RowVersions {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY) }
    }
}

impl RowVersions {
    /// Receives what is passed on from now on.
    pub fn subscribe(&self) -> RowVersionsReceiver {
        RowVersionsReceiver { receiver: self.sender.subscribe() }
    }

    /// Passes on the versions in a page of rows.
    pub fn pass_on(&self, versions: Vec<RowVersion>) {
        if !versions.is_empty() && self.sender.receiver_count() > 0 {
            // Fails only if nobody listens any more.
            let _ = self.sender.send(versions.into());
        }
    }
}

impl RowVersionsReceiver {
    /// The next versions that were passed on, if there are any.
    pub fn receive(&mut self) -> Option<Arc<[RowVersion]>> {
        loop {
            match self.receiver.try_recv() {
                Ok(versions) => return Some(versions),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_receives_the_versions_and_a_slow_one_the_newest() {
        let versions = RowVersions::default();
        let page = |mod_count| vec![RowVersion { sys_id: "a".into(), mod_count }];
        versions.pass_on(page(0));
        let (mut first, mut second) = (versions.subscribe(), versions.subscribe());
        (1..=100).for_each(|mod_count| versions.pass_on(page(mod_count)));
        for receiver in [&mut first, &mut second] {
            let received: Vec<u64> = std::iter::from_fn(|| receiver.receive()).map(|page| page[0].mod_count).collect();
            assert_eq!(received, (37..=100).collect::<Vec<_>>());
        }
    }
}
