//! The stage's loop: hears the poller, fills a batch, commits it in a transaction.
//!
//! One transaction at a time, awaited within the loop: so whenever the loop hears that a partition is taken from us, no
//! transaction with its records is open, and what of it is in the batch is only forgotten. A transaction of which nobody
//! knows whether it was committed is settled by starting the producer anew under the same id; then the group's offsets
//! tell what it did, and every partition is read from there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Contents};
use super::membership::Membership;
use super::partition_state::Held;
use super::start_offset::{Begin, Look, Refusal};
use super::{Error, Stage, StatusHandle, blocking};
use crate::kafka::{
    Consumed, Poller, PollerEvent, PollerHandle, PollerSettings, ProduceRequest, TransactionError,
    TransactionalProducer,
};
use crate::model::Epoch;
use crate::runtime::error_chain;
use crate::runtime::metrics;

/// Bounds a transaction, on the broker too: how long a killed member may hold up what others have written.
const TRANSACTION: Duration = Duration::from_secs(10);

/// For each look at the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Records that wait between the poller and the loop.
const CAPACITY: usize = 1024;

/// Events taken from the poller at once.
const TOGETHER: usize = 256;

/// After something that passes by itself, such as a rebalance; and after a failure.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);
/// After a refusal that only a person can mend.
const LONG: Duration = Duration::from_secs(5);

/// How long the loop sleeps where nothing comes.
const IDLE: Duration = Duration::from_millis(500);

/// Runs the stage until `stop` is cancelled.
///
/// # Errors
/// The consumer can't be made, or has ended; what the cluster does is waited out.
pub async fn run(stage: Stage, status: StatusHandle, stop: CancellationToken) -> Result<(), Error> {
    let settings = PollerSettings {
        session_timeout: stage.session_timeout,
        max_poll_interval: stage.max_poll_interval,
        capacity: CAPACITY,
        ..PollerSettings::new(&stage.kafka, &stage.input, &stage.group)
    };
    let made = Poller::spawn(settings);
    let (handle, mut events) = made.map_err(|source| Error::Kafka { topic: stage.input.clone(), source })?;
    let topic = stage.step.topic().to_string();
    let membership = Membership::new(handle.clone(), topic, stage.session_timeout);
    let mut work = Work {
        stage,
        status,
        handle,
        producer: None,
        held: BTreeMap::new(),
        batch: Batch::default(),
        membership,
        not_before: Instant::now(),
        trouble: None,
        looked: None,
    };
    let outcome = work.follow(&mut events, &stop).await;
    if !work.handle.leave(events, TIMEOUT).await {
        tracing::warn!(route = %work.stage.name, "leaving the group took too long; its session will end by itself");
    }
    outcome
}

struct Work {
    stage: Stage,
    status: StatusHandle,
    handle: PollerHandle,
    producer: Option<TransactionalProducer>,
    held: BTreeMap<i32, Held>,
    batch: Batch,
    membership: Membership,
    /// Nothing is tried before.
    not_before: Instant,
    /// What it waits for, once that was told.
    trouble: Option<String>,
    /// When the lag was last looked at.
    looked: Option<Instant>,
}

