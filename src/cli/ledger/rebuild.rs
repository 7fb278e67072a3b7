//! `nowbridge ledger rebuild`: replaces a lost or foreign ledger by an empty one; tickets are found again by look-ups.

use anyhow::Result;

use super::super::instant;
use super::super::route_change::{RouteChange, Target, announce_wait_for_late_writes, require_stopped};
use crate::bridge::{KAFKA_TIMEOUT, clients, stores};
use crate::kafka::topics::Topics;
use crate::ledger::SurveyError;
use crate::ledger::admin::{self, Begin};

/// What to rebuild from.
pub(super) struct Rebuild {
    /// Where to continue reading the input; `None`: at the group's committed offset.
    pub from: Option<String>,
}

impl RouteChange for Rebuild {
    type Preview = Begin;

    async fn preview(&self, target: &Target) -> Result<Option<Begin>> {
        let begin = self.from.as_deref().map(instant::start_at).transpose()?.map_or(Begin::Committed, Begin::At);
        let sink = target.sink()?;
        let cluster = Topics::new(&clients::kafka(&target.config.kafka), KAFKA_TIMEOUT);
        if cluster.partitions(&sink.ledger).await?.is_none() {
            println!(
                "The ledger {} does not exist, and is created empty. The bridge looks each key up in",
                sink.ledger
            );
            println!("the instance at its next event, one request per key.");
            return Ok(Some(begin));
        }
        let site = stores::ledger(&target.config, sink, false).await?;
        let mut keys = 0;
        for partition in 0..site.partitions {
            keys += match site.survey(partition, |_| ()).await {
                Ok(survey) => survey.loaded.entries.len(),
                // Unreadable records are removed with the rest.
                Err(admin::Error::Survey(SurveyError::Unreadable { .. })) => 0,
                Err(error) => return Err(error.into()),
            };
        }
        println!("{keys} keys of the ledger {} are removed. The bridge looks each key up in the instance", site.ledger);
        println!("at its next event, one request per key. Values that users wrote into tickets may be overwritten.");
        Ok(Some(begin))
    }

    async fn apply(&self, target: &Target, begin: Begin) -> Result<()> {
        let sink = target.sink()?;
        let site = stores::ledger(&target.config, sink, true).await?;
        require_stopped(&site, sink, &[]).await?;
        let span = announce_wait_for_late_writes(sink);
        let report = &mut |partition, start, removed| {
            println!("partition {partition}: removed {removed} records; reading continues at offset {start}");
        };
        admin::rebuild(&site, begin, span, report).await?;
        println!("\nrebuilt the ledger {}", site.ledger);
        Ok(())
    }
}
