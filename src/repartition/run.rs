//! The loop of a stage: handles the poller's events, fills a batch, and commits it in a transaction.
//!
//! There is one transaction at a time, and the loop awaits it. So when the loop handles a revocation, no transaction
//! with records of the partition is open, and the partition is only removed from the batch. A transaction whose outcome
//! is unknown is settled by a new producer with the same transactional id. The group's offsets then tell whether it was
//! committed, and all partitions are restarted there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Contents};
use super::membership::Membership;
use super::partition_state::PartitionState;
use super::start_offset::{StartError, StartOffset, StartOffsetLookup};
use super::{Error, Stage, StatusHandle, blocking};
use crate::kafka::{
    ConsumedOffset, ConsumedOffsets, Poller, PollerEvent, PollerHandle, PollerSettings, ProduceRequest,
    TransactionError, TransactionalProducer,
};
use crate::model::Epoch;
use crate::runtime::error_chain;
use crate::runtime::metrics;

/// Timeout of a transaction, on the broker too: for this long, the open transaction of a killed member can block the
/// readers of other members' records.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// For each request to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Records in the channel between the poller and the loop.
const CAPACITY: usize = 1024;

/// Events that are received at once.
const MAX_EVENTS: usize = 256;

/// Delay after an error that passes by itself, such as a rebalance.
const SHORT_DELAY: Duration = Duration::from_millis(100);
/// Delay after other errors.
const LONG_DELAY: Duration = Duration::from_secs(1);
/// Delay after a rejected record, which a user must resolve.
const REJECTED_DELAY: Duration = Duration::from_secs(5);

/// How often the lag is determined, at most.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// How long the loop sleeps without events.
const IDLE: Duration = Duration::from_millis(500);

/// Runs the stage until `stop` is canceled.
///
/// # Errors
/// The consumer cannot be created, or has ended. Errors of the cluster are retried.
pub async fn run(stage: Stage, status: StatusHandle, stop: CancellationToken) -> Result<(), Error> {
    let settings = PollerSettings {
        session_timeout: stage.session_timeout,
        max_poll_interval: stage.max_poll_interval,
        capacity: CAPACITY,
        ..PollerSettings::new(&stage.kafka, &stage.input, &stage.group)
    };
    let spawned = Poller::spawn(settings);
    let (handle, mut events) = spawned.map_err(|source| Error::Kafka { topic: stage.input.clone(), source })?;
    let topic = stage.step.topic().to_string();
    let membership = Membership::new(handle.clone(), topic, stage.session_timeout);
    let mut runner = Runner {
        stage,
        status,
        handle,
        producer: None,
        partitions: BTreeMap::new(),
        batch: Batch::default(),
        membership,
        not_before: Instant::now(),
        waiting_reason: None,
        lag_updated_at: None,
    };
    let result = runner.run(&mut events, &stop).await;
    if !runner.handle.leave(events, TIMEOUT).await {
        tracing::warn!(
            route = %runner.stage.name,
            "leaving the consumer group timed out; the broker removes this member after its session timeout"
        );
    }
    result
}

struct Runner {
    stage: Stage,
    status: StatusHandle,
    handle: PollerHandle,
    producer: Option<TransactionalProducer>,
    partitions: BTreeMap<i32, PartitionState>,
    batch: Batch,
    membership: Membership,
    /// Nothing is attempted before this instant.
    not_before: Instant,
    /// The last error, while the stage makes no progress.
    waiting_reason: Option<String>,
    lag_updated_at: Option<Instant>,
}

