//! The steps of all commands that change data of a route: load the configuration, preview, and apply with `--yes`.
//!
//! Every command that changes a ledger, dead letters or open tickets goes through [`run`], so that none of them changes
//! anything without `--yes`, and none that requires stopped bridges runs while a bridge is running.

use anyhow::Result;

use super::args::RouteArgs;
use crate::bridge::stores::select_sink;
use crate::config::{self, Config, Sink};
use crate::ledger::admin::RouteLedger;

/// The route that a command works on.
pub(super) struct Target {
    pub config: Config,
    /// Name of the route, if `--route` was given.
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

    /// Returns the selected sink route.
    ///
    /// # Errors
    /// None: [`Target::load`] has checked it.
    pub fn sink(&self) -> Result<&Sink> {
        select_sink(&self.config, self.route.as_deref())
    }
}

/// A change of a route.
pub(super) trait RouteChange {
    /// The result of the preview, for [`RouteChange::apply`].
    type Preview;

    /// Prints what the change would do, and changes nothing. Returns `None` if there is nothing to change.
    ///
    /// # Errors
    /// The change is impossible, or the cluster does not respond.
    async fn preview(&self, target: &Target) -> Result<Option<Self::Preview>>;

    /// Applies the change and prints what was done.
    ///
    /// # Errors
    /// Bridges of the route that must be stopped are running, or the cluster does not respond.
    async fn apply(&self, target: &Target, preview: Self::Preview) -> Result<()>;
}

/// Previews a change, and applies it if `yes`.
///
/// # Errors
/// As [`Target::load`], [`RouteChange::preview`] and [`RouteChange::apply`].
pub(super) async fn run(args: &RouteArgs, yes: bool, change: impl RouteChange) -> Result<()> {
    let target = Target::load(args)?;
    let Some(preview) = change.preview(&target).await? else { return Ok(()) };
    if !yes {
        println!("\nNothing was changed; run again with --yes to apply.");
        return Ok(());
    }
    change.apply(&target, preview).await
}

/// Fails if a bridge of the route is running: if one of its consumer groups, or one of `others`, has members.
///
/// # Errors
/// A group has members, or the cluster does not respond.
pub(super) async fn require_stopped(ledger: &RouteLedger, sink: &Sink, others: &[String]) -> Result<()> {
    let mut groups: Vec<String> = sink.consumer_groups().into_iter().map(|(group, _)| group).collect();
    groups.extend_from_slice(others);
    Ok(ledger.require_no_members(&groups).await?)
}

/// Prints and returns how long the command must wait after the last write of the stopped bridges, because ServiceNow
/// may still commit it.
pub(super) fn announce_wait_for_late_writes(sink: &Sink) -> std::time::Duration {
    let wait = sink.instance.request_deadline + sink.instance.max_transaction_time;
    println!("waiting until {} s after the last write, because ServiceNow may still commit it", wait.as_secs());
    wait
}
