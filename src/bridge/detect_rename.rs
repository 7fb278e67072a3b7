//! Detects a renamed route: it has a new, empty ledger, and would create a second ticket for every open alert.
//!
//! A route without a ledger counts as renamed if there is a ledger for the same topic, instance and table that no route
//! of the configuration uses. If the group of that ledger has members, it belongs to another bridge, such as a canary.
//! A rename of prefix, ledger and topic at the same time is not detected.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Sink};
use crate::kafka::topics::Topics;
use crate::kafka::{KafkaOptions, groups};
use crate::ledger;
use crate::runtime::error_chain;

/// Timeout of each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Rejects a route without a ledger that was probably renamed.
///
/// # Errors
/// The route was probably renamed: what to do. Or the cluster does not respond.
pub async fn reject_renamed(config: &Config, sink: &Sink, options: &KafkaOptions) -> Result<()> {
    let (prefix, suffix) = (format!("{}.", config.topics.prefix), ".ledger");
    let all = Topics::new(options, TIMEOUT).list_names().await.context("can't list the topics")?;
    let is_unused = |name: &String| config.sinks.iter().all(|sink| sink.ledger != *name);
    for topic in all.into_iter().filter(|name| name.starts_with(&prefix) && name.ends_with(suffix)).filter(is_unused) {
        let old = match ledger::read_identity(options, &topic, &sink.group, TIMEOUT).await {
            Ok(Some(old)) => old,
            Ok(None) => continue,
            Err(error) => {
                // It may belong to another bridge, and be unreadable for this one.
                let error = error_chain::chain(&error);
                tracing::warn!(
                    route = sink.name,
                    topic,
                    error,
                    "can't read a ledger, to check whether the route was renamed"
                );
                continue;
            }
        };
        let is_same =
            old.topic == sink.consumed_topic() && old.instance == sink.instance.url && old.table == sink.table;
        if !is_same || old.route == sink.name {
            continue;
        }
        let (group, options) = (format!("{prefix}{}", old.route), options.clone());
        let query = move || groups::members(&options, &group, TIMEOUT);
        let members =
            tokio::task::spawn_blocking(query).await.context("reading the members of a group was interrupted")??;
        if members.is_empty() {
            bail!(
                "route {}: the ledger {topic} belongs to the route {}, which has the same topic, instance and table and \
                 is no longer configured. If the route was renamed, migrate the ledger with `nowbridge ledger rename \
                 --from {}`; otherwise every open alert would get a second ticket. If it was not renamed, delete that topic",
                sink.name,
                old.route,
                old.route
            );
        }
    }
    Ok(())
}
