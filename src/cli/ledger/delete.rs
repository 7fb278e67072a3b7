//! `nowbridge ledger delete`: deletes a key from the ledger, and prints where else it is stored.

use anyhow::{Result, bail};

use super::super::route_change::{RouteChange, Target, require_stopped};
use crate::bridge::stores;
use crate::ledger::admin::{self, KeyRecords, RouteLedger};

/// The arguments.
pub(super) struct Delete {
    pub key: String,
}

/// Where the key is stored.
pub(super) struct Stored {
    ledger: RouteLedger,
    records: KeyRecords,
    /// `rows` topics of the source routes that watch the same table.
    rows: Vec<String>,
}

impl RouteChange for Delete {
    type Preview = Stored;

    async fn preview(&self, target: &Target) -> Result<Option<Stored>> {
        let (config, sink, key) = (&target.config, target.sink()?, &self.key);
        let ledger = stores::ledger(config, sink, false).await?;
        let records = admin::find_key_records(&ledger, key).await?;
        if records.ledger_records.is_empty() {
            bail!("the ledger {} has no record of key {key:?}", ledger.topic);
        }
        let watching = config.sources.iter().filter(|s| s.instance.name == sink.instance.name && s.table == sink.table);
        let rows: Vec<String> = watching.map(|source| source.rows.clone()).collect();
        println!("To be deleted:");
        println!("  {}: {} records", ledger.topic, records.ledger_records.len());
        for topic in &rows {
            println!("  {topic}: the last published state of {} tickets", records.tickets.len());
        }
        println!("\nAlso stored here, and not deleted:");
        println!("  {}: its events, until the topic's retention ends", sink.topic);
        let published = sink.results.iter().chain([&sink.dead_letters]).map(String::as_str);
        for topic in published.chain(config.sources.iter().map(|source| source.topic.as_str())) {
            println!("  {topic}: records of the key, if any, until the topic's retention ends");
        }
        for ticket in &records.tickets {
            println!("  {}: {} {ticket}", sink.instance.url, sink.table);
        }
        if records.state.as_ref().is_some_and(|state| ledger.states.phase(state).is_open()) {
            let number = records.number.as_deref().unwrap_or("its ticket");
            println!(
                "\n{number} was open when it was last read: the next event that opens {key:?} creates a second ticket."
            );
        }
        Ok(Some(Stored { ledger, records, rows }))
    }

    async fn apply(&self, target: &Target, stored: Stored) -> Result<()> {
        let Stored { ledger, records, rows } = stored;
        let sources = (!rows.is_empty()).then(|| format!("{}.sources", target.config.topics.prefix));
        require_stopped(&ledger, target.sink()?, sources.as_slice()).await?;
        let deleted = admin::delete(&ledger, &records, &rows).await?;
        println!("\ndeleted {deleted} ledger records of key {:?}", self.key);
        Ok(())
    }
}
