//! `nowbridge ledger rename`: migrates the ledger and the committed offsets to a new name of the route.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::super::route_change::{RouteChange, Target, require_stopped};
use crate::bridge::stores;
use crate::ledger::admin::{self, OldNames};

/// The arguments.
pub(super) struct Rename {
    /// Old name of the route.
    pub from: String,
    /// Old ledger topic; `None`: named by the old name.
    pub from_ledger: Option<String>,
    /// Old consumer group; `None`: named by the old name.
    pub from_group: Option<String>,
}

impl RouteChange for Rename {
    type Preview = OldNames;

    async fn preview(&self, target: &Target) -> Result<Option<OldNames>> {
        let (sink, prefix, from) = (target.sink()?, &target.config.topics.prefix, &self.from);
        let old = OldNames {
            ledger: self.from_ledger.clone().unwrap_or_else(|| format!("{prefix}.{from}.ledger")),
            group: self.from_group.clone().unwrap_or_else(|| format!("{prefix}.{from}")),
        };
        if stores::partitions(&target.config, &old.ledger).await?.is_none() {
            return Err(admin::Error::NoLedger(old.ledger).into());
        }
        println!("from ledger {} and group {}", old.ledger, old.group);
        println!("to   ledger {} and group {}", sink.ledger, sink.group);
        println!("\nThe old topics are kept. Open dead letters of {from} are not migrated: redrive them first.");
        Ok(Some(old))
    }

    async fn apply(&self, target: &Target, old: OldNames) -> Result<()> {
        let sink = target.sink()?;
        let ledger = stores::ledger(&target.config, sink, true).await?;
        require_stopped(&ledger, sink, std::slice::from_ref(&old.group)).await?;
        let copied = Arc::new(Mutex::new(0));
        let total = Arc::clone(&copied);
        let report = &mut move |partition, keys: usize| {
            *total.lock().unwrap_or_else(PoisonError::into_inner) += keys;
            println!("partition {partition}: {keys} keys");
        };
        admin::rename(&ledger, &old, report).await?;
        println!("\nmigrated {} keys", *copied.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}
