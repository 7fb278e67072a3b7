//! `nowbridge demo`: the whole thing on one machine with nothing else installed.
//!
//! An embedded broker (librdkafka's mock cluster), a simulated instance, and the same routes that `run` starts; a storm
//! of Alertmanager alerts on one side, a person who works on tickets on the other. At the end everything is counted
//! from the simulator's rows and from the change topic against what was fed. The embedded broker keeps 5 MB a
//! partition, compacts nothing and enforces no transaction: it shows the work, it proves no guarantee, and the demo
//! fails if it has thrown anything away.

mod person;
mod progress;
mod storm;
mod tally;

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
use crate::simulators::servicenow::{Latency, Options, Running, Simulator};

use person::Acts;
use progress::Progress;
use storm::Storm;
use tally::{Reader, Tally};

/// Partitions of the input and so of the ledger: enough that none of them nears the broker's 5 MB.
const PARTITIONS: i32 = 8;

/// The demo gives up when nothing has moved for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds that the simulated instance takes for a request.
const LATENCY: u64 = 20;

/// Runs the demo.
///
/// # Errors
/// Something could not be started, nothing moved any more, or a count is wrong.
pub async fn demo(args: Demo) -> Result<bool> {
    let stop = CancellationToken::new();
    supervision::on_signals(stop.clone())?;
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
    make_topics(&cluster, &config)?;
    introduce(&simulator, &bootstrap);

    let mut supervisor = Supervisor::new(stop.clone());
    bridge::start(&config, topics::strictness(&config, true), &mut supervisor, &stop).await?;
    let bridge = tokio::spawn(supervisor.run());
    let outcome = watch(&args, &config, &simulator, &stop).await;
    if args.keep && outcome.is_ok() && !stop.is_cancelled() {
        println!("\nThe simulated instance's page: {}   Ctrl-C ends it.", simulator.url());
        stop.cancelled().await;
    }
    stop.cancel();
    bridge.await.context("the bridge died")??;
    let tally = outcome?;
    Ok(tally.is_right())
}

fn introduce(simulator: &Running, bootstrap: &str) {
    println!("nowbridge demo: an embedded broker at {bootstrap}, a simulated ServiceNow at {}", simulator.url());
    println!(
        "The bridge is the one that `nowbridge run` starts. The embedded broker proves no guarantee: it neither \
         compacts nor enforces transactions.\n"
    );
}

/// The demo's configuration is an ordinary file's text.
fn configuration(bootstrap: &str, url: &str) -> Result<Config> {
    let text = include_str!("demo.yaml").replace("@BOOTSTRAP@", bootstrap).replace("@URL@", url);
    let path = std::path::Path::new("demo.yaml");
    Ok(config::parse(&text, path, &|_| None)?)
}

fn make_topics<C: rdkafka::ClientContext>(cluster: &MockCluster<'_, C>, config: &Config) -> Result<()> {
    let inputs = vec![PARTITIONS; config.sinks.len()];
    let layout = topics::layout(config, &inputs);
    for spec in layout.inputs.iter().chain(&layout.own) {
        let partitions = spec.partitions.unwrap_or(1);
        cluster.create_topic(&spec.name, partitions, 1).with_context(|| format!("can't make {}", spec.name))?;
    }
    Ok(())
}

/// Feeds the storm, lets the person work, and waits until all of it has arrived.
async fn watch(args: &Demo, config: &Config, simulator: &Arc<Running>, stop: &CancellationToken) -> Result<Tally> {
    let (Some(sink), Some(source)) = (config.sinks.first(), config.sources.first()) else {
        bail!("the demo's configuration has no routes")
    };
    let kafka = KafkaOptions::new(config.kafka.bootstrap.clone());
    let storm = Arc::new(Storm::new(args.tickets, args.seed));
    let acts = Arc::new(Mutex::new(Acts::default()));
    let reader = Reader::start(&kafka, &source.topic)?;
    let mut progress = Progress::new(storm.events(), args.tickets);
    let feeding = tokio::spawn(storm::feed(Arc::clone(&storm), kafka.clone(), sink.topic.clone(), stop.clone()));
    let working =
        tokio::spawn(person::work(Arc::clone(&storm), Arc::clone(simulator), Arc::clone(&acts), stop.clone()));
    let began = Instant::now();
    let mut moved = (Instant::now(), None);
    let tally = loop {
        if stop.is_cancelled() {
            bail!("told to stop before the demo was over");
        }
        let (state, rows) = (simulator.state(), tally::rows(simulator));
        let (seen, acts) = (reader.seen(), acts.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let tally = Tally::count(&storm, &acts, &rows, &state, &seen);
        progress.show(&tally, storm.fed(), began.elapsed());
        if feeding.is_finished() && working.is_finished() && tally.is_complete() {
            break tally;
        }
        if moved.1.as_ref() != Some(&tally) {
            moved = (Instant::now(), Some(tally));
        } else if moved.0.elapsed() > PATIENCE {
            break tally;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    feeding.await.context("feeding the storm died")??;
    working.await.context("the person died")?;
    tally::check_nothing_thrown_away(&kafka, config).await?;
    progress.finish();
    println!("{}", tally.summary(began.elapsed()));
    Ok(tally)
}
