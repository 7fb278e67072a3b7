//! The storm: Alertmanager bodies, decided by a seed before anything is sent, so that the end can be counted against
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::kafka::{KafkaOptions, Outcome, ProduceRequest, Producer};

/// Bodies a second.
const RATE: u32 = 150;

/// One alert group: its bodies, in order.
#[derive(Debug)]
pub struct Group {
    /// Its key and correlation.
    pub key: String,
    /// It is resolved in the end.
    pub resolved: bool,
    bodies: Vec<String>,
}

/// The whole storm.
#[derive(Debug)]
pub struct Storm {
    /// Groups, by number.
    pub groups: Vec<Group>,
    /// (group, body) in the order of sending.
    order: Vec<(usize, usize)>,
    fed: AtomicUsize,
}

impl Storm {
    /// A storm of so many groups.
    pub fn new(groups: u32, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let groups: Vec<Group> = (0..groups).map(|number| group(number, &mut random)).collect();
        let mut order: Vec<(u32, usize, usize)> = Vec::new();
        for (number, group) in (0_u32..).zip(&groups) {
            let mut at = number + random.u32(0..20);
            for body in 0..group.bodies.len() {
                order.push((at, number as usize, body));
                at += 1 + random.u32(0..400);
            }
        }
        order.sort_unstable();
        let order = order.into_iter().map(|(_, group, body)| (group, body)).collect();
        Self { groups, order, fed: AtomicUsize::new(0) }
    }

    /// Bodies in all.
    pub fn events(&self) -> usize {
        self.order.len()
    }

    /// Bodies acknowledged by the broker so far.
    pub fn fed(&self) -> usize {
        self.fed.load(Ordering::Relaxed)
    }
}

fn group(number: u32, random: &mut fastrand::Rng) -> Group {
    let service = ["checkout", "search", "billing", "login", "stock"][random.usize(0..5)];
    let severity = ["critical", "warning", "info"][random.usize(0..3)];
    let name = ["HighErrorRate", "SlowResponses", "DiskFilling", "PodCrashLooping"][random.usize(0..4)];
    let group_key = format!("{{}}:{{alertname=\"{name}\", cell=\"{number}\"}}");
    let key = format!("alertmanager:group:{}", hex::encode(Sha256::digest(group_key.as_bytes())));
    let began = jiff::Timestamp::now();
    let grows = random.bool();
    let resolved = random.u8(0..10) < 6;
    let mut alerts = vec![alert(name, service, severity, number, 0, began, None)];
    let mut bodies = vec![body(&group_key, "firing", &alerts)];
    if grows {
        alerts.push(alert(name, service, severity, number, 1, began, None));
        bodies.push(body(&group_key, "firing", &alerts));
    }
    if resolved {
        let ended = jiff::Timestamp::now();
        let alerts: Vec<_> =
            (0..alerts.len()).map(|i| alert(name, service, severity, number, i, began, Some(ended))).collect();
        bodies.push(body(&group_key, "resolved", &alerts));
    }
    Group { key, resolved, bodies }
}

fn alert(
    name: &str,
    service: &str,
    severity: &str,
    cell: u32,
    replica: usize,
    began: jiff::Timestamp,
    ended: Option<jiff::Timestamp>,
) -> serde_json::Value {
    json!({
        "status": if ended.is_some() { "resolved" } else { "firing" },
        "labels": { "alertname": name, "service": service, "severity": severity, "cell": cell.to_string(),
                    "pod": format!("{service}-{cell}-{replica}") },
        "annotations": { "summary": format!("{name} on {service}, cell {cell}"),
                         "description": format!("{service}-{cell}-{replica} has been unwell for a while.") },
        "startsAt": began.to_string(),
        "endsAt": ended.map_or("0001-01-01T00:00:00Z".to_owned(), |at| at.to_string()),
        "generatorURL": "http://prometheus.example/graph",
        "fingerprint": format!("{:016x}", u64::from(cell) * 16 + replica as u64),
    })
}

fn body(group_key: &str, status: &str, alerts: &[serde_json::Value]) -> String {
    let labels = &alerts[0]["labels"];
    json!({
        "version": "4", "groupKey": group_key, "truncatedAlerts": 0, "status": status, "receiver": "nowbridge",
        "groupLabels": { "alertname": labels["alertname"], "cell": labels["cell"] },
        "commonLabels": { "alertname": labels["alertname"], "service": labels["service"],
                          "severity": labels["severity"], "cell": labels["cell"] },
        "commonAnnotations": { "summary": alerts[0]["annotations"]["summary"] },
        "externalURL": "http://alertmanager.example", "alerts": alerts,
    })
    .to_string()
}

/// Publishes the storm at its rate, each body under its alert's key.
///
/// # Errors
/// The broker does not take a body.
pub async fn feed(storm: Arc<Storm>, kafka: KafkaOptions, topic: String, stop: CancellationToken) -> Result<()> {
    let (producer, mut deliveries) = Producer::new(&kafka, Duration::from_secs(10)).context("can't feed the storm")?;
    let topic: Arc<str> = topic.into();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    for &(group, body) in &storm.order {
        tokio::select! { _ = tick.tick() => {}, () = stop.cancelled() => return Ok(()) }
        let group = &storm.groups[group];
        producer.produce(ProduceRequest {
            topic: Arc::clone(&topic),
            partition: None,
            key: Some(group.key.clone().into_bytes()),
            value: Some(group.bodies[body].clone().into_bytes()),
            headers: Vec::new(),
            tag: 1,
        })?;
        while let Ok(delivery) = deliveries.try_recv() {
            count(&storm, &delivery.outcome)?;
        }
    }
    while storm.fed() < storm.events() {
        let delivery = deliveries.recv().await.context("the producer ended")?;
        count(&storm, &delivery.outcome)?;
    }
    Ok(())
}

fn count(storm: &Storm, outcome: &Outcome) -> Result<()> {
    match outcome {
        Outcome::Acked { .. } => {
            storm.fed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Outcome::Refused(why) | Outcome::Unknown(why) => bail!("the embedded broker did not take an alert: {why}"),
    }
}
