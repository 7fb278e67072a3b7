//! Measures the cost of delivery from outside: `cargo bench --bench delivery [ordered] [ordered-16] [creates] [steady]
//! [storm] [million]`.
//!
//! One run on one real Apache Kafka (found or started as for the integration tests), with the bridge and a simulated
//! instance as separate processes. The cases:
//! - **ordered**: changes of 1,000 alerts in one partition, against an instance that takes 150 ms per request and
//!   allows 4, 16 or 64 concurrent requests, published at three times the rate that this allows;
//! - **creates**: new alerts only, against an instance without latency;
//! - **steady**: 200 events per second of 1,000 alerts at 20 ms per request, for the cost;
//! - **storm**: 10,000 events of 300 alerts in a minute against an instance that allows 300 requests per minute, with a
//!   critical alert every three seconds;
//! - **million**: a ledger of a million keys.
//!
//! The instance counts the writes; memory and CPU time are from Linux (`/proc`). At the end of each case every ticket
//! is compared with the published events. The command fails if a ticket is lost, duplicated or outdated, and never
//! because the machine is slow: the table shows what it reached.
//!
//! `-- report` runs these cases, and before them the fault benchmark: calm, flap, storm and faults, in which the bridge
//! is compared with a Python script and with Bento. It writes `docs/benchmark/`; see `report`.
//!
//! It is built with the release profile.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement fails by a panic, and prints its results")]

mod charts;
mod comparison;
mod load;
mod markdown;
mod million;
mod report;
mod results;
mod scenarios;
mod storm;
mod svg;
mod systems;
mod testbed;

#[allow(dead_code, unused_imports, reason = "shared with the crash tests, which use the rest")]
#[path = "../it/crash/oracle.rs"]
mod oracle;
#[allow(dead_code, reason = "shared with the crash tests, which use the rest")]
#[path = "../it/crash/reference.rs"]
mod reference;
#[allow(dead_code, unused_imports, reason = "shared with the crash tests, which test it")]
#[path = "../it/crash/workload.rs"]
mod workload;

#[allow(dead_code, reason = "shared with the integration tests, which use the rest")]
#[path = "../it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use load::Load;
use results::Measurement;
use support::kafka::{Broker, REAL_KAFKA};
use testbed::{Setup, Testbed, Usage};

/// The instance of the ordered cases: its time per request, and the concurrent requests that it allows.
const LATENCY_MS: u32 = 150;
const CONCURRENCY: [u32; 3] = [4, 16, 64];
/// Alerts of the ordered and the steady case. How often each changes follows Zipf's law.
const KEYS: u32 = 1_000;
/// The ordered case is measured for this time, after the warm-up.
const WARM_UP: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(30);
/// Number of alerts of the creates case, and of those that are created before the measurement starts.
const CREATES: u32 = 60_000;
const WARM_UP_CREATES: u64 = 5_000;

fn main() {
    // Cargo passes `--bench`; names select cases.
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    match wanted.first().map(String::as_str) {
        Some("report") => return report::run(&wanted.split_off(1)),
        Some("draw") => return report::draw_again(),
        _ => {}
    }
    let broker = real_broker();
    let (measurements, wrong) = cases(broker, &wanted);
    print(broker, &measurements);
    assert_eq!(wrong, 0, "tickets are lost, duplicated or outdated");
}

fn real_broker() -> &'static Broker {
    let broker = Broker::start();
    assert!(broker.real, "the benchmark needs {REAL_KAFKA}");
    broker
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs the cases with these names, or all. Returns their figures and the number of wrong tickets.
fn cases(broker: &Broker, wanted: &[String]) -> (Vec<Measurement>, usize) {
    let selected = |case: &str| wanted.is_empty() || wanted.iter().any(|name| name == case);
    let (runtime, mut measurements, mut wrong) = (runtime(), Vec::new(), 0);
    for concurrency in
        CONCURRENCY.into_iter().filter(|concurrency| selected("ordered") || selected(&format!("ordered-{concurrency}")))
    {
        eprintln!("ordered-{concurrency}");
        wrong += runtime.block_on(ordered(concurrency, broker, &mut measurements));
    }
    if selected("creates") {
        eprintln!("creates");
        wrong += runtime.block_on(creates(broker, &mut measurements));
    }
    if selected("steady") {
        eprintln!("steady");
        wrong += runtime.block_on(steady(broker, &mut measurements));
    }
    if selected("storm") {
        eprintln!("storm");
        wrong += runtime.block_on(storm::run(broker, &mut measurements));
    }
    if selected("million") {
        eprintln!("million");
        wrong += runtime.block_on(million::run(broker, &mut measurements));
    }
    (measurements, wrong)
}