impl Runner {
    async fn run(&mut self, events: &mut mpsc::Receiver<PollerEvent>, stop: &CancellationToken) -> Result<(), Error> {
        let mut received = Vec::new();
        loop {
            let wait = self.wait();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                n = events.recv_many(&mut received, MAX_EVENTS), if !self.batch.is_full() => {
                    if n == 0 { return Err(self.ended()) }
                }
                () = tokio::time::sleep(wait) => {}
            }
            for event in received.drain(..) {
                self.handle_event(event)?;
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
        let delay = self.not_before.saturating_duration_since(Instant::now());
        self.batch.remaining_wait().unwrap_or(IDLE).max(delay)
    }

    fn handle_event(&mut self, event: PollerEvent) -> Result<(), Error> {
        let (route, stage) = (&*self.stage.name, self.stage.step.name());
        match event {
            PollerEvent::Record { epoch, record } => {
                let state = self.partitions.get_mut(&record.partition);
                if let Some(state) = state
                    && state.accept(epoch, record.offset)
                {
                    let step = &self.stage.step;
                    self.batch.add(epoch, &record, |record, out| step.apply(&mut state.memory, record, out));
                }
            }
            PollerEvent::Fetching { partition, epoch, from } => {
                if let Some(state) = self.partitions.get_mut(&partition) {
                    state.fetch_started(epoch, from);
                }
            }
            PollerEvent::Assigned { partition, epoch } => {
                tracing::info!(route, stage, partition, "partition assigned");
                self.partitions.insert(partition, PartitionState::new(epoch));
                self.status.update(|s| {
                    s.started = true;
                    s.partitions.insert(partition, None);
                });
            }
            PollerEvent::Revoked { partition, epoch } => {
                tracing::info!(route, stage, partition, "partition revoked");
                self.remove(partition);
                self.handle.release(partition, epoch, None);
            }
            PollerEvent::Lost { partition, .. } => {
                tracing::warn!(route, stage, partition, "partition lost");
                self.remove(partition);
            }
            PollerEvent::OutOfRange { partition, wanted, low, high, .. } => {
                if let Err(error) = self.lookup().check_range(partition, wanted, low, high) {
                    self.block(partition, &error);
                }
            }
            PollerEvent::Error { partition, error } => {
                tracing::warn!(route, stage, partition, error, "Kafka error");
            }
            PollerEvent::Committed { .. } | PollerEvent::CommitFailed { .. } => {}
            PollerEvent::Closed => return Err(self.ended()),
        }
        Ok(())
    }

    fn remove(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        let partitions = &self.partitions;
        self.batch.retain(|partition| partitions.get(&partition).map(|state| state.epoch));
        self.status.update(|s| {
            s.partitions.remove(&partition);
            s.blocked.remove(&partition);
        });
    }

    /// Stops reading a partition until a user acts.
    fn block(&mut self, partition: i32, error: &StartError) {
        let reason = error_chain::chain(error);
        tracing::error!(route = %self.stage.name, stage = self.stage.step.name(), partition, "{reason}");
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.block();
        }
        self.status.update(|s| {
            s.blocked.insert(partition, reason);
        });
    }

    /// Does everything that is due.
    async fn advance(&mut self) {
        if self.partitions.is_empty() {
            return;
        }
        if !self.ensure_producer().await || !self.ensure_lease().await {
            return;
        }
        self.start_partitions().await;
        if Instant::now() >= self.not_before && self.waiting_reason.take().is_some() {
            self.status.update(|s| s.waiting_reason = None);
        }
        if self.batch.remaining_wait().is_some_and(|wait| wait.is_zero()) {
            self.commit().await;
        }
    }

    /// Creates a producer if there is none, which settles the open transaction of the previous one.
    async fn ensure_producer(&mut self) -> bool {
        if self.producer.is_none() {
            let (options, id) = (&self.stage.kafka, &self.stage.transactional_id);
            match TransactionalProducer::init(options, id, TRANSACTION_TIMEOUT).await {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => self.wait_after(&error, LONG_DELAY),
            }
        }
        self.producer.is_some()
    }

    /// Renews the lease every quarter of a session; false if it does not hold.
    async fn ensure_lease(&mut self) -> bool {
        if self.membership.is_renewal_due() {
            // The coordinator rejects it during a rebalance; the lease lasts longer than that.
            if let Err(error) = self.membership.renew().await
                && !self.membership.has_lease()
            {
                self.wait_after(&error, SHORT_DELAY);
            }
            self.update_lag().await;
        }
        self.membership.has_lease()
    }

    fn lookup(&self) -> StartOffsetLookup {
        StartOffsetLookup {
            options: self.stage.kafka.clone(),
            consumer: self.handle.clone(),
            input: self.stage.input.clone(),
            group: self.stage.group.clone(),
            topic: self.stage.step.topic().to_string(),
            partitions: self.stage.step.partitions(),
            start: self.stage.start,
            timeout: TIMEOUT,
        }
    }

