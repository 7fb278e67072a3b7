//! The main run, its replay, and its speed.

use std::sync::Arc;
use std::time::Instant;

use super::scenario::Scenario;
use super::world::World;
use super::{run, run_one, tell_story};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn histories_keep_every_promise() {
    let histories = number("NOWBRIDGE_HISTORIES", 4_000);
    let first = number("NOWBRIDGE_SEED", 1);
    let began = Instant::now();
    let findings = run(first, histories, &Arc::new(Scenario::default()), false);
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", findings.coverage);
    println!("{:.0} calls of apply a second, the world included", findings.coverage.applies as f64 / seconds);
    let words: Vec<String> =
        findings.violations.iter().take(30).map(|(seed, what)| format!("seed {seed}: {what}")).collect();
    assert!(
        findings.violations.is_empty(),
        "{} of {histories} histories broke a promise:\n{}",
        findings.violations.len(),
        words.join("\n")
    );
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in 1..40 {
        let traces: Vec<Option<Vec<String>>> = (0..2)
            .map(|_| {
                let mut world = World::new();
                world.trace = Some(Vec::new());
                let _ = run_one(&mut world, seed, &Arc::new(Scenario::default()));
                world.trace
            })
            .collect();
        let differs = traces[0].iter().flatten().zip(traces[1].iter().flatten()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
    }
}

/// Prints one history: `NOWBRIDGE_SEED=7 cargo test --lib simulation::tests::replay -- --nocapture --ignored`.
#[test]
#[ignore = "prints a history for a person"]
fn replay() {
    tell_story(number("NOWBRIDGE_SEED", 1), &Arc::new(Scenario::default()));
}
