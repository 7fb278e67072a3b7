//! `nowbridge ledger delete`: removes a key from the ledger, and lists where else it is stored.

use anyhow::{Result, bail};

use super::super::route_change::{RouteChange, Target, require_stopped};
use crate::bridge::stores;
use crate::ledger::admin::{self, Site, Traces};

/// The key to remove.
pub(super) struct Delete {
    pub key: String,
}

/// Where the key is stored.
pub(super) struct Stored {
    site: Site,
    traces: Traces,
    /// `rows` topics of the source routes that watch the same table.
    rows: Vec<String>,
}

impl RouteChange for Delete {
    type Preview = Stored;

    async fn preview(&self, target: &Target) -> Result<Option<Stored>> {
        let (config, sink, key) = (&target.config, target.sink()?, &self.key);
        let site = stores::ledger(config, sink, false).await?;
        let traces = admin::traces(&site, key).await?;
        if traces.records.is_empty() {
            bail!("the ledger {} has no record of key {key:?}", site.ledger);
        }
        let watching = config.sources.iter().filter(|s| s.instance.name == sink.instance.name && s.table == sink.table);
        let rows: Vec<String> = watching.map(|source| source.rows.clone()).collect();
        println!("To be removed:");
        println!("  {}: {} records", site.ledger, traces.records.len());
        for topic in &rows {
            println!("  {topic}: the last published state of {} tickets", traces.tickets.len());
        }
        println!("\nThe key is also stored here, and is not removed:");
        println!("  {}: its events, until the topic's retention ends", sink.topic);
        let published = sink.results.iter().chain([&sink.dead_letters]).map(String::as_str);
        for topic in published.chain(config.sources.iter().map(|source| source.topic.as_str())) {
            println!("  {topic}: records about it, if there are any, until the topic's retention ends");
        }
        for ticket in &traces.tickets {
            println!("  {}: {} {ticket}", sink.instance.url, sink.table);
        }
        if traces.state.as_ref().is_some_and(|state| site.states.phase(state).is_open()) {
            let number = traces.number.as_deref().unwrap_or("its ticket");
            println!(
                "\n{number} was open when it was last read: the next event that opens {key:?} creates a second ticket."
            );
        }
        Ok(Some(Stored { site, traces, rows }))
    }

    async fn apply(&self, target: &Target, stored: Stored) -> Result<()> {
        let Stored { site, traces, rows } = stored;
        let sources = (!rows.is_empty()).then(|| format!("{}.sources", target.config.topics.prefix));
        require_stopped(&site, target.sink()?, sources.as_slice()).await?;
        let removed = admin::forget(&site, &traces, &rows).await?;
        println!("\ndeleted {removed} ledger records of key {:?}", self.key);
        Ok(())
    }
}
