//! The storm: far more events than the quota allows requests, and critical alerts that must not wait.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::load::{Load, Published};
use crate::results::Measurement;
use crate::support::kafka::Broker;
use crate::testbed::{Setup, Testbed};

const EVENTS: usize = 10_000;
const KEYS: usize = 300;
const DURATION: Duration = Duration::from_secs(60);
const REQUESTS_PER_MINUTE: u32 = 300;
/// One event in this many opens a critical alert: one every three seconds.
const CRITICAL_EVERY: usize = 500;
/// Time between two searches for critical tickets, which is the precision of their latency.
const SEARCH_INTERVAL: Duration = Duration::from_millis(25);

pub async fn run(broker: &Broker, measurements: &mut Vec<Measurement>) -> usize {
    let case = "storm";
    let testbed = Testbed::start(
        broker,
        &Setup { latency_ms: 150, concurrency: 8, requests_per_minute: Some(REQUESTS_PER_MINUTE), ..Setup::default() },
    )
    .await;
    let bridge = testbed.start_bridge().await;
    let idle = bridge.usage_at_rest().await;
    let load = Load::storm(EVENTS, KEYS, DURATION, CRITICAL_EVERY);
    let expected = load.expected();
    let published = Published::default();
    let publishing = load.publish_recording(testbed.bootstrap(), testbed.topic(), published.clone());
    let started = Instant::now();
    let critical = expected.keys().filter(|key| key.starts_with("critical")).count();
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    while seen.len() < critical && started.elapsed() < DURATION * 2 {
        let now = Instant::now();
        for key in testbed.keys().await.into_iter().filter(|key| key.starts_with("critical")) {
            seen.entry(key).or_insert(now);
        }
        tokio::time::sleep(SEARCH_INTERVAL).await;
    }
    publishing.await.expect("the events are published");
    let ended = Instant::now();
    let wrong = testbed.await_expected(&expected).await;
    let drained_after = ended.elapsed().as_secs_f64();
    let usage = bridge.usage();
    let mut latencies: Vec<f64> = {
        let published = published.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter_map(|(key, at)| Some(at.duration_since(*published.get(key)?).as_secs_f64())).collect()
    };
    latencies.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "counts of two minutes")]
    let (requests, events, keys) = (testbed.requests().await as f64, EVENTS as f64, KEYS as f64);
    let least = keys / (f64::from(REQUESTS_PER_MINUTE) / 60.0);
    let seconds = |latency: Option<&f64>| latency.map_or("none".into(), |s| format!("{s:.2}"));
    measurements.push(
        Measurement::plain(case, "requests rejected with 429", testbed.throttled().await.to_string()).with_target("0"),
    );
    measurements
        .push(Measurement::plain(case, "requests per event", format!("{:.3}", requests / events)).with_target("0.065"));
    measurements.push(Measurement::with_limit(
        case,
        "seconds to drain",
        drained_after,
        format!("{KEYS} keys: {least:.0}"),
        least,
    ));
    measurements.push(Measurement::plain(
        case,
        "critical tickets created",
        format!("{} of {critical}", latencies.len()),
    ));
    measurements.push(Measurement::plain(
        case,
        "critical ticket, median, s",
        seconds(latencies.get(latencies.len() / 2)),
    ));
    measurements
        .push(Measurement::plain(case, "critical ticket, maximum, s", seconds(latencies.last())).with_target("0.5"));
    measurements.push(Measurement::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    measurements.extend(crate::costs(case, &idle, &usage, EVENTS));
    wrong
}
