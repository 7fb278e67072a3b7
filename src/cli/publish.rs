//! `nowbridge publish`: one alert by its fields, or a file of them, checked before anything is sent.

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

/// Publishes, and waits for the broker's acknowledgement.
///
/// # Errors
/// An event is wrong (then none is sent), or the broker does not take one.
pub async fn publish(args: Publish) -> Result<()> {
    let (kafka, topic) = target(&args)?;
    let bodies = match &args.file {
        Some(file) if file.as_os_str() == "-" => read(std::io::stdin().lock(), "standard input")?,
        Some(file) => {
            let open = std::fs::File::open(file).with_context(|| format!("can't open {}", file.display()))?;
            read(open, &file.display().to_string())?
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
            Outcome::Refused(why) => bail!("Kafka refused the event: {why}"),
            Outcome::Unknown(why) => bail!("Kafka did not answer, the event may or may not be there: {why}"),
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
                (None, None) => bail!("{} has no sink route; name the topic with --topic", file.display()),
            };
            Ok((clients::kafka(&config.kafka), topic))
        }
        (None, Some(bootstrap)) => Ok((KafkaOptions::new(bootstrap), args.topic.clone().unwrap_or_default())),
        (None, None) => bail!("give --config or --bootstrap"),
    }
}

/// The short form of the canonical event.
fn body(args: &Publish) -> Value {
    let mut event = Map::new();
    let mut put = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            event.insert(name.into(), Value::String(value.clone()));
        }
    };
    put("source", Some(&args.source));
    put("key", args.key.as_ref());
    put("action", Some(&args.action));
    put("title", args.title.as_ref());
    put("description", args.description.as_ref());
    put("severity", args.severity.as_ref());
    put("note", args.note.as_ref());
    let now = jiff::Timestamp::now().to_string();
    put("occurred_at", Some(&now));
    Value::Object(event)
}

fn read(from: impl Read, name: &str) -> Result<Vec<Value>> {
    let mut bodies = Vec::new();
    for (number, line) in BufReader::new(from).lines().enumerate() {
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

/// The record of an event: decoded once here, so that a wrong one is told to its author and not to a dead letter.
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
    let key = events.first().map(|e| e.key.clone()).context("holds no alert event")?;
    Ok(ProduceRequest {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(key.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
        tag: 0,
    })
}
