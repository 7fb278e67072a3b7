//! How a command changes what a route stores: load the configuration, preview the change, and apply it with `--yes`.
//!
//! Every command that changes a ledger, dead letters or open tickets goes through [`run`], so that none of them changes
//! anything without `--yes`, and none that needs the bridges stopped runs beside one.

use anyhow::Result;

use super::args::RouteArgs;
use crate::bridge::stores::select_sink;
use crate::config::{self, Config, Sink};
use crate::ledger::admin::Site;

/// The route that a command works on.
pub(super) struct Target {
    /// The configuration.
    pub config: Config,
    /// Name of the selected route, if one was named.
    route: Option<String>,
}

impl Target {
    /// Loads the configuration and selects the route.
    ///
    /// # Errors
    /// The configuration has errors, or the route does not exist.
    pub fn load(args: &RouteArgs) -> Result<Self> {
        let target = Self { config: config::load(&args.file.config)?, route: args.route.clone() };
        target.sink()?;
        Ok(target)
    }

    /// The selected sink route.
    ///
    /// # Errors
    /// None after [`Target::load`].
    pub fn sink(&self) -> Result<&Sink> {
        select_sink(&self.config, self.route.as_deref())
    }
}

/// One change of a route.
pub(super) trait RouteChange {
    /// What the preview found, for [`RouteChange::apply`].
    type Preview;

    /// Prints what the change would do; `None` where there is nothing to change. Changes nothing.
    ///
    /// # Errors
    /// The change is impossible, or the cluster does not answer.
    async fn preview(&self, target: &Target) -> Result<Option<Self::Preview>>;

    /// Applies the change and prints what was done.
    ///
    /// # Errors
    /// Bridges of the route are running that must be stopped, or the cluster does not answer.
    async fn apply(&self, target: &Target, preview: Self::Preview) -> Result<()>;
}

/// Loads, previews, and applies the change if `yes`.
///
/// # Errors
/// As the change's.
pub(super) async fn run(args: &RouteArgs, yes: bool, change: impl RouteChange) -> Result<()> {
    let target = Target::load(args)?;
    let Some(preview) = change.preview(&target).await? else { return Ok(()) };
    if !yes {
        println!("\nNothing was changed; run again with --yes to apply.");
        return Ok(());
    }
    change.apply(&target, preview).await
}

/// Fails while a bridge of the route is running: one of its consumer groups, or one of `others`, has members.
///
/// # Errors
/// One has, or the cluster does not answer.
pub(super) async fn require_stopped(site: &Site, sink: &Sink, others: &[String]) -> Result<()> {
    let mut groups: Vec<String> = sink.groups().into_iter().map(|(group, _)| group).collect();
    groups.extend_from_slice(others);
    Ok(site.refuse_members(&groups).await?)
}

/// Seconds in which ServiceNow may still commit a write of the stopped bridges; prints that it waits for them.
pub(super) fn announce_wait_for_late_writes(sink: &Sink) -> std::time::Duration {
    let span = sink.instance.request_deadline + sink.instance.settle_time;
    println!("waiting until no earlier write can be committed any more: {} s after the last one", span.as_secs());
    span
}