    /// Starts newly assigned partitions, and all partitions after an ambiguous transaction.
    async fn start_partitions(&mut self) {
        let is_startable = |state: &PartitionState| state.next.is_none() && !state.is_blocked;
        let startable: Vec<(i32, Epoch)> = self
            .partitions
            .iter()
            .filter(|(_, state)| is_startable(state))
            .map(|(partition, state)| (*partition, state.epoch))
            .collect();
        for (partition, epoch) in startable {
            if self.handle.epoch_of(partition) != Some(epoch) {
                continue;
            }
            let (lookup, step, route) = (self.lookup(), self.stage.step.clone(), self.stage.name.clone());
            // The memory is loaded after the offset, when the transaction that committed it is settled.
            let load =
                move || Ok((lookup.find(partition)?, step.load(&route, &lookup.options, &lookup.group, partition)?));
            let (from, memory) = match blocking(load).await {
                Ok((StartOffset::Committed(offset), memory)) => (offset, memory),
                Ok((StartOffset::New(offset), memory)) => {
                    let offsets = vec![ConsumedOffset { partition, epoch, next: offset }];
                    if !self.transact(Vec::new(), offsets).await {
                        return;
                    }
                    (offset, memory)
                }
                Err(error @ StartError::Kafka(_)) => return self.wait_after(&error, LONG_DELAY),
                Err(error) => {
                    self.block(partition, &error);
                    continue;
                }
            };
            if let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.epoch == epoch) {
                state.start(from, memory);
                self.handle.fetch(partition, epoch, from);
                self.status.update(|s| {
                    s.partitions.insert(partition, Some(from));
                });
            }
        }
    }

    /// Commits the batch in a transaction.
    async fn commit(&mut self) {
        let handle = self.handle.clone();
        self.batch.retain(|partition| handle.epoch_of(partition));
        let (partitions, step) = (&mut self.partitions, &self.stage.step);
        self.batch.finish(|partition, out| {
            if let Some(state) = partitions.get_mut(&partition) {
                step.finish(&mut state.memory, partition, out);
            }
        });
        let Contents { requests, offsets, records, alerts } = self.batch.contents();
        if offsets.is_empty() || !self.transact(requests, offsets.clone()).await {
            return;
        }
        self.batch.clear();
        for ConsumedOffset { partition, epoch, next } in &offsets {
            if let Some(state) = self.partitions.get_mut(partition).filter(|state| state.epoch == *epoch) {
                state.next = Some(*next);
            }
        }
        metrics::repartitioned(&self.stage.name, self.stage.step.name(), Some((records, alerts)));
        self.status.update(|s| {
            s.transactions += 1;
            s.records += records;
            s.alerts += alerts;
            s.partitions.extend(offsets.into_iter().map(|offset| (offset.partition, Some(offset.next))));
        });
    }

    /// Runs one transaction; false if it was not committed, or may not have been.
    async fn transact(&mut self, requests: Vec<ProduceRequest>, offsets: Vec<ConsumedOffset>) -> bool {
        let Some(producer) = &self.producer else { return false };
        let consumed = ConsumedOffsets { consumer: self.handle.clone(), offsets, lease: self.membership.lease() };
        let Err(error) = producer.send_with_offsets(requests, Some(consumed)).await else { return true };
        let (route, stage) = (&*self.stage.name, self.stage.step.name());
        metrics::repartitioned(route, stage, None);
        self.status.update(|s| s.failed_transactions += 1);
        match error {
            TransactionError::Retriable(reason) => {
                tracing::info!(route, stage, reason, "transaction aborted, retrying");
                self.not_before = Instant::now() + SHORT_DELAY;
            }
            TransactionError::Rejected(_) => self.wait_after(&error, REJECTED_DELAY),
            TransactionError::Ambiguous(_) | TransactionError::Fenced(_) | TransactionError::Fatal(_) => {
                self.reset();
                self.wait_after(&error, SHORT_DELAY);
            }
        }
        false
    }

    /// Drops the producer and the batch, and restarts all partitions at the group's offsets, which tell what the last
    /// transaction did once a new producer has settled it.
    fn reset(&mut self) {
        self.producer = None;
        self.batch.clear();
        for state in self.partitions.values_mut() {
            state.reset();
        }
    }

    /// Waits after an error. The error is logged and reported once.
    fn wait_after(&mut self, error: &dyn std::error::Error, delay: Duration) {
        let reason = error_chain::chain(error);
        self.not_before = Instant::now() + delay;
        if self.waiting_reason.as_ref() != Some(&reason) {
            let (route, stage) = (&*self.stage.name, self.stage.step.name());
            tracing::warn!(route, stage, reason, "stage failed, retrying");
            self.waiting_reason = Some(reason.clone());
            self.status.update(|s| s.waiting_reason = Some(reason));
        }
    }

    async fn update_lag(&mut self) {
        if self.lag_updated_at.is_some_and(|at| at.elapsed() < LAG_INTERVAL) {
            return;
        }
        self.lag_updated_at = Some(Instant::now());
        let offsets = self.partitions.iter().filter_map(|(partition, state)| Some((*partition, state.next?))).collect();
        if let Ok(lag) = self.membership.lag(offsets).await {
            metrics::repartition_lag(&self.stage.name, self.stage.step.name(), lag);
            self.status.update(|s| s.lag = lag);
        }
    }
}
