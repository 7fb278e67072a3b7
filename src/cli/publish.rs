//! `nowbridge publish`: publishes one event from arguments, or a file of events. All are checked before any is sent.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::args::Publish;
use crate::bridge::clients;
use crate::config;
use crate::kafka::{KafkaOptions, Outcome, ProduceRequest, Producer};
use crate::model::Record;
use crate::systems::Decoder;

/// Publishes events, and waits for the broker's acknowledgements.
///
/// # Errors
/// An event is invalid (then none is sent), or the broker rejects one.
pub async fn publish(args: Publish) -> Result<()> {
    let (mut kafka, topic) = target(&args)?;
    // As Java's clients do: the records of an alert must be in one partition, whoever publishes them.
    kafka.properties.entry("partitioner".into()).or_insert_with(|| "murmur2_random".into());
    let bodies = match &args.file {
        Some(file) if file.as_os_str() == "-" => read_events(std::io::stdin().lock(), "standard input")?,
        Some(file) => {
            let open = std::fs::File::open(file).with_context(|| format!("can't open {}", file.display()))?;
            read_events(open, &file.display().to_string())?
        }
        None => vec![body(&args)],
    };
    let topic: Arc<str> = topic.into();
    let mut requests = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        requests.push(request(&topic, body).with_context(|| format!("event {}", number + 1))?);
    }
    let count = requests.len();
    let (producer, _deliveries) = Producer::new(&kafka, Duration::from_secs(30))?;
    for request in requests {
        match producer.produce_and_wait(request).await? {
            Outcome::Acked { partition, offset, .. } => {
                if count == 1 {
                    println!("published to {topic}, partition {partition}, offset {offset}");
                }
            }
            Outcome::Rejected(reason) => bail!("Kafka rejected the event: {reason}"),
            Outcome::Unknown(reason) => bail!("Kafka did not respond, and may have written the event: {reason}"),
        }
    }
    if count != 1 {
        println!("published {count} events to {topic}");
    }
    Ok(())
}

fn target(args: &Publish) -> Result<(KafkaOptions, String)> {
    match (&args.config, &args.bootstrap) {
        (Some(file), _) => {
            let config = config::load(file)?;
            let topic = match (&args.topic, config.sinks.first()) {
                (Some(topic), _) => topic.clone(),
                (None, Some(sink)) => sink.topic.clone(),
                (None, None) => bail!("{} has no sink route; set the topic with --topic", file.display()),
            };
            Ok((clients::kafka(&config.kafka), topic))
        }
        (None, Some(bootstrap)) => Ok((KafkaOptions::new(bootstrap), args.topic.clone().unwrap_or_default())),
        (None, None) => bail!("set --config or --bootstrap"),
    }
}

/// Returns the event from the arguments, in the short form of the canonical format.
fn body(args: &Publish) -> Value {
    let mut event = Map::new();
    let mut insert = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            event.insert(name.into(), Value::String(value.clone()));
        }
    };
    insert("source", Some(&args.source));
    insert("key", args.key.as_ref());
    insert("action", Some(&args.action));
    insert("title", args.title.as_ref());
    insert("description", args.description.as_ref());
    insert("severity", args.severity.as_ref());
    insert("note", args.note.as_ref());
    let now = jiff::Timestamp::now().to_string();
    insert("occurred_at", Some(&now));
    Value::Object(event)
}

fn read_events(input: impl Read, name: &str) -> Result<Vec<Value>> {
    let mut bodies = Vec::new();
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let line = line.with_context(|| format!("can't read {name}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(&line)
            .with_context(|| format!("{name}, line {}: not a JSON object on one line", number + 1))?;
        bodies.push(value);
    }
    Ok(bodies)
}

/// Returns the record of an event. The event is decoded first, so that an invalid one is reported here and does not
/// become a dead letter.
fn request(topic: &Arc<str>, body: &Value) -> Result<ProduceRequest> {
    let value = serde_json::to_vec(body).context("can't be written as JSON")?;
    let record = Record {
        topic: Arc::clone(topic),
        partition: 0,
        offset: 0,
        key: None,
        value: Some(value.clone()),
        headers: Vec::new(),
        timestamp: Some(crate::runtime::clock::unix()),
    };
    let events = Decoder::Canonical.decode(&record)?;
    let key = events.first().map(|e| e.key.clone()).context("contains no alert event")?;
    Ok(ProduceRequest {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(key.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
        tag: 0,
    })
}
