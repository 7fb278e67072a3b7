//! `nowbridge resume`: resumes a stopped route of the local bridge, at its admin address.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bridge::stores::select_sink;
use crate::config::Config;
use crate::console::RESUME_HEADER;

/// Sends the request to the running bridge.
///
/// # Errors
/// No bridge responds at the configured address, or it has no such route.
pub async fn resume(config: Config, route: Option<String>) -> Result<()> {
    let sink = select_sink(&config, route.as_deref())?;
    let mut address = config.admin.listen;
    if address.port() == 0 {
        bail!("`admin.listen` has port 0, a random port at each start; set a fixed port");
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let url = format!("http://{address}/routes/{}/resume", sink.name);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let response = http.post(&url).header(RESUME_HEADER, "1").send().await;
    let response =
        response.with_context(|| format!("no bridge responds at {address}; is it running on this machine?"))?;
    let status = response.status();
    if !status.is_success() {
        bail!("the bridge at {address} responded {status}: {}", response.text().await.unwrap_or_default().trim());
    }
    println!("{}: resumed; check http://{address}/readyz", sink.name);
    Ok(())
}
