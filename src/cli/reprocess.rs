//! `nowbridge reprocess`: applies past events again, from an earlier offset of the input.

use anyhow::{Result, bail};

use super::route_change::{RouteChange, Target, announce_wait_for_late_writes, require_stopped};
use super::time_arguments;
use crate::bridge::stores;
use crate::ledger::StartAt;
use crate::ledger::admin::{self, ReprocessScope, RouteLedger};
use crate::runtime::clock;

/// The arguments.
pub(super) struct Reprocess {
    /// Where to start: `earliest`, a time or an age.
    pub from: String,
    /// Include alerts whose tickets are resolved or closed.
    pub include_closed: bool,
}

impl RouteChange for Reprocess {
    type Preview = (RouteLedger, ReprocessScope);

    async fn preview(&self, target: &Target) -> Result<Option<(RouteLedger, ReprocessScope)>> {
        let sink = target.sink()?;
        let from = time_arguments::start_at(&self.from)?;
        let window = i64::try_from(sink.settings.reopen_window).unwrap_or(i64::MAX);
        let incomplete = match from {
            StartAt::Latest => bail!("--from latest applies nothing: use earliest, a time or an age"),
            StartAt::Earliest => true,
            StartAt::Time(time) => time < clock::unix().saturating_sub(window),
        };
        let scope = ReprocessScope { from, include_closed: self.include_closed, incomplete };
        let ledger = stores::ledger(&target.config, sink, false).await?;
        let partitions = admin::preview_reprocess(&ledger, scope).await?;
        for range in &partitions {
            println!(
                "partition {}: reading restarts at offset {} instead of {}; {} keys are included, {} are skipped \
                 because their tickets are resolved or closed",
                range.partition, range.from, range.until, range.keys, range.skipped_keys
            );
        }
        if partitions.is_empty() {
            println!("no record was read since then: there is nothing to apply again");
            return Ok(None);
        }
        println!(
            "Notes of these events will be written a second time. Alerts without a ledger entry get tickets if they open."
        );
        if incomplete {
            println!(
                "Entries of that time may have expired: the bridge looks up every unknown key first, with one request"
            );
            println!(
                "each, until `ledger adopt --complete`. An alert whose ticket is closed gets a new ticket if it opens."
            );
        }
        Ok(Some((ledger, scope)))
    }

    async fn apply(&self, target: &Target, (ledger, scope): (RouteLedger, ReprocessScope)) -> Result<()> {
        let sink = target.sink()?;
        require_stopped(&ledger, sink, &[]).await?;
        let wait = announce_wait_for_late_writes(sink);
        let done = admin::reprocess(&ledger, scope, wait).await?;
        let records: i64 = done.iter().map(|range| range.until - range.from).sum();
        println!("\nThe offsets were reset: the bridge reads {records} records again when it starts.");
        Ok(())
    }
}
