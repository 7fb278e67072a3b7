//! `nowbridge demo`: a self-contained demo on one machine, without further installations.
//!
//! It runs an embedded broker (librdkafka's mock cluster), a simulated instance and the same routes as `run`. A storm
//! of Alertmanager alerts is published, and a simulated user edits tickets. At the end, the simulator's rows and the
//! change topic are compared with the published alerts and the edits. The embedded broker keeps 5 MB per partition,
//! does not compact and does not enforce transactions: the demo shows the bridge but proves no guarantee, and it fails
//! if the broker has deleted records.

mod progress;
mod storm;
mod tally;
mod user;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::mocking::MockCluster;
use tokio_util::sync::CancellationToken;

use super::args::Demo;
use crate::bridge::{self, topics};
use crate::config::{self, Config};
use crate::kafka::KafkaOptions;
use crate::runtime::supervision::{self, Supervisor};
use crate::simulators::servicenow::{Latency, Options, RunningSimulator, Simulator};

use progress::Progress;
use storm::Storm;
use tally::{ChangeReader, Tally};
use user::UserActions;

/// Partitions of the input and thus of the ledger: enough that none of them reaches the broker's 5 MB.
const PARTITIONS: i32 = 8;

/// The demo ends if no count changes for this long.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Latency of the simulated instance, milliseconds.
const LATENCY: u64 = 20;

/// Runs the demo. Returns false if a count is wrong.
///
/// # Errors
/// A component can't be started or fails, or a signal stops the demo.
pub async fn demo(args: Demo) -> Result<bool> {
    let stop = CancellationToken::new();
    supervision::cancel_on_signals(stop.clone())?;
    let cluster = MockCluster::new(1).context("can't start the embedded broker")?;
    let bootstrap = cluster.bootstrap_servers();
    let options = Options {
        listen: args.listen,
        seed: args.seed,
        latency: Latency { base_ms: LATENCY, ..Latency::default() },
        ..Options::default()
    };
    let simulator = Arc::new(Simulator::start(options).await?);
    let config = configuration(&bootstrap, &simulator.url())?;
    create_topics(&cluster, &config)?;
    print_intro(&simulator, &bootstrap);

    let mut supervisor = Supervisor::new(stop.clone());
    bridge::start(&config, topics::strictness(&config, true), &mut supervisor, &stop).await?;
    let bridge = tokio::spawn(supervisor.run());
    let outcome = run_scenario(&args, &config, &simulator, &stop).await;
    if args.keep && outcome.is_ok() && !stop.is_cancelled() {
        println!("\nThe simulated instance keeps running at {}. Press Ctrl-C to stop it.", simulator.url());
        stop.cancelled().await;
    }
    stop.cancel();
    bridge.await.context("the task of the bridge panicked")??;
    let tally = outcome?;
    Ok(tally.is_correct())
}

fn print_intro(simulator: &RunningSimulator, bootstrap: &str) {
    println!("nowbridge demo: an embedded broker at {bootstrap}, a simulated ServiceNow at {}", simulator.url());
    println!(
        "The bridge runs as with `nowbridge run`. The embedded broker does not compact or enforce transactions, so the \
         demo proves no guarantee.\n"
    );
}

/// Returns the configuration, read from `demo.yaml`.
fn configuration(bootstrap: &str, url: &str) -> Result<Config> {
    let text = include_str!("demo.yaml").replace("@BOOTSTRAP@", bootstrap).replace("@URL@", url);
    let path = std::path::Path::new("demo.yaml");
    Ok(config::parse(&text, path, &|_| None)?)
}

fn create_topics<C: rdkafka::ClientContext>(cluster: &MockCluster<'_, C>, config: &Config) -> Result<()> {
    let inputs = vec![PARTITIONS; config.sinks.len()];
    let layout = topics::layout(config, &inputs);
    for spec in layout.inputs.iter().chain(&layout.own) {
        let partitions = spec.partitions.unwrap_or(1);
        cluster.create_topic(&spec.name, partitions, 1).with_context(|| format!("can't create topic {}", spec.name))?;
    }
    Ok(())
}

/// Publishes the storm, runs the simulated user, and waits until all results have arrived.
async fn run_scenario(
    args: &Demo,
    config: &Config,
    simulator: &Arc<RunningSimulator>,
    stop: &CancellationToken,
) -> Result<Tally> {
    let (Some(sink), Some(source)) = (config.sinks.first(), config.sources.first()) else {
        bail!("the demo's configuration has no routes")
    };
    let kafka = KafkaOptions::new(config.kafka.bootstrap.clone());
    let storm = Arc::new(Storm::new(args.tickets, args.seed));
    let actions = Arc::new(Mutex::new(UserActions::default()));
    let reader = ChangeReader::start(&kafka, &source.topic)?;
    let mut progress = Progress::new(storm.events(), args.tickets);
    let publishing = tokio::spawn(storm::publish(Arc::clone(&storm), kafka.clone(), sink.topic.clone(), stop.clone()));
    let working =
        tokio::spawn(user::work(Arc::clone(&storm), Arc::clone(simulator), Arc::clone(&actions), stop.clone()));
    let started = Instant::now();
    let (mut last_change, mut last_tally) = (Instant::now(), None);
    let tally = loop {
        if stop.is_cancelled() {
            bail!("stopped by a signal before the demo was complete");
        }
        let (state, rows) = (simulator.state(), tally::rows(simulator));
        let (changes, actions) = (reader.changes(), actions.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let tally = Tally::count(&storm, &actions, &rows, &state, &changes);
        progress.show(&tally, storm.published(), started.elapsed());
        if publishing.is_finished() && working.is_finished() && tally.is_complete() {
            break tally;
        }
        if last_tally.as_ref() != Some(&tally) {
            (last_change, last_tally) = (Instant::now(), Some(tally));
        } else if last_change.elapsed() > STALL_TIMEOUT {
            break tally;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    publishing.await.context("the task that publishes the storm panicked")??;
    working.await.context("the task of the simulated user panicked")?;
    tally::check_nothing_deleted(&kafka, config).await?;
    progress.finish();
    println!("{}", tally.summary(started.elapsed()));
    Ok(tally)
}
