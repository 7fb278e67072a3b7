//! `nowbridge ledger adopt`: accepts a ledger that was written for another address of the instance.

use anyhow::Result;

use super::super::route_change::{RouteChange, Target, require_stopped};
use crate::bridge::stores;
use crate::ledger::admin::{self, RouteLedger};

/// The arguments.
pub(super) struct Adopt {
    /// Also declare the ledger complete: unknown keys are no longer looked up in the instance.
    pub complete: bool,
}

impl RouteChange for Adopt {
    type Preview = RouteLedger;

    async fn preview(&self, target: &Target) -> Result<Option<RouteLedger>> {
        let ledger = stores::ledger(&target.config, target.sink()?, false).await?;
        let mismatches = admin::mismatches(&ledger).await?;
        for (partition, mismatches) in &mismatches {
            for mismatch in mismatches {
                println!(
                    "partition {partition}: the {} was `{}`, and is now `{}`",
                    mismatch.property, mismatch.ledger, mismatch.route
                );
            }
        }
        if self.complete {
            println!("Keys that are not in the ledger will no longer be looked up: their alerts will get new tickets.");
        }
        if mismatches.iter().all(|(_, mismatches)| mismatches.is_empty()) && !self.complete {
            println!("the ledger {} already matches this route", ledger.topic);
            return Ok(None);
        }
        println!("Adopt the ledger only if the instance has the same tickets, with the same sys_ids.");
        Ok(Some(ledger))
    }

    async fn apply(&self, target: &Target, ledger: RouteLedger) -> Result<()> {
        require_stopped(&ledger, target.sink()?, &[]).await?;
        println!("\nadopted: wrote {} partition headers", admin::adopt(&ledger, self.complete).await?);
        Ok(())
    }
}
