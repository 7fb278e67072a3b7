//! The alert storm: Alertmanager bodies. A seed determines all of them in advance, so that the final counts can be
//! compared with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::kafka::{KafkaOptions, Outcome, ProduceRequest, Producer};

/// Bodies per second.
const RATE: u32 = 150;

/// An alert group with its bodies, in order.
#[derive(Debug)]
pub struct Group {
    /// The alert key, which is also the correlation of the ticket.
    pub key: String,
    /// True if the last body resolves the group.
    pub resolved: bool,
    bodies: Vec<String>,
}

/// All events of the storm.
#[derive(Debug)]
pub struct Storm {
    pub groups: Vec<Group>,
    /// Indexes of group and body, in the order of publishing.
    order: Vec<(usize, usize)>,
    published: AtomicUsize,
}

impl Storm {
    /// Creates a storm with this number of groups.
    pub fn new(groups: u32, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let groups: Vec<Group> = (0..groups).map(|number| group(number, &mut random)).collect();
        let mut order: Vec<(u32, usize, usize)> = Vec::new();
        for (number, group) in (0_u32..).zip(&groups) {
            let mut tick = number + random.u32(0..20);
            for body in 0..group.bodies.len() {
                order.push((tick, number as usize, body));
                tick += 1 + random.u32(0..400);
            }
        }
        order.sort_unstable();
        let order = order.into_iter().map(|(_, group, body)| (group, body)).collect();
        Self { groups, order, published: AtomicUsize::new(0) }
    }

    /// Returns the total number of bodies.
    pub fn events(&self) -> usize {
        self.order.len()
    }

    /// Returns the number of bodies that the broker has acknowledged.
    pub fn published(&self) -> usize {
        self.published.load(Ordering::Relaxed)
    }
}

fn group(number: u32, random: &mut fastrand::Rng) -> Group {
    let service = ["checkout", "search", "billing", "login", "stock"][random.usize(0..5)];
    let severity = ["critical", "warning", "info"][random.usize(0..3)];
    let name = ["HighErrorRate", "SlowResponses", "DiskFilling", "PodCrashLooping"][random.usize(0..4)];
    let group_key = format!("{{}}:{{alertname=\"{name}\", cell=\"{number}\"}}");
    let key = format!("alertmanager:group:{}", hex::encode(Sha256::digest(group_key.as_bytes())));
    let started = jiff::Timestamp::now();
    let has_second_alert = random.bool();
    let resolved = random.u8(0..10) < 6;
    let mut alerts = vec![alert(name, service, severity, number, 0, started, None)];
    let mut bodies = vec![body(&group_key, "firing", &alerts)];
    if has_second_alert {
        alerts.push(alert(name, service, severity, number, 1, started, None));
        bodies.push(body(&group_key, "firing", &alerts));
    }
    if resolved {
        let ended = jiff::Timestamp::now();
        let alerts: Vec<_> =
            (0..alerts.len()).map(|i| alert(name, service, severity, number, i, started, Some(ended))).collect();
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
    started: jiff::Timestamp,
    ended: Option<jiff::Timestamp>,
) -> serde_json::Value {
    json!({
        "status": if ended.is_some() { "resolved" } else { "firing" },
        "labels": { "alertname": name, "service": service, "severity": severity, "cell": cell.to_string(),
                    "pod": format!("{service}-{cell}-{replica}") },
        "annotations": { "summary": format!("{name} on {service}, cell {cell}"),
                         "description": format!("{service}-{cell}-{replica} has had errors for a while.") },
        "startsAt": started.to_string(),
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

/// Publishes the storm at its rate, each body with the key of its alert.
///
/// # Errors
/// The broker rejects a body.
pub async fn publish(storm: Arc<Storm>, kafka: KafkaOptions, topic: String, stop: CancellationToken) -> Result<()> {
    let (producer, mut deliveries) =
        Producer::new(&kafka, Duration::from_secs(10)).context("can't publish the storm")?;
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
    while storm.published() < storm.events() {
        let delivery = deliveries.recv().await.context("the producer stopped")?;
        count(&storm, &delivery.outcome)?;
    }
    Ok(())
}

fn count(storm: &Storm, outcome: &Outcome) -> Result<()> {
    match outcome {
        Outcome::Acked { .. } => {
            storm.published.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Outcome::Rejected(reason) | Outcome::Unknown(reason) => {
            bail!("the embedded broker rejected an alert: {reason}")
        }
    }
}
