//! One scenario, run by all systems in the same minute: the same trace into a topic of each, an instance for each, the
//! same faults and kills. So they share the machine's moods, and none has its quiet moment; the share of the processor
//! that is busy meanwhile is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use crate::feed::producer;
use crate::oracle::{Verdict, judge, overtaken};
use crate::outcome::{Outcome, Round};
use crate::reference::apply;
use crate::scenarios::Scenario;
use crate::support::kafka::Broker;
use crate::systems::System;
use crate::workload::{CRITICAL, Trace};
use crate::world::{Running, World};

/// Between two looks at the tickets, while events come and after the last.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_CLOSELY: Duration = Duration::from_millis(250);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);
/// The traces' seed: the same in every run.
const SEED: u64 = 1;

/// A system at its place.
struct Place {
    system: System,
    world: World,
    running: Option<Running>,
    /// What the present process had used when it was last looked at.
    seen: Duration,
    /// What its former processes had used.
    spent: Duration,
    /// How often a process ended by itself, and was started again as a supervisor does.
    ended: usize,
    /// MB before there was anything to do, and at most.
    idle: f64,
    peak: f64,
    samples: Vec<(f64, usize)>,
    /// Seen to be all right after the last event.
    right: bool,
}

/// The feed's progress, as the looks see it.
#[derive(Default)]
struct Fed {
    count: AtomicUsize,
    /// When each critical alert was published, in Unix milliseconds.
    critical: Mutex<BTreeMap<String, i64>>,
    /// When the last event was, by both clocks.
    ended: OnceLock<(Instant, i64)>,
}

pub async fn run(scenario: &Scenario, systems: &[System], broker: &Broker) -> Round {
    let setup = scenario.setup();
    let mut places = Vec::new();
    for system in systems {
        let world = World::start(broker, &setup).await;
        world.faults(&scenario.faults).await;
        let running = world.run(&mut system.command(&world, scenario.quota));
        system.await_ready(&world).await;
        let usage = running.usage();
        let place = Place {
            system: *system,
            world,
            running: Some(running),
            seen: usage.cpu,
            spent: Duration::ZERO,
            ended: 0,
            idle: usage.resident,
            peak: usage.peak,
            samples: Vec::new(),
            right: false,
        };
        // What it took to start is not work.
        places.push((place, usage.cpu));
    }
    let busy = Busy::now();
    let start = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    let trace = Arc::new(scenario.measures.trace(SEED, start));
    let expected = apply(&trace.events);
    let fed = Arc::new(Fed::default());
    let topics = places.iter().map(|(place, _)| place.world.topic().to_owned()).collect();
    let feeding = feed(trace.clone(), fed.clone(), broker.bootstrap.clone(), topics);
    let began = Instant::now();
    let mut kills = scenario.kills.iter().map(|second| Duration::from_secs(*second)).peekable();
    let mut told = 0;
    let mut looked = Instant::now();
    loop {
        if kills.next_if(|at| began.elapsed() >= *at).is_some() {
            places.iter_mut().for_each(|(place, _)| place.kill_and_start(scenario));
        }
        let ended = fed.ended.get().map(|(at, _)| *at);
        if looked.elapsed() < if ended.is_some() { LOOK_CLOSELY } else { LOOK } {
            tokio::time::sleep(TICK).await;
            continue;
        }
        looked = Instant::now();
        places.iter_mut().for_each(|(place, _)| place.look_after(scenario));
        let must = ended.is_none().then(|| apply(&trace.events[..fed.count.load(Ordering::Acquire)]));
        for (place, _) in places.iter_mut().filter(|(place, _)| !place.right) {
            let verdict = place.judge(must.as_ref().unwrap_or(&expected)).await;
            place.samples.push((began.elapsed().as_secs_f64(), verdict.counts.alerts));
            place.right = ended.is_some() && verdict.counts.alerts == 0;
        }
        if began.elapsed().as_secs() / 10 > told {
            told = began.elapsed().as_secs() / 10;
            progress(scenario, began.elapsed(), &places);
        }
        let over = ended.is_some_and(|ended| ended.elapsed() > scenario.patience);
        if over || places.iter().all(|(place, _)| place.right) {
            break;
        }
    }
    feeding.await.expect("the events are published");
    let busy = busy.until_now();
    let mut outcomes = Vec::new();
    for (place, before) in places {
        outcomes.push(place.outcome(scenario, before, &trace, &expected, &fed).await);
    }
    let ended = fed.ended.get().map_or(0.0, |(ended, _)| (*ended - began).as_secs_f64());
    Round { scenario: scenario.name.into(), outcomes, busy, ended, patience: scenario.patience.as_secs() }
}

fn progress(scenario: &Scenario, at: Duration, places: &[(Place, Duration)]) {
    let wrong = places.iter().map(|(place, _)| {
        let wrong = place.samples.last().map_or(0, |(_, wrong)| *wrong);
        format!("{} {wrong}", place.system.title())
    });
    let wrong: Vec<String> = wrong.collect();
    eprintln!("  {} {:>3} s, tickets that are not as they must be: {}", scenario.name, at.as_secs(), wrong.join("; "));
}

