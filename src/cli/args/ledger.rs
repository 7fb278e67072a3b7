//! The ledger's commands.

use clap::{Args, Subcommand, ValueEnum};

use super::RouteArgs;

/// Ledger commands.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Show what the ledger remembers of an alert key: its ticket, what was written last, whether it is parked.
    Get {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// The alert's key.
        key: String,
    },
    /// Show the keys that the ledger remembers, and count them by state.
    List {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Which.
        #[command(flatten)]
        which: ListArgs,
    },
    /// Forget a key: people's data in it, or a ticket that the bridge is to know nothing of any more. Tells where else it
    /// stands. All bridges must be stopped.
    Delete {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// The alert's key.
        key: String,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
    /// Take the ledger along to the instance's new address. The tickets must be the same. All bridges must be stopped.
    Adopt {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Also say that it knows every open ticket, though it was begun anew or its input has grown: end the look-ups of
        /// unknown keys.
        #[arg(long)]
        complete: bool,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
    /// Begin the ledger anew where it was lost, or belongs to another topic, table or cluster: each key is looked up in the
    /// instance at its next event. All bridges must be stopped.
    Rebuild {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Where reading goes on: earliest, latest, or a time (2026-11-25T10:00:00Z) or an age (90m, 2h, 3d); default: the
        /// group's offset.
        #[arg(long, value_name = "WHERE")]
        from: Option<String>,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
    /// Take the ledger along to a route's new name, with the group's offsets. All bridges must be stopped.
    Rename {
        /// The route, by its new name.
        #[command(flatten)]
        route: RouteArgs,
        /// Its old name.
        #[arg(long, value_name = "ROUTE")]
        from: String,
        /// Its old ledger; default: PREFIX.ROUTE.ledger
        #[arg(long, value_name = "TOPIC")]
        from_ledger: Option<String>,
        /// Its old group; default: PREFIX.ROUTE
        #[arg(long, value_name = "GROUP")]
        from_group: Option<String>,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
}

/// Which keys of a ledger; all conditions must hold.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The alert's key; * stands for any text.
    #[arg(long, value_name = "PATTERN")]
    pub key: Option<String>,
    /// How it stands.
    #[arg(long)]
    pub state: Option<KeyState>,
    /// Last written before this: a time (2026-11-25T10:00:00Z) or an age (90m, 2h, 3d).
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// The most keys that are listed; the counts are of all.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// One JSON object a key, and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyState {
    /// Its ticket is open.
    Open,
    /// Its ticket is resolved, and may be reopened.
    Resolved,
    /// Its ticket is closed or gone.
    Closed,
    /// Its newer events wait behind a refused one.
    Parked,
    /// Its last write is not settled yet.
    Ambiguous,
}