/// Changes of few alerts, in order, at the limit of a slow instance.
async fn ordered(concurrency: u32, broker: &Broker, measurements: &mut Vec<Measurement>) -> usize {
    let setup = Setup { latency_ms: LATENCY_MS, concurrency, partitions: 1, ..Setup::default() };
    let testbed = Testbed::start(broker, &setup).await;
    let case = &format!("ordered-{concurrency}");
    let limit = f64::from(concurrency) / (f64::from(LATENCY_MS) / 1_000.0);
    let bridge = testbed.start_bridge().await;
    let idle = bridge.usage_at_rest().await;
    let load = Load::changes(KEYS, 3.0 * limit, WARM_UP + MEASURED + Duration::from_secs(1));
    let expected = load.expected();
    let events = load.len();
    let publishing = load.publish(testbed.bootstrap(), testbed.topic());
    tokio::time::sleep(WARM_UP).await;
    let (first, started) = (testbed.writes().await, Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (last, elapsed) = (testbed.writes().await, started.elapsed());
    publishing.await.expect("the events are published");
    let wrong = testbed.await_expected(&expected).await;
    let usage = bridge.usage();
    let requests = testbed.requests().await;
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let (written, per_event) = ((last - first) as f64, requests as f64 / events as f64);
    let rate = written / elapsed.as_secs_f64();
    let limit_text = format!("{concurrency}/0.{LATENCY_MS} = {limit:.1}");
    measurements.push(Measurement::with_limit(case, "writes per second", rate, limit_text, limit));
    measurements.push(Measurement::plain(case, "requests per event", format!("{per_event:.2}")));
    measurements.push(Measurement::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    measurements.extend(costs(case, &idle, &usage, events));
    wrong
}

/// New alerts only, as fast as possible.
async fn creates(broker: &Broker, measurements: &mut Vec<Measurement>) -> usize {
    let case = "creates";
    let testbed = Testbed::start(broker, &Setup { latency_ms: 0, concurrency: 64, ..Setup::default() }).await;
    let bridge = testbed.start_bridge().await;
    let idle = bridge.usage_at_rest().await;
    let load = Load::creates(CREATES);
    let expected = load.expected();
    let events = load.len();
    load.publish(testbed.bootstrap(), testbed.topic()).await.expect("the events are published");
    let (first, started) = testbed.await_writes(WARM_UP_CREATES).await;
    let (last, ended) = testbed.await_writes(u64::from(CREATES)).await;
    let usage = bridge.usage();
    let wrong = testbed.await_expected(&expected).await;
    let peak = bridge.usage();
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let rate = (last - first) as f64 / (ended - started).as_secs_f64();
    let target = "target: 10,000".to_owned();
    measurements.push(Measurement::with_limit(case, "new tickets per second", rate, target, 10_000.0));
    measurements.push(Measurement::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    let usage = Usage { peak_mb: peak.peak_mb, ..usage };
    let [cpu, memory @ ..] = costs(case, &idle, &usage, events);
    measurements.push(cpu.with_target("100"));
    measurements.extend(memory);
    wrong
}

/// A low, steady load, for its cost.
async fn steady(broker: &Broker, measurements: &mut Vec<Measurement>) -> usize {
    let case = "steady";
    let testbed = Testbed::start(broker, &Setup { latency_ms: 20, ..Setup::default() }).await;
    let bridge = testbed.start_bridge().await;
    let idle = bridge.usage_at_rest().await;
    let load = Load::changes(KEYS, 200.0, MEASURED);
    let (expected, events) = (load.expected(), load.len());
    load.publish(testbed.bootstrap(), testbed.topic()).await.expect("the events are published");
    let wrong = testbed.await_expected(&expected).await;
    measurements.push(Measurement::plain(case, "events per second", format!("{:.0}", 200.0)));
    measurements.push(Measurement::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    let [cpu, resident, anonymous, peak] = costs(case, &idle, &bridge.usage(), events);
    measurements.extend([cpu.with_target("400"), resident.with_target("20"), anonymous, peak.with_target("40")]);
    wrong
}

fn costs(case: &str, idle: &Usage, usage: &Usage, events: usize) -> [Measurement; 4] {
    let cpu = usage.cpu.saturating_sub(idle.cpu).as_secs_f64() * 1_000.0;
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let per_thousand = cpu * 1_000.0 / events as f64;
    [
        Measurement::plain(case, "CPU ms per 1,000 events", format!("{per_thousand:.0}")),
        Measurement::plain(case, "RSS idle, MB", format!("{:.1}", idle.resident_mb)),
        Measurement::plain(case, "RSS idle without file pages, MB", format!("{:.1}", idle.anonymous_mb)),
        Measurement::plain(case, "RSS peak, MB", format!("{:.1}", usage.peak_mb)),
    ]
}

fn print(broker: &Broker, measurements: &[Measurement]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\n{}; {cores} CPU cores, shared by broker, instance, bridge and publisher\n", broker.kind);
    println!("| {:<42} | {:>9} | {:>15} | {:>8} |", "", "value", "limit", "of limit");
    println!("|{:-<44}|{:->11}|{:->17}|{:->10}|", "", ":", ":", ":");
    for Measurement { name, value, limit, percent, .. } in measurements {
        println!("| {name:<42} | {value:>9} | {limit:>15} | {percent:>8} |");
    }
}
