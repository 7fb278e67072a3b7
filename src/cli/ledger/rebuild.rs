//! `nowbridge ledger rebuild`: replaces a lost or mismatching ledger by an empty one; the bridge finds tickets by
//! look-ups.

use anyhow::Result;

use super::super::route_change::{RouteChange, Target, announce_wait_for_late_writes, require_stopped};
use super::super::time_arguments;
use crate::bridge::stores;
use crate::ledger::admin::{self, RebuildFrom};
use crate::runtime::error_chain;

/// The arguments.
pub(super) struct Rebuild {
    /// Where to continue reading the input: `earliest`, `latest`, a time or an age; `None`: at the committed offset.
    pub from: Option<String>,
}

impl RouteChange for Rebuild {
    type Preview = RebuildFrom;

    async fn preview(&self, target: &Target) -> Result<Option<RebuildFrom>> {
        let from = self
            .from
            .as_deref()
            .map(time_arguments::start_at)
            .transpose()?
            .map_or(RebuildFrom::Committed, RebuildFrom::At);
        let sink = target.sink()?;
        if stores::partitions(&target.config, &sink.ledger).await?.is_none() {
            println!("The ledger {} does not exist, and will be created. The bridge looks up each key in", sink.ledger);
            println!("the instance at its next event, with one request per key.");
            return Ok(Some(from));
        }
        let ledger = stores::ledger(&target.config, sink, false).await?;
        let mut keys = 0;
        for partition in 0..ledger.partitions {
            match ledger.read_partition(partition, |_| ()).await {
                Ok(content) => keys += content.state.entries.len(),
                // A damaged ledger is what this command repairs.
                Err(error) => println!("partition {partition} can't be read: {}", error_chain::chain(&error)),
            }
        }
        println!(
            "{keys} keys of the ledger {} will be removed. The bridge looks up each key in the instance",
            ledger.topic
        );
        println!(
            "at its next event, with one request per key. Values that users wrote into tickets may be overwritten."
        );
        Ok(Some(from))
    }

    async fn apply(&self, target: &Target, from: RebuildFrom) -> Result<()> {
        let sink = target.sink()?;
        let ledger = stores::ledger(&target.config, sink, true).await?;
        require_stopped(&ledger, sink, &[]).await?;
        let wait = announce_wait_for_late_writes(sink);
        let report = &mut |partition, start, removed| {
            println!("partition {partition}: removed {removed} records; reading continues at offset {start}");
        };
        admin::rebuild(&ledger, from, wait, report).await?;
        println!("\nrebuilt the ledger {}", ledger.topic);
        Ok(())
    }
}
