//! What delivery costs, measured from outside: `cargo bench --bench delivery [ordered] [ordered-16] [creates] [steady] [storm] [million]`.
//!
//! One run on one real Apache Kafka (found or started as the integration tests do), with the bridge and a simulated
//! instance as processes of their own. Four cases: **ordered**, changes of 1,000 alerts in one partition against an
//! instance that takes 150 ms a request and lets 4, 16 or 64 in at once, fed at three times what that allows; **creates**, new
//! alerts only, against an instance that answers at once; **storm**, 10,000 events on 300 alerts in a minute against one
//! that allows 300 requests a minute, with a critical alert every three seconds; **steady**, 200
//! events a second on 1,000 alerts at 20 ms a request, for what it costs; **million**, a ledger
//! of a million keys. Writes are counted by the instance, memory and CPU time by
//! Linux (`/proc`). At the end of each case every ticket is compared with what was fed; the command fails where one
//! is missing, doubled or not up to date, and never because of a slow machine: the table shows what it reached.
//!
//! `-- report` runs these cases, and before them the fault benchmark: calm, flap, storm and faults, in which the bridge is
//! compared with a Python script and with Bento; it writes `docs/benchmark/`. See `report`.
//!
//! It is built as a release is, but for link-time optimisation, which costs minutes and gains little here.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement stops at what it can't do, and tells")]

mod charts;
mod contest;
mod feed;
mod million;
mod outcome;
mod page;
mod plot;
mod report;
mod scenarios;
mod storm;
mod systems;
mod world;

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

use feed::Feed;
use outcome::Case;
use support::kafka::Broker;
use world::{Setup, Usage, World};

/// The instance of the ordered cases: milliseconds a request takes, and requests at once.
const LATENCY: u32 = 150;
const AT_ONCE: [u32; 3] = [4, 16, 64];
/// Alerts of the ordered case; how often each changes follows Zipf's law.
const KEYS: u32 = 1_000;
/// Left out at the start of the ordered case, and measured after it.
const WARM_UP: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(30);
/// Alerts of the case of creates, and those of them left out at the start.
const CREATES: u32 = 60_000;
const FIRST_CREATES: u64 = 5_000;

fn main() {
    // Cargo passes `--bench`; names choose cases.
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    match wanted.first().map(String::as_str) {
        Some("report") => return report::run(&wanted.split_off(1)),
        Some("draw") => return report::draw_again(),
        _ => {}
    }
    let broker = real_broker();
    let (lines, wrong) = cases(broker, &wanted);
    show(broker, &lines);
    assert_eq!(wrong, 0, "tickets are missing, doubled or not up to date");
}

fn real_broker() -> &'static Broker {
    let broker = Broker::start();
    assert!(broker.real, "only a real Kafka tells: needs a JDK and Maven, Docker, or NOWBRIDGE_TEST_KAFKA");
    broker
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs the cases of these names, or all; their figures, and how many tickets are wrong.
fn cases(broker: &Broker, wanted: &[String]) -> (Vec<Case>, usize) {
    let runs = |case: &str| wanted.is_empty() || wanted.iter().any(|name| name == case);
    let (runtime, mut lines, mut wrong) = (runtime(), Vec::new(), 0);
    for at_once in AT_ONCE.into_iter().filter(|at_once| runs("ordered") || runs(&format!("ordered-{at_once}"))) {
        eprintln!("ordered-{at_once}");
        wrong += runtime.block_on(ordered(at_once, broker, &mut lines));
    }
    if runs("creates") {
        eprintln!("creates");
        wrong += runtime.block_on(creates(broker, &mut lines));
    }
    if runs("steady") {
        eprintln!("steady");
        wrong += runtime.block_on(steady(broker, &mut lines));
    }
    if runs("storm") {
        eprintln!("storm");
        wrong += runtime.block_on(storm::run(broker, &mut lines));
    }
    if runs("million") {
        eprintln!("million");
        wrong += runtime.block_on(million::run(broker, &mut lines));
    }
    (lines, wrong)
}

