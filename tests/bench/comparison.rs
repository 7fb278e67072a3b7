//! Runs one scenario with all systems at the same time: the same workload into a topic of each, an instance for each,
//! the same faults and kills. So all systems share the machine's load, and none runs alone; the result contains the
//! share of processor time that was busy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use crate::load::producer;
use crate::oracle::{Comparison, compare, write_order};
use crate::reference::{Ticket, expected_tickets};
use crate::results::{ScenarioResult, SystemResult};
use crate::scenarios::Scenario;
use crate::support::kafka::Broker;
use crate::systems::System;
use crate::testbed::{ConsumerProcess, Testbed};
use crate::workload::{CRITICAL, Workload};

/// Time between two samples of the tickets, while events are published and after the last.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const FINAL_SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two checks of what is due.
const TICK: Duration = Duration::from_millis(20);
/// Seed of the workloads: the same in every run.
const SEED: u64 = 1;

/// A system in a scenario.
struct Contestant {
    system: System,
    testbed: Testbed,
    process: Option<ConsumerProcess>,
    /// Processor time of the current process at its last sample.
    current_cpu: Duration,
    /// Processor time of the previous processes.
    previous_cpu: Duration,
    /// Processor time that the first process needed to start; it is not counted as work.
    startup_cpu: Duration,
    /// How often a process ended by itself and was restarted, as a supervisor would.
    exits: usize,
    /// Resident memory before there was any work, MB.
    idle_mb: f64,
    peak_mb: f64,
    /// Seconds, and alerts whose ticket is not correct then.
    samples: Vec<(f64, usize)>,
    /// Whether all tickets were seen to be correct after the last event.
    is_correct: bool,
}

/// Progress of the publisher.
#[derive(Default)]
struct Published {
    count: AtomicUsize,
    /// When each critical alert was published, in Unix milliseconds.
    critical: Mutex<BTreeMap<String, i64>>,
    /// When the last event was published; the second time is in Unix milliseconds.
    ended: OnceLock<(Instant, i64)>,
}

pub async fn run(scenario: &Scenario, systems: &[System], broker: &Broker) -> ScenarioResult {
    let setup = scenario.setup();
    let mut contestants = Vec::new();
    for system in systems {
        let testbed = Testbed::start(broker, &setup).await;
        testbed.set_faults(&scenario.faults).await;
        let process = testbed.run(&mut system.command(&testbed, scenario.requests_per_minute));
        system.await_ready(&testbed).await;
        let usage = process.usage();
        contestants.push(Contestant {
            system: *system,
            testbed,
            process: Some(process),
            current_cpu: usage.cpu,
            previous_cpu: Duration::ZERO,
            startup_cpu: usage.cpu,
            exits: 0,
            idle_mb: usage.resident_mb,
            peak_mb: usage.peak_mb,
            samples: Vec::new(),
            is_correct: false,
        });
    }
    let cpu_ticks = CpuTicks::now();
    let start = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    let workload = Arc::new(scenario.profile.generate(SEED, start));
    let expected = expected_tickets(&workload.events);
    let published = Arc::new(Published::default());
    let topics = contestants.iter().map(|contestant| contestant.testbed.topic().to_owned()).collect();
    let publishing = publish(workload.clone(), published.clone(), broker.bootstrap.clone(), topics);
    let started = Instant::now();
    let mut kills = scenario.kills.iter().map(|second| Duration::from_secs(*second)).peekable();
    let mut tens_reported = 0;
    let mut sampled = Instant::now();
    loop {
        if kills.next_if(|at| started.elapsed() >= *at).is_some() {
            contestants.iter_mut().for_each(|contestant| contestant.kill_and_restart(scenario));
        }
        let ended = published.ended.get().map(|(at, _)| *at);
        if sampled.elapsed() < if ended.is_some() { FINAL_SAMPLE_INTERVAL } else { SAMPLE_INTERVAL } {
            tokio::time::sleep(TICK).await;
            continue;
        }
        sampled = Instant::now();
        contestants.iter_mut().for_each(|contestant| contestant.supervise(scenario));
        let expected_now =
            ended.is_none().then(|| expected_tickets(&workload.events[..published.count.load(Ordering::Acquire)]));
        for contestant in contestants.iter_mut().filter(|contestant| !contestant.is_correct) {
            let comparison = contestant.compare(expected_now.as_ref().unwrap_or(&expected)).await;
            contestant.samples.push((started.elapsed().as_secs_f64(), comparison.counts.alerts));
            contestant.is_correct = ended.is_some() && comparison.counts.alerts == 0;
        }
        if started.elapsed().as_secs() / 10 > tens_reported {
            tens_reported = started.elapsed().as_secs() / 10;
            print_progress(scenario, started.elapsed(), &contestants);
        }
        let timed_out = ended.is_some_and(|ended| ended.elapsed() > scenario.timeout);
        if timed_out || contestants.iter().all(|contestant| contestant.is_correct) {
            break;
        }
    }
    publishing.await.expect("the events are published");
    let busy_ratio = cpu_ticks.busy_ratio_since();
    let mut results = Vec::new();
    for contestant in contestants {
        results.push(contestant.result(scenario, &workload, &expected, &published).await);
    }
    let published_for = published.ended.get().map_or(0.0, |(ended, _)| (*ended - started).as_secs_f64());
    ScenarioResult {
        scenario: scenario.name.into(),
        results,
        busy_ratio,
        published_for,
        timeout: scenario.timeout.as_secs(),
    }
}

