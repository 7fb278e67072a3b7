//! `nowbridge ledger`: what the ledger contains, and changes to it.

mod adopt;
mod delete;
mod get;
mod list;
mod rebuild;
mod rename;

use anyhow::Result;

use super::args::Ledger;
use super::route_change;

/// Runs a ledger command.
///
/// # Errors
/// The configuration has errors, bridges are running that must be stopped, or the cluster does not respond.
pub(super) async fn run(command: Ledger) -> Result<()> {
    match command {
        Ledger::Get { route, key } => get::get(&route, &key).await,
        Ledger::List { route, args } => list::list(&route, args).await,
        Ledger::Delete { route, key, yes } => route_change::run(&route, yes, delete::Delete { key }).await,
        Ledger::Adopt { route, complete, yes } => route_change::run(&route, yes, adopt::Adopt { complete }).await,
        Ledger::Rebuild { route, from, yes } => route_change::run(&route, yes, rebuild::Rebuild { from }).await,
        Ledger::Rename { route, from, from_ledger, from_group, yes } => {
            route_change::run(&route, yes, rename::Rename { from, from_ledger, from_group }).await
        }
    }
}
