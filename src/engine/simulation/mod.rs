//! The engine's simulation: two members, a consumer group, a ledger, an instance and people, in virtual time, from a
//! seed. It looks for histories in which the delivery protocol breaks one of its promises.
//!
//! It drives the dispatcher through [`super::Event`] and [`super::Effect`] exactly as the sink does, but shares no code
//! with the sink. It proves nothing about code outside the engine; the crash tests on a real broker do that.
//!
//! `NOWBRIDGE_HISTORIES` sets how many histories the main test runs, `NOWBRIDGE_SEED` where it starts; the test `replay`
//! with `NOWBRIDGE_SEED` prints one history.

mod alerts;
mod coverage;
mod effects;
mod faults;
mod finish;
mod group;
mod instance;
mod ledger;
mod member;
mod mutants;
mod queue;
mod redrive;
mod reference;
mod report;
mod resync;
mod scenario;
mod script;
mod tests;
mod traces;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coverage::Coverage;
use scenario::Scenario;
use world::World;

/// What a run of many histories found.
#[derive(Debug, Default)]
struct Findings {
    coverage: Coverage,
    /// Seed and words of the violations, lowest seed first.
    violations: Vec<(u64, String)>,
}

/// Runs histories on all cores. Stops at the first violation of each thread where `stop` says so.
fn run(first: u64, count: u64, scenario: &Arc<Scenario>, stop: bool) -> Findings {
    let next = AtomicU64::new(first);
    let found = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut findings = Findings::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut world = World::new();
                    let mut violations = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count || (stop && found.load(Ordering::Relaxed)) {
                            break;
                        }
                        if let Err(what) = run_one(&mut world, seed, scenario) {
                            found.store(true, Ordering::Relaxed);
                            violations.push((seed, what));
                        }
                    }
                    (world.coverage, violations)
                })
            })
            .collect();
        for worker in workers {
            if let Ok((coverage, violations)) = worker.join() {
                findings.coverage.add(&coverage);
                findings.violations.extend(violations);
            }
        }
    });
    findings.violations.sort();
    findings
}

/// Runs one history; a panic of the engine is a violation like others.
fn run_one(world: &mut World, seed: u64, scenario: &Arc<Scenario>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| world.run(seed, scenario))) {
        Ok(result) => result,
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let coverage = std::mem::take(&mut world.coverage);
            *world = World::new();
            world.coverage = coverage;
            Err(format!("the engine panicked: {}", words.unwrap_or_default()))
        }
    }
}

/// Prints a history from its beginning to its end.
fn tell_story(seed: u64, scenario: &Arc<Scenario>) {
    let mut world = World::new();
    world.trace = Some(Vec::new());
    let result = run_one(&mut world, seed, scenario);
    for line in world.trace.iter().flatten() {
        println!("{line}");
    }
    println!("seed {seed}: {result:?}");
}
