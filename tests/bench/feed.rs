//! The alerts that are fed, and how each ticket must stand in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
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
    action: &'static str,
    severity: &'static str,
}

/// How a ticket must stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    pub title: String,
    pub resolved: bool,
}

/// When each critical alert was published.
pub type Published = Arc<Mutex<BTreeMap<String, Instant>>>;

impl Event {
    fn open(key: String, title: String, number: usize) -> Self {
        Self { key, title, number, action: "open", severity: "high" }
    }
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
            Event::open(format!("disk-{rank:04}"), format!("disk {rank} is full #{number}"), number)
        };
        Self { events: (0..count).map(event).collect(), pace }
    }

    /// As many alerts, each its own.
    pub fn creates(count: u32) -> Self {
        let event = |number: u32| {
            let at = usize::try_from(number).unwrap_or(0);
            Event::open(format!("host-{number:07}"), format!("host {number} does not answer"), at)
        };
        Self { events: (0..count).map(event).collect(), pace: Duration::ZERO }
    }

    /// One more change of each of the first so many of [`Feed::creates`].
    pub fn again(count: u32) -> Self {
        let mut feed = Self::creates(count);
        for event in &mut feed.events {
            event.title = format!("{}, still", event.title);
        }
        feed
    }

    /// A storm: so many events on few alerts in some time, which open, change and resolve; and now and then a new alert
    /// that is critical.
    pub fn storm(count: usize, keys: usize, time: Duration, critical_every: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(2);
        let mut firing = vec![false; keys];
        let event = |number: usize| {
            if number % critical_every == critical_every / 2 {
                let (key, title) = (format!("critical-{number:05}"), format!("site {number} is down"));
                return Event { severity: "critical", ..Event::open(key, title, number) };
            }
            let at = random.usize(0..keys);
            let action = match (firing[at], random.u8(0..100)) {
                (false, _) => "open",
                (true, 0..8) => "resolve",
                (true, _) => "update",
            };
            firing[at] = action != "resolve";
            let severity = ["high", "medium", "low"][at % 3];
            let (key, title) = (format!("disk-{at:04}"), format!("disk {at} is full #{number}"));
            Event { action, severity, ..Event::open(key, title, number) }
        };
        let pace = time / u32::try_from(count).unwrap_or(u32::MAX);
        Self { events: (0..count).map(event).collect(), pace }
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// How each ticket must stand after the newest event of its key.
    pub fn expected(&self) -> BTreeMap<String, Stand> {
        let stand = |event: &Event| Stand { title: event.title.clone(), resolved: event.action == "resolve" };
        self.events.iter().map(|event| (event.key.clone(), stand(event))).collect()
    }

    /// Publishes them in order, keyed by the alert's key.
    pub fn publish(self, bootstrap: &str, topic: &str) -> JoinHandle<()> {
        self.publish_noting(bootstrap, topic, Published::default())
    }

    /// And notes when the critical ones were published.
    pub fn publish_noting(self, bootstrap: &str, topic: &str, published: Published) -> JoinHandle<()> {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer = producer(&bootstrap, "5");
            let began = Instant::now();
            let mut due = Duration::ZERO;
            for event in &self.events {
                if event.severity == "critical" {
                    let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
                    published.insert(event.key.clone(), Instant::now());
                }
                send(&producer, &topic, event);
                due += self.pace;
                // This is the pace of the input, not a wait for anything.
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            producer.flush(Duration::from_secs(60)).expect("acknowledged");
        })
    }
}

/// A producer of input, with that linger in milliseconds.
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
            Err((error, _)) => panic!("can't publish: {error}"),
        }
    }
    producer.poll(Duration::ZERO);
}
