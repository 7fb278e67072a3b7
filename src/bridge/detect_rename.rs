//! Whether a route that has no ledger yet is an old one under another name: then its ledger is empty, and it would make every ticket
//! anew.
//!
//! Told by a ledger that no route of the configuration uses and that was written for the same topic, instance and table.
//! One whose group has members is another bridge's, such as a canary's. Not told where prefix, ledger and topic were all
//! renamed at once.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Sink};
use crate::kafka::topics::Topics;
use crate::kafka::{KafkaOptions, groups};
use crate::ledger;
use crate::runtime::error_chain;

/// For each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Refuses a route without a ledger that is most likely an old one.
///
/// # Errors
/// It is: what to do. Or the cluster does not answer.
pub async fn refuse(config: &Config, sink: &Sink, options: &KafkaOptions) -> Result<()> {
    let (first, last) = (format!("{}.", config.topics.prefix), ".ledger");
    let all = Topics::new(options, TIMEOUT).names().await.context("can't list the topics")?;
    let unused = |name: &String| config.sinks.iter().all(|sink| sink.ledger != *name);
    for topic in all.into_iter().filter(|name| name.starts_with(&first) && name.ends_with(last)).filter(unused) {
        let old = match ledger::identity(options, &topic, &sink.group, TIMEOUT).await {
            Ok(Some(old)) => old,
            Ok(None) => continue,
            Err(error) => {
                // Another bridge's, perhaps, which we may not read.
                let error = error_chain::chain(&error);
                tracing::warn!(topic, error, "can't tell whether a ledger is this route's old one");
                continue;
            }
        };
        let is_same = old.topic == sink.reads() && old.instance == sink.instance.url && old.table == sink.table;
        if !is_same || old.route == sink.name {
            continue;
        }
        let (group, by) = (format!("{first}{}", old.route), options.clone());
        let look = move || groups::members(&by, &group, TIMEOUT);
        let members = tokio::task::spawn_blocking(look).await.context("a look at a group was cut short")??;
        if members.is_empty() {
            bail!(
                "route {}: the ledger {topic} is of a route {} for the same topic, instance and table, which is not \
                 configured any more. If it was renamed, take its ledger along with `nowbridge ledger rename --from {}`, \
                 or every ticket would be made anew; if it was not, delete that topic",
                sink.name,
                old.route,
                old.route
            );
        }
    }
    Ok(())
}