/// Changes of few alerts, in order, under a slow instance's limit.
async fn ordered(at_once: u32, broker: &Broker, lines: &mut Vec<Case>) -> usize {
    let world = World::start(broker, &Setup { latency: LATENCY, at_once, partitions: 1, ..Setup::default() }).await;
    let case = &format!("ordered-{at_once}");
    let limit = f64::from(at_once) / (f64::from(LATENCY) / 1_000.0);
    let bridge = world.bridge().await;
    let idle = bridge.at_rest().await;
    let feed = Feed::changes(KEYS, 3.0 * limit, WARM_UP + MEASURED + Duration::from_secs(1));
    let expected = feed.expected();
    let events = feed.len();
    let feeding = feed.publish(world.bootstrap(), world.topic());
    tokio::time::sleep(WARM_UP).await;
    let (first, began) = (world.writes().await, Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (last, took) = (world.writes().await, began.elapsed());
    feeding.await.expect("the events are published");
    let wrong = world.await_right(&expected).await;
    let usage = bridge.usage();
    let requests = world.requests().await;
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let (written, per_event) = ((last - first) as f64, requests as f64 / events as f64);
    let rate = written / took.as_secs_f64();
    lines.push(Case::rate(case, "writes a second", rate, format!("{at_once}/0.{LATENCY} = {limit:.1}"), limit));
    lines.push(Case::plain(case, "requests an event", format!("{per_event:.2}")));
    lines.push(Case::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    lines.extend(costs(case, &idle, &usage, events));
    wrong
}

/// New alerts only, as quick as it goes.
async fn creates(broker: &Broker, lines: &mut Vec<Case>) -> usize {
    let case = "creates";
    let world = World::start(broker, &Setup { latency: 0, at_once: 64, ..Setup::default() }).await;
    let bridge = world.bridge().await;
    let idle = bridge.at_rest().await;
    let feed = Feed::creates(CREATES);
    let expected = feed.expected();
    let events = feed.len();
    feed.publish(world.bootstrap(), world.topic()).await.expect("the events are published");
    let (first, began) = world.await_writes(FIRST_CREATES).await;
    let (last, ended) = world.await_writes(u64::from(CREATES)).await;
    let usage = bridge.usage();
    let wrong = world.await_right(&expected).await;
    let peak = bridge.usage();
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let rate = (last - first) as f64 / (ended - began).as_secs_f64();
    lines.push(Case::rate(case, "unique creates a second", rate, "wanted: 10,000".into(), 10_000.0));
    lines.push(Case::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    let usage = Usage { peak: peak.peak, ..usage };
    let [cpu, memory @ ..] = costs(case, &idle, &usage, events);
    lines.push(cpu.wanted("100"));
    lines.extend(memory);
    wrong
}

/// What a quiet day costs: far less than anything could carry.
async fn steady(broker: &Broker, lines: &mut Vec<Case>) -> usize {
    let case = "steady";
    let world = World::start(broker, &Setup { latency: 20, ..Setup::default() }).await;
    let bridge = world.bridge().await;
    let idle = bridge.at_rest().await;
    let feed = Feed::changes(KEYS, 200.0, MEASURED);
    let (expected, events) = (feed.expected(), feed.len());
    feed.publish(world.bootstrap(), world.topic()).await.expect("the events are published");
    let wrong = world.await_right(&expected).await;
    lines.push(Case::plain(case, "events a second", format!("{:.0}", 200.0)));
    lines.push(Case::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    let [cpu, resident, own, peak] = costs(case, &idle, &bridge.usage(), events);
    lines.extend([cpu.wanted("400"), resident.wanted("20"), own, peak.wanted("40")]);
    wrong
}

fn costs(case: &str, idle: &Usage, usage: &Usage, events: usize) -> [Case; 4] {
    let cpu = usage.cpu.saturating_sub(idle.cpu).as_secs_f64() * 1_000.0;
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let per_thousand = cpu * 1_000.0 / events as f64;
    [
        Case::plain(case, "CPU ms per 1,000 events", format!("{per_thousand:.0}")),
        Case::plain(case, "RSS idle, MB", format!("{:.1}", idle.resident)),
        Case::plain(case, "of it not pages of the program's file, MB", format!("{:.1}", idle.own)),
        Case::plain(case, "RSS peak, MB", format!("{:.1}", usage.peak)),
    ]
}

fn show(broker: &Broker, lines: &[Case]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\n{}, {cores} CPU cores for everything: broker, instance, bridge, feed\n", broker.kind);
    println!("| {:<34} | {:>9} | {:>14} | {:>7} |", "", "reached", "limit", "share");
    println!("|{:-<36}|{:->11}|{:->16}|{:->9}|", "", ":", ":", ":");
    for Case { what, reached, limit, share, .. } in lines {
        println!("| {what:<34} | {reached:>9} | {limit:>14} | {share:>7} |");
    }
}