fn print_progress(scenario: &Scenario, at: Duration, contestants: &[Contestant]) {
    let wrong = contestants.iter().map(|contestant| {
        let wrong = contestant.samples.last().map_or(0, |(_, wrong)| *wrong);
        format!("{} {wrong}", contestant.system.title())
    });
    let wrong: Vec<String> = wrong.collect();
    eprintln!("  {} {:>3} s, tickets that are not correct: {}", scenario.name, at.as_secs(), wrong.join("; "));
}

impl Contestant {
    /// Records the usage of the process, and restarts it if it has ended.
    fn supervise(&mut self, scenario: &Scenario) {
        match self.process.as_ref().and_then(ConsumerProcess::usage_if_running) {
            Some(usage) => {
                self.current_cpu = usage.cpu;
                self.peak_mb = self.peak_mb.max(usage.peak_mb);
            }
            None => {
                self.exits += 1;
                self.restart(scenario);
            }
        }
    }

    fn kill_and_restart(&mut self, scenario: &Scenario) {
        self.supervise(scenario);
        self.restart(scenario);
    }

    fn restart(&mut self, scenario: &Scenario) {
        // Dropping the process sends SIGKILL.
        drop(self.process.take());
        self.previous_cpu += std::mem::take(&mut self.current_cpu);
        let mut command = self.system.command(&self.testbed, scenario.requests_per_minute);
        self.process = Some(self.testbed.run(&mut command));
    }

