//! The main run, the replay of a history, and the speed.

use std::sync::Arc;
use std::time::Instant;

use super::scenario::Scenario;
use super::world::World;
use super::{print_history, run, run_one};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn all_histories_keep_the_guarantees() {
    let histories = number("NOWBRIDGE_HISTORIES", 4_000);
    let first = number("NOWBRIDGE_SEED", 1);
    let started_at = Instant::now();
    let result = run(first, histories, &Arc::new(Scenario::default()), false);
    let seconds = started_at.elapsed().as_secs_f64();
    println!("{}", result.coverage);
    println!("{:.0} calls of apply per second, including the world", result.coverage.applies as f64 / seconds);
    let messages: Vec<String> =
        result.violations.iter().take(30).map(|(seed, violation)| format!("seed {seed}: {violation}")).collect();
    assert!(
        result.violations.is_empty(),
        "{} of {histories} histories broke a guarantee:\n{}",
        result.violations.len(),
        messages.join("\n")
    );
}

#[test]
fn a_seed_always_gives_the_same_history() {
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
#[ignore = "prints a history"]
fn replay() {
    print_history(number("NOWBRIDGE_SEED", 1), &Arc::new(Scenario::default()));
}
