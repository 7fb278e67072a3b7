//! The storm: far more events than the quota has requests, and critical alerts that must not wait for it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::feed::{Feed, Published};
use crate::outcome::Case;
use crate::support::kafka::Broker;
use crate::world::{Setup, World};

const EVENTS: usize = 10_000;
const KEYS: usize = 300;
const LASTS: Duration = Duration::from_secs(60);
/// Requests a minute.
const QUOTA: u32 = 300;
/// Every so many events there is a critical alert: one in three seconds.
const CRITICAL_EVERY: usize = 500;
/// Between two looks for critical tickets; their latency is measured as exactly as that.
const LOOK_EVERY: Duration = Duration::from_millis(25);

pub async fn run(broker: &Broker, lines: &mut Vec<Case>) -> usize {
    let case = "storm";
    let world = World::start(broker, &Setup { latency: 150, at_once: 8, quota: Some(QUOTA), ..Setup::default() }).await;
    let bridge = world.bridge().await;
    let idle = bridge.at_rest().await;
    let feed = Feed::storm(EVENTS, KEYS, LASTS, CRITICAL_EVERY);
    let expected = feed.expected();
    let published = Published::default();
    let feeding = feed.publish_noting(world.bootstrap(), world.topic(), published.clone());
    let began = Instant::now();
    let critical = expected.keys().filter(|key| key.starts_with("critical")).count();
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    while seen.len() < critical && began.elapsed() < LASTS * 2 {
        let now = Instant::now();
        for key in world.keys().await.into_iter().filter(|key| key.starts_with("critical")) {
            seen.entry(key).or_insert(now);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    feeding.await.expect("the events are published");
    let ended = Instant::now();
    let wrong = world.await_right(&expected).await;
    let took = ended.elapsed().as_secs_f64();
    let usage = bridge.usage();
    let mut latencies: Vec<f64> = {
        let published = published.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter_map(|(key, at)| Some(at.duration_since(*published.get(key)?).as_secs_f64())).collect()
    };
    latencies.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "counts of two minutes")]
    let (requests, events, keys) = (world.requests().await as f64, EVENTS as f64, KEYS as f64);
    let bound = keys / (f64::from(QUOTA) / 60.0);
    let seconds = |latency: Option<&f64>| latency.map_or("none".into(), |s| format!("{s:.2}"));
    lines.push(Case::plain(case, "requests that were refused", world.refused().await.to_string()).wanted("0"));
    lines.push(Case::plain(case, "requests an event", format!("{:.3}", requests / events)).wanted("0.065"));
    lines.push(Case::rate(case, "seconds after it until right", took, format!("{KEYS} keys: {bound:.0}"), bound));
    lines.push(Case::plain(case, "critical tickets seen", format!("{} of {critical}", latencies.len())));
    lines.push(Case::plain(case, "critical ticket, median s", seconds(latencies.get(latencies.len() / 2))));
    lines.push(Case::plain(case, "critical ticket, worst s", seconds(latencies.last())).wanted("0.5"));
    lines.push(Case::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    lines.extend(crate::costs(case, &idle, &usage, EVENTS));
    wrong
}
