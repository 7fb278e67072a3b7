//! `nowbridge simulate`: runs a simulated ServiceNow instance.

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::args::Simulate;
use crate::runtime::supervision;
use crate::simulators::servicenow::{Latency, Options, Simulator};

/// Runs the simulator until a signal stops it.
///
/// # Errors
/// The options file is invalid, or the address is unusable.
pub async fn simulate(args: Simulate) -> Result<()> {
    let mut options = match &args.options {
        None => Options::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
            serde_saphyr::from_str(&text).with_context(|| format!("invalid options in {}", file.display()))?
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
    supervision::cancel_on_signals(stop.clone())?;
    let running = Simulator::start(options).await?;
    println!("simulated ServiceNow instance at {}", running.url());
    println!(
        "open it in a browser to see the incidents; users nowbridge/nowbridge (the bridge) and admin/admin; Ctrl-C stops it"
    );
    stop.cancelled().await;
    running.shutdown().await;
    Ok(())
}
