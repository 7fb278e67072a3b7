//! `nowbridge reprocess`: applies past events again, from an earlier place in the input.

use anyhow::{Result, bail};

use super::instant;
use super::route_change::{RouteChange, Target, announce_wait_for_late_writes, require_stopped};
use crate::bridge::stores;
use crate::ledger::StartAt;
use crate::ledger::admin::{self, Again, Site};
use crate::runtime::clock;

/// What to apply again.
pub(super) struct Reprocess {
    /// From where: `earliest` or an instant.
    pub from: String,
    /// Include alerts whose tickets are resolved or closed.
    pub include_closed: bool,
}

impl RouteChange for Reprocess {
    type Preview = (Site, Again);

    async fn preview(&self, target: &Target) -> Result<Option<(Site, Again)>> {
        let sink = target.sink()?;
        let from = instant::start_at(&self.from)?;
        let window = i64::try_from(sink.settings.reopen_window).unwrap_or(i64::MAX);
        let incomplete = match from {
            StartAt::Latest => bail!("--from latest applies nothing: use earliest, a time or an age"),
            StartAt::Earliest => true,
            StartAt::Time(time) => time < clock::unix().saturating_sub(window),
        };
        let again = Again { from, finished: self.include_closed, incomplete };
        let site = stores::ledger(&target.config, sink, false).await?;
        let partitions = admin::reread(&site, again).await?;
        for one in &partitions {
            println!(
                "partition {}: reading restarts at offset {} instead of {}; {} keys are included, {} are skipped because \
                 their tickets are resolved or closed",
                one.partition, one.from, one.upto, one.keys, one.finished
            );
        }
        if partitions.is_empty() {
            println!("no record was read since then: there is nothing to apply again");
            return Ok(None);
        }
        println!(
            "Notes of these events are written a second time. Alerts without a ledger entry get tickets if they open."
        );
        if incomplete {
            println!("Entries of that time may have expired: the bridge looks every unknown key up first, one request");
            println!(
                "each, until `ledger adopt --complete`. An alert whose ticket is closed gets a new one if it opens."
            );
        }
        Ok(Some((site, again)))
    }

    async fn apply(&self, target: &Target, (site, again): (Site, Again)) -> Result<()> {
        let sink = target.sink()?;
        require_stopped(&site, sink, &[]).await?;
        let span = announce_wait_for_late_writes(sink);
        let done = admin::reprocess(&site, again, span).await?;
        let records: i64 = done.iter().map(|one| one.upto - one.from).sum();
        println!("\nThe offsets were reset: the bridge reads {records} records again when it starts.");
        Ok(())
    }
}
