//! The alerts that are fed, and which title each ticket must have in the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use tokio::task::JoinHandle;

/// Events to publish, and how quickly.
pub struct Feed {
    events: Vec<Event>,
    /// Time between two; zero: as quick as it goes.
    pace: Duration,
}

struct Event {
    key: String,
    title: String,
    number: usize,
}

impl Feed {
    /// Changes of `keys` alerts for some time, `rate` a second; how often each changes follows Zipf's law (exponent 1).
    pub fn changes(keys: u32, rate: f64, time: Duration) -> Self {
        let mut below = Vec::new();
        let mut sum = 0.0;
        for rank in 1..=keys {
            sum += 1.0 / f64::from(rank);
            below.push(sum);
        }
        // The same events in every run.
        let mut random = fastrand::Rng::with_seed(1);
        let pace = Duration::from_secs_f64(1.0 / rate);
        let count = usize::try_from(time.as_nanos() / pace.as_nanos()).unwrap_or(0);
        let event = |number| {
            let at = random.f64() * sum;
            let rank = below.partition_point(|edge| *edge < at);
            Event { key: format!("disk-{rank:04}"), title: format!("disk {rank} is full #{number}"), number }
        };
        Self { events: (0..count).map(event).collect(), pace }
    }

    /// As many alerts, each its own.
    pub fn creates(count: u32) -> Self {
        let event = |number: u32| Event {
            key: format!("host-{number:07}"),
            title: format!("host {number} does not answer"),
            number: usize::try_from(number).unwrap_or(0),
        };
        Self { events: (0..count).map(event).collect(), pace: Duration::ZERO }
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The title of each key's newest event.
    pub fn expected(&self) -> BTreeMap<String, String> {
        self.events.iter().map(|event| (event.key.clone(), event.title.clone())).collect()
    }

    /// Publishes them in order, keyed by the alert's key.
    pub fn publish(self, bootstrap: &str, topic: &str) -> JoinHandle<()> {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &bootstrap)
                .set("enable.idempotence", "true")
                .set("linger.ms", "5")
                .create()
                .expect("a producer");
            let began = Instant::now();
            let mut due = Duration::ZERO;
            for event in &self.events {
                send(&producer, &topic, event);
                due += self.pace;
                // This is the pace of the input, not a wait for anything.
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            producer.flush(Duration::from_secs(60)).expect("acknowledged");
        })
    }
}

fn send(producer: &BaseProducer, topic: &str, event: &Event) {
    let body = json!({
        "source": "bench", "key": event.key, "action": "open", "severity": "high", "title": event.title,
        "description": format!("Reading {} of {}: the value is above its threshold of 90 % for 5 minutes.", event.number, event.key),
        "labels": { "team": "storage", "site": "eu-1" },
    });
    let body = body.to_string();
    let mut record = BaseRecord::to(topic).key(&event.key).payload(&body);
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("can't publish: {error}"),
        }
    }
    producer.poll(Duration::ZERO);
}