impl Place {
    /// Notes what the process has used, and starts another where it has ended.
    fn look_after(&mut self, scenario: &Scenario) {
        match self.running.as_ref().and_then(Running::usage_if_it_lives) {
            Some(usage) => {
                self.seen = usage.cpu;
                self.peak = self.peak.max(usage.peak);
            }
            None => {
                self.ended += 1;
                self.start(scenario);
            }
        }
    }

    fn kill_and_start(&mut self, scenario: &Scenario) {
        self.look_after(scenario);
        self.start(scenario);
    }

    fn start(&mut self, scenario: &Scenario) {
        // Dropping it is a SIGKILL.
        drop(self.running.take());
        self.spent += std::mem::take(&mut self.seen);
        self.running = Some(self.world.run(&mut self.system.command(&self.world, scenario.quota)));
    }

    async fn judge(&self, expected: &BTreeMap<String, crate::reference::Ticket>) -> Verdict {
        judge(&self.world.rows().await, expected, self.world.topic())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds of minutes")]
    async fn outcome(
        mut self,
        scenario: &Scenario,
        before: Duration,
        trace: &Trace,
        expected: &BTreeMap<String, crate::reference::Ticket>,
        fed: &Fed,
    ) -> Outcome {
        self.look_after(scenario);
        let verdict = self.judge(expected).await;
        let (state, log) = (self.world.state().await, self.world.log().await);
        let count = |wanted: &dyn Fn(&Value) -> bool| -> u64 {
            let lines = state["requests"].as_array().into_iter().flatten().filter(|line| wanted(line));
            lines.filter_map(|line| line["count"].as_u64()).sum()
        };
        let opened = |key: &str| {
            let mut writes = log.iter().filter(|entry| entry["op"] == "insert" && entry["correlation_id"] == key);
            writes.find(|entry| entry["applied"] == true)?["at_ms"].as_i64()
        };
        let published = fed.critical.lock().unwrap_or_else(PoisonError::into_inner);
        let mut critical: Vec<f64> =
            published.iter().filter_map(|(key, at)| Some((opened(key)? - at) as f64 / 1_000.0)).collect();
        critical.sort_by(f64::total_cmp);
        // The last write that changed anything is when all was right, more exactly than by looking.
        let last =
            log.iter().filter(|entry| entry["changed"] == true).filter_map(|entry| entry["at_ms"].as_i64()).max();
        let ended = fed.ended.get().map_or(0, |(_, at)| *at);
        let right_after = last.filter(|_| self.right).map(|last| (last - ended).max(0) as f64 / 1_000.0);
        let cpu = (self.spent + self.seen).saturating_sub(before).as_secs_f64();
        if !verdict.differences.is_empty() {
            let some: Vec<&String> = verdict.differences.iter().take(3).collect();
            eprintln!("  {}: {some:#?}", self.system.title());
        }
        Outcome {
            system: self.system.name().into(),
            title: self.system.title().into(),
            events: trace.events.len(),
            tickets: expected.len(),
            never: published.len() - critical.len(),
            overtaken: overtaken(&log).0.len(),
            requests: count(&|_| true),
            writes: count(&|line| line["method"] != "GET"),
            refused: count(&|line| line["status"] == 429),
            struck: state["faults_struck"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum(),
            right_after,
            critical,
            cpu_ms: cpu * 1e6 / trace.events.len() as f64,
            idle_mb: self.idle,
            peak_mb: self.peak,
            ended: self.ended,
            samples: self.samples.clone(),
            mistakes: verdict.counts,
        }
    }
}

/// Publishes the trace to all topics at its pace.
fn feed(trace: Arc<Trace>, fed: Arc<Fed>, bootstrap: String, topics: Vec<String>) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let producer = producer(&bootstrap, "0");
        let began = Instant::now();
        for (event, due) in trace.events.iter().zip(&trace.due) {
            // This is the pace of the input, not a wait for anything.
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            if event.key.starts_with(CRITICAL) {
                let mut critical = fed.critical.lock().unwrap_or_else(PoisonError::into_inner);
                critical.insert(event.key.clone(), jiff::Timestamp::now().as_millisecond());
            }
            let body = event.body();
            for topic in &topics {
                let record = BaseRecord::to(topic).key(&event.key).payload(&body);
                producer.send(record).map_err(|(error, _)| error).expect("it is sent");
            }
            producer.poll(Duration::ZERO);
            fed.count.fetch_add(1, Ordering::Release);
        }
        let _ = fed.ended.set((Instant::now(), jiff::Timestamp::now().as_millisecond()));
        producer.flush(Duration::from_secs(60)).expect("acknowledged");
    })
}

/// How busy the machine's processor is.
struct Busy {
    idle: u64,
    all: u64,
}

impl Busy {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").expect("Linux tells");
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
        // user, nice, system, idle, iowait, …
        Self { idle: ticks.iter().skip(3).take(2).sum(), all: ticks.iter().take(8).sum() }
    }

    /// The share since then, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "ticks of minutes")]
    fn until_now(&self) -> f64 {
        let now = Self::now();
        let (idle, all) = ((now.idle - self.idle) as f64, (now.all - self.all) as f64);
        1.0 - idle / all.max(1.0)
    }
}
