//! The command line arguments. `--help` documents all of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod ledger;

pub use ledger::{KeyState, Ledger, ListArgs};

use crate::runtime::logging;

/// Bridge between Apache Kafka and ServiceNow: one ticket per alert, one record per change.
#[derive(Debug, Parser)]
#[command(name = "nowbridge", version, max_term_width = 100)]
pub struct Cli {
    /// Log level or filter by target, such as `debug` or `nowbridge::sink=debug,warn`. Default: `info` for `run`,
    /// `simulate`, `resume` and `config`, `error` for other commands.
    #[arg(long, global = true, env = "NOWBRIDGE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Format of the log.
    #[arg(long, global = true, env = "NOWBRIDGE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

impl From<LogFormat> for logging::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge. SIGTERM or Ctrl-C: drain, commit and exit with 0; a second signal: exit immediately.
    Run(ConfigFile),
    /// Run a self-contained demo: an embedded broker, a simulated instance, the bridge and an alert storm. Then count
    /// the results, and exit with 1 if any count is wrong.
    Demo(Demo),
    /// Run a simulated ServiceNow instance, to test a mapping without a real one. Its web page shows the incidents.
    Simulate(Simulate),
    /// Check that Kafka and ServiceNow meet the bridge's requirements, and print each result with a remedy.
    Check(Check),
    /// Publish an alert to a topic.
    Publish(Publish),
    /// Manage the bridge's topics.
    #[command(subcommand)]
    Topics(Topics),
    /// Inspect and change the ledger: which ticket belongs to which alert.
    #[command(subcommand)]
    Ledger(Ledger),
    /// List, redrive or discard rejected records.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Update the values of open tickets after a change of the mapping, without waiting for their next events. Writes
    /// no states and no notes. The bridge must be running with this configuration.
    Resync {
        #[command(flatten)]
        route: RouteArgs,
        /// Only alert keys that match this pattern; * matches any text.
        #[arg(long, value_name = "PATTERN")]
        key: Option<String>,
        /// Tickets per second that are queued for the bridge. The bridge writes them as its quota allows, after urgent
        /// events.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
    /// Apply past events again, with values, states and notes: reset the consumer group to an earlier offset. All
    /// bridges of the route must be stopped.
    Reprocess {
        #[command(flatten)]
        route: RouteArgs,
        /// Where to start: earliest, a time (2026-11-25T10:00:00Z) or an age (90m, 2h, 3d).
        #[arg(long, value_name = "WHERE")]
        from: String,
        /// Include alerts whose tickets are resolved or closed. If such an alert opens, its closed ticket gets a
        /// successor.
        #[arg(long)]
        include_closed: bool,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
    /// Explain an error: its message, its cause, the reaction of the bridge and the resolution. Without a name: list
    /// all errors.
    Explain {
        /// A number such as SN-006, a code such as `data_policy`, or a search term.
        name: Option<String>,
    },
    /// Resume a stopped route on the local bridge: reset the rejection limit, or retry immediately instead of after the
    /// current delay. With several bridges, run it on the machine of each bridge whose /readyz reports a stopped route.
    Resume(RouteArgs),
    /// Check a configuration file or print an example.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// The configuration file.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Configuration file.
    #[arg(long, short, env = "NOWBRIDGE_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Also create a test ticket in each sink's table, add a note and resolve it. Only this verifies that writes work.
    #[arg(long)]
    pub write_probe: bool,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep running after the summary, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Number of tickets.
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u32).range(10..=3_000))]
    pub tickets: u32,
    /// Listen address of the simulated instance.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Listen address.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// YAML file with users, limits, settings and faults; see the simulator's documentation.
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// URL of the instance in its responses; default: the listen address.
    #[arg(long, value_name = "URL")]
    pub instance_url: Option<String>,
    /// Latency of each request, in milliseconds.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub latency: u64,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `publish`: either a file with one JSON event per line, or the fields of one event.
