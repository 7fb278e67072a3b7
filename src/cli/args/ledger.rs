//! Arguments of `ledger`.

use clap::{Args, Subcommand, ValueEnum};

use super::RouteArgs;

/// The commands of `ledger`.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Show the ledger records of an alert key: its ticket, the last write, whether it is parked.
    Get {
        #[command(flatten)]
        route: RouteArgs,
        /// Alert key.
        key: String,
    },
    /// List the keys of the ledger, with counts by state.
    List {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        args: ListArgs,
    },
    /// Delete a key from the ledger, for example because it contains personal data, or to detach the bridge from a
    /// ticket. Prints where else the key is stored. All bridges of the route must be stopped.
    Delete {
        #[command(flatten)]
        route: RouteArgs,
        /// Alert key.
        key: String,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
    /// Accept the ledger for a new address of the instance. The instance must have the same tickets. All bridges of the
    /// route must be stopped.
    Adopt {
        #[command(flatten)]
        route: RouteArgs,
        /// Declare the ledger complete, after a rebuild or after partitions were added to the input: unknown keys are
        /// no longer looked up in ServiceNow.
        #[arg(long)]
        complete: bool,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
    /// Rebuild a ledger that was lost, or that belongs to another topic, table or cluster: start with an empty one, and
    /// look up each key in ServiceNow at its next event. All bridges of the route must be stopped.
    Rebuild {
        #[command(flatten)]
        route: RouteArgs,
        /// Where to continue reading: earliest, latest, a time (2026-11-25T10:00:00Z) or an age (90m, 2h, 3d). Default:
        /// at the committed offset of the group.
        #[arg(long, value_name = "WHERE")]
        from: Option<String>,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
    /// Migrate the ledger and the committed offsets to a new name of the route. All bridges of the route must be
    /// stopped.
    Rename {
        #[command(flatten)]
        route: RouteArgs,
        /// Old name of the route.
        #[arg(long, value_name = "ROUTE")]
        from: String,
        /// Old ledger topic. Default: PREFIX.ROUTE.ledger.
        #[arg(long, value_name = "TOPIC")]
        from_ledger: Option<String>,
        /// Old consumer group. Default: PREFIX.ROUTE.
        #[arg(long, value_name = "GROUP")]
        from_group: Option<String>,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments of `ledger list`. All conditions must match.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Pattern of the alert key; * matches any text.
    #[arg(long, value_name = "PATTERN")]
    pub key: Option<String>,
    /// State of the key.
    #[arg(long)]
    pub state: Option<KeyState>,
    /// Last written before this time (2026-11-25T10:00:00Z) or age (90m, 2h, 3d).
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// Maximum number of keys to list; the counts include all.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Print one JSON object per key, and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// The state of a key in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyState {
    /// The ticket is open.
    Open,
    /// The ticket is resolved, and may be reopened.
    Resolved,
    /// The ticket is closed or deleted.
    Closed,
    /// An event was rejected, and later events are dead letters until it is redriven or discarded.
    Parked,
    /// The outcome of the last write is not verified yet.
    Ambiguous,
}
