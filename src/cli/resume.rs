//! `nowbridge resume`: lets a route of the bridge on this machine go on, by its admin address.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bridge::stores::select_sink;
use crate::config::Config;
use crate::console::ASKED;

/// Asks the running bridge.
///
/// # Errors
/// No bridge answers at the configured address, or it has no such route.
pub async fn resume(config: Config, route: Option<String>) -> Result<()> {
    let sink = select_sink(&config, route.as_deref())?;
    let mut address = config.admin.listen;
    if address.port() == 0 {
        bail!("`admin.listen` has the port 0, which is another one at each start; give it a fixed one");
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let url = format!("http://{address}/routes/{}/resume", sink.name);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let answer = http.post(&url).header(ASKED, "1").send().await;
    let answer = answer.with_context(|| format!("no bridge answers at {address}; is it running on this machine?"))?;
    let status = answer.status();
    if !status.is_success() {
        bail!("the bridge at {address} answers {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    println!("{}: goes on; /readyz at {address} says whether it does", sink.name);
    Ok(())
}
