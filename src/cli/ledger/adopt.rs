//! `nowbridge ledger adopt`: accepts that the ledger of this route was written for another address of the instance.

use anyhow::Result;

use super::super::route_change::{RouteChange, Target, require_stopped};
use crate::bridge::stores;
use crate::ledger::admin::{self, Site};

/// What to accept.
pub(super) struct Adopt {
    /// Also declare the ledger complete: unknown keys are no longer looked up in the instance.
    pub complete: bool,
}

impl RouteChange for Adopt {
    type Preview = Site;

    async fn preview(&self, target: &Target) -> Result<Option<Site>> {
        let site = stores::ledger(&target.config, target.sink()?, false).await?;
        let differences = admin::differences(&site).await?;
        for (partition, all) in &differences {
            for one in all {
                println!("partition {partition}: the {} was `{}`, and is now `{}`", one.what, one.ledger, one.route);
            }
        }
        if self.complete {
            println!("Keys that are not in the ledger will no longer be looked up: their alerts get new tickets.");
        }
        if differences.iter().all(|(_, all)| all.is_empty()) && !self.complete {
            println!("the ledger {} already matches this route", site.ledger);
            return Ok(None);
        }
        println!("Adopt the ledger only if the instance has the same tickets, with the same sys_ids.");
        Ok(Some(site))
    }

    async fn apply(&self, target: &Target, site: Site) -> Result<()> {
        require_stopped(&site, target.sink()?, &[]).await?;
        println!("\nadopted: wrote {} partition headers", admin::adopt(&site, self.complete).await?);
        Ok(())
    }
}
