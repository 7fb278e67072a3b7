//! The alert events that the cases publish, and the expected tickets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use tokio::task::JoinHandle;

/// Events to publish, and how fast.
pub struct Load {
    events: Vec<Event>,
    /// Time between two events; zero: as fast as possible.
    interval: Duration,
}

struct Event {
    key: String,
    title: String,
    number: usize,
    action: &'static str,
    severity: &'static str,
}

/// The expected state of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedTicket {
    pub title: String,
    pub resolved: bool,
}

/// When each critical alert was published, by key.
pub type Published = Arc<Mutex<BTreeMap<String, Instant>>>;

impl Event {
    fn open(key: String, title: String, number: usize) -> Self {
        Self { key, title, number, action: "open", severity: "high" }
    }
}

impl Load {
    /// Changes of `keys` alerts for `duration`, `rate` per second. How often each alert changes follows Zipf's law
    /// (exponent 1).
    pub fn changes(keys: u32, rate: f64, duration: Duration) -> Self {
        let mut cumulative = Vec::new();
        let mut sum = 0.0;
        for rank in 1..=keys {
            sum += 1.0 / f64::from(rank);
            cumulative.push(sum);
        }
        // The same events in every run.
        let mut random = fastrand::Rng::with_seed(1);
        let interval = Duration::from_secs_f64(1.0 / rate);
        let count = usize::try_from(duration.as_nanos() / interval.as_nanos()).unwrap_or(0);
        let event = |number| {
            let at = random.f64() * sum;
            let rank = cumulative.partition_point(|edge| *edge < at);
            Event::open(format!("disk-{rank:04}"), format!("disk {rank} is full #{number}"), number)
        };
        Self { events: (0..count).map(event).collect(), interval }
    }

    /// `count` new alerts.
    pub fn creates(count: u32) -> Self {
        let event = |number: u32| {
            let at = usize::try_from(number).unwrap_or(0);
            Event::open(format!("host-{number:07}"), format!("host {number} does not respond"), at)
        };
        Self { events: (0..count).map(event).collect(), interval: Duration::ZERO }
    }

    /// One change of each of the first `count` alerts of [`Load::creates`].
    pub fn updates(count: u32) -> Self {
        let mut load = Self::creates(count);
        for event in &mut load.events {
            event.title = format!("{}, still", event.title);
        }
        load
    }

    /// A storm: `count` events in `duration` of `keys` alerts that open, change and resolve. One event in
    /// `critical_every` opens a new critical alert.
    pub fn storm(count: usize, keys: usize, duration: Duration, critical_every: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(2);
        let mut open = vec![false; keys];
        let event = |number: usize| {
            if number % critical_every == critical_every / 2 {
                let (key, title) = (format!("critical-{number:05}"), format!("site {number} is down"));
                return Event { severity: "critical", ..Event::open(key, title, number) };
            }
            let at = random.usize(0..keys);
            let action = match (open[at], random.u8(0..100)) {
                (false, _) => "open",
                (true, 0..8) => "resolve",
                (true, _) => "update",
            };
            open[at] = action != "resolve";
            let severity = ["high", "medium", "low"][at % 3];
            let (key, title) = (format!("disk-{at:04}"), format!("disk {at} is full #{number}"));
            Event { action, severity, ..Event::open(key, title, number) }
        };
        let interval = duration / u32::try_from(count).unwrap_or(u32::MAX);
        Self { events: (0..count).map(event).collect(), interval }
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The expected tickets by key, after the last event of each.
    pub fn expected(&self) -> BTreeMap<String, ExpectedTicket> {
        let ticket = |event: &Event| ExpectedTicket { title: event.title.clone(), resolved: event.action == "resolve" };
        self.events.iter().map(|event| (event.key.clone(), ticket(event))).collect()
    }

    /// Publishes the events in order, with the alert's key as the record key.
    pub fn publish(self, bootstrap: &str, topic: &str) -> JoinHandle<()> {
        self.publish_recording(bootstrap, topic, Published::default())
    }

    /// The same, and records when each critical alert was published.
    pub fn publish_recording(self, bootstrap: &str, topic: &str, published: Published) -> JoinHandle<()> {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer = producer(&bootstrap, "5");
            let started = Instant::now();
            let mut due = Duration::ZERO;
            for event in &self.events {
                if event.severity == "critical" {
                    let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
                    published.insert(event.key.clone(), Instant::now());
                }
                send(&producer, &topic, event);
                due += self.interval;
                // This sets the rate of the input; it waits for nothing.
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
            producer.flush(Duration::from_secs(60)).expect("acknowledged");
        })
    }
}

/// Creates a producer with this `linger.ms`.
pub fn producer(bootstrap: &str, linger: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", linger)
        .create()
        .expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, event: &Event) {
    let body = json!({
        "source": "bench", "key": event.key, "action": event.action, "severity": event.severity, "title": event.title,
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
            Err((error, _)) => panic!("cannot publish: {error}"),
        }
    }
    producer.poll(Duration::ZERO);
}