impl Work {
    async fn follow(
        &mut self,
        events: &mut mpsc::Receiver<PollerEvent>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut heard = Vec::new();
        loop {
            let wait = self.wait();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                n = events.recv_many(&mut heard, TOGETHER), if !self.batch.is_full() => {
                    if n == 0 { return Err(self.ended()) }
                }
                () = tokio::time::sleep(wait) => {}
            }
            for event in heard.drain(..) {
                self.hear(event)?;
            }
            if Instant::now() >= self.not_before {
                self.advance().await;
            }
        }
    }

    fn ended(&self) -> Error {
        Error::Ended(self.stage.input.clone())
    }

    fn wait(&self) -> Duration {
        let pause = self.not_before.saturating_duration_since(Instant::now());
        self.batch.waits().unwrap_or(IDLE).max(pause)
    }

    fn hear(&mut self, event: PollerEvent) -> Result<(), Error> {
        let route = &*self.stage.name;
        match event {
            PollerEvent::Record { epoch, record } => {
                let held = self.held.get_mut(&record.partition);
                if let Some(held) = held
                    && held.take(epoch, record.offset)
                {
                    let step = &self.stage.step;
                    self.batch.add(epoch, &record, |record, out| step.apply(&mut held.memory, record, out));
                }
            }
            PollerEvent::Fetching { partition, epoch, from } => {
                if let Some(held) = self.held.get_mut(&partition) {
                    held.flow(epoch, from);
                }
            }
            PollerEvent::Assigned { partition, epoch } => {
                tracing::info!(route, partition, "was assigned a partition to re-key");
                self.held.insert(partition, Held::new(epoch));
                self.status.update(|s| {
                    s.started = true;
                    s.partitions.insert(partition, None);
                });
            }
            PollerEvent::Revoked { partition, epoch } => {
                tracing::info!(route, partition, "gives a partition back that it re-keyed");
                self.forget(partition);
                self.handle.release(partition, epoch, None);
            }
            PollerEvent::Lost { partition, .. } => {
                tracing::warn!(route, partition, "lost a partition that it re-keyed");
                self.forget(partition);
            }
            PollerEvent::OutOfRange { partition, wanted, low, high, .. } => {
                if let Err(refusal) = self.look().judge(partition, wanted, low, high) {
                    self.refuse(partition, &refusal);
                }
            }
            PollerEvent::Trouble { partition, what } => {
                tracing::warn!(route, partition, what, "kafka is in trouble while re-keying");
            }
            PollerEvent::Committed { .. } | PollerEvent::CommitFailed { .. } => {}
            PollerEvent::Closed => return Err(self.ended()),
        }
        Ok(())
    }

    fn forget(&mut self, partition: i32) {
        self.held.remove(&partition);
        let held = &self.held;
        self.batch.retain(|partition| held.get(&partition).map(|held| held.epoch));
        self.status.update(|s| {
            s.partitions.remove(&partition);
            s.refused.remove(&partition);
        });
    }

    fn refuse(&mut self, partition: i32, refusal: &Refusal) {
        let why = error_chain::chain(refusal);
        tracing::error!(route = %self.stage.name, partition, "{why}");
        if let Some(held) = self.held.get_mut(&partition) {
            held.refuse();
        }
        self.status.update(|s| {
            s.refused.insert(partition, why);
        });
    }

    /// Everything that is due.
    async fn advance(&mut self) {
        if self.held.is_empty() {
            return;
        }
        if !self.has_producer().await || !self.is_member().await {
            return;
        }
        self.begin().await;
        if Instant::now() >= self.not_before && self.trouble.take().is_some() {
            self.status.update(|s| s.trouble = None);
        }
        if self.batch.waits().is_some_and(|wait| wait.is_zero()) {
            self.commit().await;
        }
    }

    /// Makes a producer where there is none. That settles what the one before it left open.
    async fn has_producer(&mut self) -> bool {
        if self.producer.is_none() {
            match TransactionalProducer::init(&self.stage.kafka, &self.stage.transactional_id, TRANSACTION).await {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => self.stumble(&error, LATER),
            }
        }
        self.producer.is_some()
    }

    /// Whether the coordinator knows us still; asked every quarter of a session.
    async fn is_member(&mut self) -> bool {
        if self.membership.is_due() {
            // In a rebalance it is refused; the lease lasts longer than that.
            if let Err(error) = self.membership.renew().await
                && !self.membership.stands()
            {
                self.stumble(&error, SOON);
            }
            self.look_at_lag().await;
        }
        self.membership.stands()
    }

    fn look(&self) -> Look {
        Look {
            options: self.stage.kafka.clone(),
            by: self.handle.clone(),
            input: self.stage.input.clone(),
            group: self.stage.group.clone(),
            topic: self.stage.step.topic().to_string(),
            partitions: self.stage.step.partitions(),
            start: self.stage.start,
            timeout: TIMEOUT,
        }
    }

    /// Begins with partitions that were given to us, and again with all after a transaction in doubt.
    async fn begin(&mut self) {
        let wanted: Vec<(i32, Epoch)> =
            self.held.iter().filter(|(_, h)| h.next.is_none() && !h.refused).map(|(p, h)| (*p, h.epoch)).collect();
        for (partition, epoch) in wanted {
            if self.handle.epoch_of(partition) != Some(epoch) {
                continue;
            }
            let (look, step) = (self.look(), self.stage.step.clone());
            // The memory after the offset: what it was committed with is settled by then.
            let both = move || Ok((look.begin(partition)?, step.load(&look.options, &look.group, partition)?));
            let (from, memory) = match blocking(both).await {
                Ok((Begin::At(offset), memory)) => (offset, memory),
                Ok((Begin::New(offset), memory)) => {
                    if !self.transact(Vec::new(), vec![(partition, epoch, offset)]).await {
                        return;
                    }
                    (offset, memory)
                }
                Err(error @ Refusal::Kafka(_)) => return self.stumble(&error, LATER),
                Err(refusal) => {
                    self.refuse(partition, &refusal);
                    continue;
                }
            };
            if let Some(held) = self.held.get_mut(&partition).filter(|held| held.epoch == epoch) {
                held.begin(from, memory);
                self.handle.fetch(partition, epoch, from);
                self.status.update(|s| {
                    s.partitions.insert(partition, Some(from));
                });
            }
        }
    }

    async fn commit(&mut self) {
        let handle = self.handle.clone();
        self.batch.retain(|partition| handle.epoch_of(partition));
        let (held, step) = (&mut self.held, &self.stage.step);
        self.batch.close(|partition, out| {
            if let Some(held) = held.get_mut(&partition) {
                step.close(&mut held.memory, partition, out);
            }
        });
        let Contents { requests, offsets, records, alerts } = self.batch.contents();
        if offsets.is_empty() || !self.transact(requests, offsets.clone()).await {
            return;
        }
        self.batch.clear();
        for (partition, epoch, next) in &offsets {
            if let Some(held) = self.held.get_mut(partition).filter(|held| held.epoch == *epoch) {
                held.next = Some(*next);
            }
        }
        metrics::rekeyed(&self.stage.name, self.stage.step.name(), Some((records, alerts)));
        self.status.update(|s| {
            s.transactions += 1;
            s.records += records;
            s.alerts += alerts;
            s.partitions.extend(offsets.into_iter().map(|(partition, _, next)| (partition, Some(next))));
        });
    }

    /// One transaction; false where it was not committed, or may not have been.
    async fn transact(&mut self, requests: Vec<ProduceRequest>, offsets: Vec<(i32, Epoch, i64)>) -> bool {
        let Some(producer) = &self.producer else { return false };
        let consumed = Consumed { by: self.handle.clone(), offsets, lease: self.membership.lease() };
        let Err(error) = producer.send_consumed(requests, Some(consumed)).await else { return true };
        metrics::rekeyed(&self.stage.name, self.stage.step.name(), None);
        self.status.update(|s| s.failed += 1);
        match error {
            TransactionError::Retriable(why) => {
                tracing::info!(route = %self.stage.name, why, "a transaction of re-keying was aborted; again");
                self.not_before = Instant::now() + SOON;
            }
            TransactionError::Refused(_) => self.stumble(&error, LONG),
            TransactionError::InDoubt(_) | TransactionError::Fenced(_) | TransactionError::Fatal(_) => {
                self.start_anew();
                self.stumble(&error, SOON);
            }
        }
        false
    }

    /// What the last transaction did is learned from the group's offsets, once a new producer has settled it.
    fn start_anew(&mut self) {
        self.producer = None;
        self.batch.clear();
        for held in self.held.values_mut() {
            held.reset();
        }
    }

    fn stumble(&mut self, error: &dyn std::error::Error, wait: Duration) {
        let what = error_chain::chain(error);
        self.not_before = Instant::now() + wait;
        if self.trouble.as_ref() != Some(&what) {
            tracing::warn!(route = %self.stage.name, what, "re-keying waits");
            self.trouble = Some(what.clone());
            self.status.update(|s| s.trouble = Some(what));
        }
    }

    async fn look_at_lag(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LONG) {
            return;
        }
        self.looked = Some(Instant::now());
        let known = self.held.iter().filter_map(|(partition, held)| Some((*partition, held.next?))).collect();
        if let Ok(lag) = self.membership.lag(known).await {
            metrics::rekey_lag(&self.stage.name, self.stage.step.name(), lag);
            self.status.update(|s| s.lag = lag);
        }
    }
}