    async fn compare(&self, expected: &BTreeMap<String, Ticket>) -> Comparison {
        compare(&self.testbed.rows().await, expected, self.testbed.topic())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds of minutes")]
    async fn result(
        mut self,
        scenario: &Scenario,
        workload: &Workload,
        expected: &BTreeMap<String, Ticket>,
        published: &Published,
    ) -> SystemResult {
        self.supervise(scenario);
        let comparison = self.compare(expected).await;
        let (state, log) = (self.testbed.state().await, self.testbed.log().await);
        let count = |wanted: &dyn Fn(&Value) -> bool| -> u64 {
            let lines = state["requests"].as_array().into_iter().flatten().filter(|line| wanted(line));
            lines.filter_map(|line| line["count"].as_u64()).sum()
        };
        let created_at = |key: &str| {
            let mut inserts = log.iter().filter(|entry| entry["op"] == "insert" && entry["correlation_id"] == key);
            inserts.find(|entry| entry["applied"] == true)?["at_ms"].as_i64()
        };
        let critical = published.critical.lock().unwrap_or_else(PoisonError::into_inner);
        let mut critical_latencies: Vec<f64> =
            critical.iter().filter_map(|(key, at)| Some((created_at(key)? - at) as f64 / 1_000.0)).collect();
        critical_latencies.sort_by(f64::total_cmp);
        // The last write that changed anything is the time at which all tickets were correct, more precise than a
        // sample.
        let last_change =
            log.iter().filter(|entry| entry["changed"] == true).filter_map(|entry| entry["at_ms"].as_i64()).max();
        let ended = published.ended.get().map_or(0, |(_, at)| *at);
        let correct_after = last_change.filter(|_| self.is_correct).map(|last| (last - ended).max(0) as f64 / 1_000.0);
        let cpu = (self.previous_cpu + self.current_cpu).saturating_sub(self.startup_cpu).as_secs_f64();
        if !comparison.differences.is_empty() {
            let shown: Vec<&String> = comparison.differences.iter().take(3).collect();
            eprintln!("  {}: {shown:#?}", self.system.title());
        }
        let faults = state["faults_injected"].as_object().into_iter().flatten();
        SystemResult {
            system: self.system.name().into(),
            title: self.system.title().into(),
            events: workload.events.len(),
            tickets: expected.len(),
            critical_without_ticket: critical.len() - critical_latencies.len(),
            writes_out_of_order: write_order(&log).out_of_order.len(),
            requests: count(&|_| true),
            writes: count(&|line| line["method"] != "GET"),
            throttled_requests: count(&|line| line["status"] == 429),
            faults: faults.filter_map(|(_, n)| n.as_u64()).sum(),
            correct_after,
            critical_latencies,
            cpu_ms_per_1000_events: cpu * 1e6 / workload.events.len() as f64,
            idle_mb: self.idle_mb,
            peak_mb: self.peak_mb,
            exits: self.exits,
            samples: self.samples.clone(),
            errors: comparison.counts,
        }
    }
}

/// Publishes the workload to all topics at its rate.
fn publish(
    workload: Arc<Workload>,
    published: Arc<Published>,
    bootstrap: String,
    topics: Vec<String>,
) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let producer = producer(&bootstrap, "0");
        let started = Instant::now();
        for (event, at) in workload.events.iter().zip(&workload.publish_at) {
            // This sets the rate of the input; it waits for nothing.
            std::thread::sleep(at.saturating_sub(started.elapsed()));
            if event.key.starts_with(CRITICAL) {
                let mut critical = published.critical.lock().unwrap_or_else(PoisonError::into_inner);
                critical.insert(event.key.clone(), jiff::Timestamp::now().as_millisecond());
            }
            let body = event.body();
            for topic in &topics {
                let record = BaseRecord::to(topic).key(&event.key).payload(&body);
                producer.send(record).map_err(|(error, _)| error).expect("it is sent");
            }
            producer.poll(Duration::ZERO);
            published.count.fetch_add(1, Ordering::Release);
        }
        let _ = published.ended.set((Instant::now(), jiff::Timestamp::now().as_millisecond()));
        producer.flush(Duration::from_secs(60)).expect("acknowledged");
    })
}

/// The machine's processor ticks at one time.
struct CpuTicks {
    idle: u64,
    all: u64,
}

impl CpuTicks {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").expect("Linux has /proc/stat");
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
        // user, nice, system, idle, iowait, …
        Self { idle: ticks.iter().skip(3).take(2).sum(), all: ticks.iter().take(8).sum() }
    }

    /// The busy share since then, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "ticks of minutes")]
    fn busy_ratio_since(&self) -> f64 {
        let now = Self::now();
        let (idle, all) = ((now.idle - self.idle) as f64, (now.all - self.all) as f64);
        1.0 - idle / all.max(1.0)
    }
}
