//! `nowbridge simulate`: a simulated instance on its own.

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::args::Simulate;
use crate::runtime::supervision;
use crate::simulators::servicenow::{Latency, Options, Simulator};

/// Runs the simulator until it is told to stop.
///
/// # Errors
/// The options file is wrong, or the address can't be listened on.
pub async fn simulate(args: Simulate) -> Result<()> {
    let mut options = match &args.options {
        None => Options::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
            serde_saphyr::from_str(&text).with_context(|| format!("{} is not right", file.display()))?
        }
    };
    options.listen = args.listen;
    options.seed = args.seed;
    if args.latency > 0 {
        options.latency = Latency { base_ms: args.latency, ..options.latency };
    }
    if args.instance_url.is_some() {
        options.instance_url = args.instance_url;
    }
    let stop = CancellationToken::new();
    supervision::on_signals(stop.clone())?;
    let running = Simulator::start(options).await?;
    println!("a simulated ServiceNow instance listens at {}", running.url());
    println!("its page shows the incidents; user nowbridge, password nowbridge; Ctrl-C ends it");
    stop.cancelled().await;
    running.shutdown().await;
    Ok(())
}
