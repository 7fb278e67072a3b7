//! A member of a consumer group for tests: its handle, its events, and waits with a deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use nowbridge::kafka::{
    KafkaOptions, Outcome, Poller, PollerEvent, PollerHandle, PollerSettings, ProduceRequest, Producer,
};
use nowbridge::model::{Epoch, Record};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a wait may take, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A member of a group.
pub struct Member {
    pub handle: PollerHandle,
    pub events: mpsc::Receiver<PollerEvent>,
    /// All received events, newest last.
    pub received: Vec<PollerEvent>,
}

impl Member {
    /// Joins the group with short timeouts.
    pub fn join(options: &KafkaOptions, topic: &str, group: &str) -> Self {
        Self::join_with(options, topic, group, |_| {})
    }

    pub fn join_with(
        options: &KafkaOptions,
        topic: &str,
        group: &str,
        adjust: impl FnOnce(&mut PollerSettings),
    ) -> Self {
        let mut settings = PollerSettings::new(options, topic, group);
        settings.session_timeout = Duration::from_secs(6);
        adjust(&mut settings);
        let (handle, events) = Poller::spawn(settings).expect("a poller");
        Self { handle, events, received: Vec::new() }
    }

    /// Waits for the next event for which `pick` returns something. Other events are only recorded.
    pub async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&PollerEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!(
                    "timed out waiting for {what}; received: {:#?}",
                    self.received.iter().rev().take(20).collect::<Vec<_>>()
                );
            };
            let picked = pick(&event);
            self.received.push(event);
            if let Some(picked) = picked {
                return picked;
            }
        }
    }

    /// Waits until `count` partitions are assigned.
    pub async fn assigned(&mut self, count: usize) -> BTreeMap<i32, Epoch> {
        let mut epochs = BTreeMap::new();
        while epochs.len() < count {
            let assigned = |event: &PollerEvent| match event {
                PollerEvent::Assigned { partition, epoch } => Some((*partition, *epoch)),
                _ => None,
            };
            let (partition, epoch) = self.wait("an assignment", assigned).await;
            epochs.insert(partition, epoch);
        }
        epochs
    }

    /// Waits for the next `count` records, and returns them with their epochs.
    pub async fn records(&mut self, count: usize) -> Vec<(Epoch, Record)> {
        let mut records = Vec::new();
        while records.len() < count {
            let record = |event: &PollerEvent| match event {
                PollerEvent::Record { epoch, record } => Some((*epoch, record.clone())),
                _ => None,
            };
            records.push(self.wait("a record", record).await);
        }
        records
    }

    /// Waits for the next accepted commit of an epoch, and returns when it was sent, and its offset.
    pub async fn committed(&mut self, wanted: Epoch) -> (u64, i64) {
        let committed = |event: &PollerEvent| match event {
            PollerEvent::Committed { epoch, sent_at, offset, .. } if *epoch == wanted => Some((*sent_at, *offset)),
            _ => None,
        };
        self.wait("a commit", committed).await
    }
}

/// Produces records to one partition, waits for their deliveries, and returns their offsets.
pub async fn fill(
    options: &KafkaOptions,
    topic: &str,
    partition: i32,
    values: impl IntoIterator<Item = String>,
) -> Vec<i64> {
    let (producer, _deliveries) = Producer::new(options, Duration::from_secs(20)).expect("a producer");
    let mut offsets = Vec::new();
    let requests = values.into_iter().map(|value| request(topic, partition, &value, Some(&value)));
    let deliveries: Vec<_> = requests.map(|request| producer.produce_and_wait(request)).collect();
    for outcome in join_all(deliveries).await {
        let Ok(Outcome::Acked { offset, .. }) = outcome else { panic!("not acked: {outcome:?}") };
        offsets.push(offset);
    }
    offsets
}

/// Returns a record to produce.
pub fn request(topic: &str, partition: i32, key: &str, value: Option<&str>) -> ProduceRequest {
    ProduceRequest {
        topic: topic.into(),
        partition: Some(partition),
        key: Some(key.into()),
        value: value.map(Into::into),
        headers: Vec::new(),
        tag: 0,
    }
}

/// Awaits futures in order, after one poll of each.
async fn join_all<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    // The first poll of each passes its record to the client, before any delivery is awaited.
    let mut done: Vec<Option<T>> = Vec::new();
    std::future::poll_fn(|context| {
        done = all.iter_mut().map(|future| ready(future.as_mut().poll(context))).collect();
        std::task::Poll::Ready(())
    })
    .await;
    let mut results = Vec::new();
    for (future, early) in all.into_iter().zip(done) {
        results.push(match early {
            Some(result) => result,
            None => future.await,
        });
    }
    results
}

fn ready<T>(poll: std::task::Poll<T>) -> Option<T> {
    match poll {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