#[derive(Debug, Args)]
pub struct Publish {
    /// Configuration file, for Kafka's address, credentials and topics.
    #[arg(long, short, env = "NOWBRIDGE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Bootstrap servers, if there is no configuration file.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config", required_unless_present = "config")]
    pub bootstrap: Option<String>,
    /// Topic. Default: the topic of the first sink route.
    #[arg(long, value_name = "TOPIC", required_unless_present = "config")]
    pub topic: Option<String>,
    /// File of events, one JSON object per line; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "title", "action"])]
    pub file: Option<PathBuf>,
    /// Alert key. There is one ticket per key.
    #[arg(long, required_unless_present = "file")]
    pub key: Option<String>,
    /// System that raised the alert.
    #[arg(long, default_value = "manual")]
    pub source: String,
    /// Action: open, update, acknowledge, unacknowledge, assign, note, suppress, unsuppress, resolve, reopen, merge,
    /// split, follow_up.
    #[arg(long, default_value = "open")]
    pub action: String,
    /// Title, one line.
    #[arg(long, required_unless_present = "file")]
    pub title: Option<String>,
    /// Description.
    #[arg(long)]
    pub description: Option<String>,
    /// Severity: critical, high, medium, low, info or unknown.
    #[arg(long)]
    pub severity: Option<String>,
    /// Work note.
    #[arg(long)]
    pub note: Option<String>,
}

/// The commands of `topics`.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create missing topics, or print them with the ACLs that the bridge needs (`--print`).
    Create {
        #[command(flatten)]
        file: ConfigFile,
        /// Print the topics with their settings and the required ACLs, and create nothing.
        #[arg(long)]
        print: bool,
        /// Partitions of input topics that are created.
        #[arg(long, default_value_t = 4, value_name = "N")]
        partitions: i32,
    },
}

/// A sink route.
#[derive(Debug, Args)]
pub struct RouteArgs {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Sink route. Optional if there is only one.
    #[arg(long)]
    pub route: Option<String>,
}

/// A filter of dead letters. All conditions must match. If one letter of a key matches, all letters of the key are
/// selected, in order.
#[derive(Debug, Args)]
pub struct DeadLetterArgs {
    /// Error code such as data_policy, parked or undecodable, or number such as SN-006; can be repeated.
    #[arg(long, value_name = "CODE")]
    pub code: Vec<String>,
    /// Text that the reason contains, ignoring case.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Pattern of the alert key; * matches any text.
    #[arg(long, value_name = "PATTERN")]
    pub key: Option<String>,
    /// Not older than this time (2026-11-25T10:00:00Z) or age (90m, 2h, 3d).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Older than this time or age.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// The commands of `dead-letters`.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List open dead letters, with counts by reason.
    List {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        filter: DeadLetterArgs,
        /// Maximum number of letters to list; the counts include all.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
        /// Print one JSON object per letter, and nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter: its headers and the original record.
    Show {
        #[command(flatten)]
        route: RouteArgs,
        /// PARTITION/OFFSET, as printed by `list`.
        letter: String,
    },
    /// Write dead letters back to the input topic, in order per key, and release their keys. Without a filter: all. The
    /// bridge must be running.
    Redrive {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        filter: DeadLetterArgs,
        /// Only print what would be redriven.
        #[arg(long)]
        dry_run: bool,
        /// Letters per second.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Skip keys with a letter that was already redriven N times.
        #[arg(long, default_value_t = 3, value_name = "N")]
        max_redrives: u32,
        /// Maximum number of rounds. Keys that get newer dead letters in the meantime are redriven again in the next
        /// round.
        #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Seconds without progress before giving up.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Mark dead letters as discarded, and release their keys. Without a filter: all. They are no longer listed or
    /// redriven. Their records remain in the topic until its retention ends.
    Discard {
        #[command(flatten)]
        route: RouteArgs,
        #[command(flatten)]
        filter: DeadLetterArgs,
        /// Apply the changes (default: only print them).
        #[arg(long)]
        yes: bool,
    },
}

/// The commands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file and print all errors. Opens no connection.
    Check {
        /// Configuration file.
        file: PathBuf,
    },
    /// Print a commented example.
    Example,
}
