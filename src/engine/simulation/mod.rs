//! The engine's simulation: two members, a consumer group, a ledger, an instance and its users, in virtual time, from
//! a seed. It searches for histories in which the delivery protocol breaks one of its guarantees.
//!
//! It drives the dispatcher through [`super::Event`] and [`super::Effect`] exactly as the sink does, but shares no
//! code with the sink. It proves nothing about code outside the engine; the crash tests on a real broker do that.
//!
//! `NOWBRIDGE_HISTORIES` sets how many histories the main test runs, and `NOWBRIDGE_SEED` its first seed. The test
//! `replay` prints the history of `NOWBRIDGE_SEED`.

mod coverage;
mod effects;
mod faults;
mod final_state;
mod group;
mod injection;
mod instance;
mod ledger;
mod member;
mod mutants;
mod publisher;
mod queue;
mod redrive;
mod reference;
mod requests;
mod resync;
mod scenario;
mod tests;
mod trace_format;
mod traces;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coverage::Coverage;
use scenario::Scenario;
use world::World;

/// The result of a run of many histories.
#[derive(Debug, Default)]
struct RunResult {
    coverage: Coverage,
    /// Seeds and descriptions of the violations, lowest seed first.
    violations: Vec<(u64, String)>,
}

/// Runs histories on all cores. With `stop`, each thread stops at the first violation.
fn run(first: u64, count: u64, scenario: &Arc<Scenario>, stop: bool) -> RunResult {
    let next = AtomicU64::new(first);
    let found = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut result = RunResult::default();
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
                        if let Err(violation) = run_one(&mut world, seed, scenario) {
                            found.store(true, Ordering::Relaxed);
                            violations.push((seed, violation));
                        }
                    }
                    (world.coverage, violations)
                })
            })
            .collect();
        for worker in workers {
            if let Ok((coverage, violations)) = worker.join() {
                result.coverage.add(&coverage);
                result.violations.extend(violations);
            }
        }
    });
    result.violations.sort();
    result
}

/// Runs one history. A panic of the engine counts as a violation.
fn run_one(world: &mut World, seed: u64, scenario: &Arc<Scenario>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| world.run(seed, scenario))) {
        Ok(result) => result,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let coverage = std::mem::take(&mut world.coverage);
            *world = World::new();
            world.coverage = coverage;
            Err(format!("the engine panicked: {}", message.unwrap_or_default()))
        }
    }
}

/// Prints a complete history.
fn print_history(seed: u64, scenario: &Arc<Scenario>) {
    let mut world = World::new();
    world.trace = Some(Vec::new());
    let result = run_one(&mut world, seed, scenario);
    for line in world.trace.iter().flatten() {
        println!("{line}");
    }
    println!("seed {seed}: {result:?}");
}
