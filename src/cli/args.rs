//! The command line: what there is, said so that `--help` is enough to use it. Nothing is done here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod ledger;

pub use ledger::{KeyState, Ledger, ListArgs};

use crate::runtime::logging;

/// Joins Apache Kafka and ServiceNow: each alert one ticket, each change one record.
#[derive(Debug, Parser)]
#[command(name = "nowbridge", version, max_term_width = 100)]
pub struct Cli {
    /// Log level and targets, such as `debug` or `nowbridge::sink=debug,warn`; default: info for `run` and `simulate`.
    #[arg(long, global = true, env = "NOWBRIDGE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, env = "NOWBRIDGE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge until it is told to stop (SIGTERM or Ctrl-C: drain, commit, exit 0; a second one: exit at once).
    Run(ConfigFile),
    /// Show the whole thing on this machine: a broker, a simulated instance, the bridge and a storm of alerts, then a
    /// count of what arrived. Nothing else is needed. Exits with 1 if any count is wrong.
    Demo(Demo),
    /// Run a simulated ServiceNow instance, to try a mapping without a real one. Its page shows the incidents.
    Simulate(Simulate),
    /// Check that Kafka and ServiceNow are as the bridge needs them: a table of what passed, what failed, what to do.
    Check(Check),
    /// Publish an alert to a topic.
    Publish(Publish),
    /// The bridge's topics.
    #[command(subcommand)]
    Topics(Topics),
    /// What the ledger remembers.
    #[command(subcommand)]
    Ledger(Ledger),
    /// What was refused: look at it, try it again, or drop it.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Write the values of open tickets as the mapping makes them now, without waiting for their next events: after a change
    /// of the configuration. Only values: no state, no notes. The bridge must run, with this configuration.
    Resync {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Only of this alert key; * stands for any text.
        #[arg(long, value_name = "PATTERN")]
        key: Option<String>,
        /// Tickets a second that are put before the bridge; it writes them at its own pace, behind what is urgent.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
    /// Apply events of the past again, values, states and notes: the input is read once more from an earlier place. All
    /// bridges must be stopped.
    Reprocess {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// From where: earliest, a time (2026-11-25T10:00:00Z) or an age (90m, 2h, 3d).
        #[arg(long, value_name = "WHERE")]
        from: String,
        /// Also alerts whose tickets are resolved or closed by now; a closed one gets a successor if its alert opens.
        #[arg(long)]
        include_closed: bool,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
    /// Explain a failure by its number or code: what was said, what it means, what the bridge does, what you do. Without
    /// one: the list of all.
    Explain {
        /// A number such as SN-006, a code such as `data_policy`, or a word to look for.
        name: Option<String>,
    },
    /// Let a route of the bridge running on this machine go on that stands still: release the brake, or try again at once
    /// instead of after its pause. With several instances of the bridge, run it beside each whose /readyz says so.
    Resume(RouteArgs),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file.
    #[arg(long, short, env = "NOWBRIDGE_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
}

/// The check's options.
#[derive(Debug, Args)]
pub struct Check {
    /// Which configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Also make a test ticket in each sink's table, note on it and resolve it: the only proof that writing works.
    #[arg(long)]
    pub write_probe: bool,
}

/// The demo's options.
#[derive(Debug, Args)]
pub struct Demo {
    /// Go on running after the summary, to look around; Ctrl-C ends it.
    #[arg(long)]
    pub keep: bool,
    /// Tickets that the storm makes.
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u32).range(10..=3_000))]
    pub tickets: u32,
    /// Where the simulated instance's page listens.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Seed of the storm.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The simulator's options.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// A YAML file with users, limits, switches and faults; see the simulator's documentation.
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// The instance's own address in its answers; default: the listening address.
    #[arg(long, value_name = "URL")]
    pub instance_url: Option<String>,
    /// Milliseconds that each request takes.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub latency: u64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What to publish. Either a file (or `-`) with one JSON event a line, or one event by its fields.
#[derive(Debug, Args)]
pub struct Publish {
    /// The configuration file: gives Kafka's address, login and topics.
    #[arg(long, short, env = "NOWBRIDGE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kafka's address, where there is no configuration file.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config", required_unless_present = "config")]
    pub bootstrap: Option<String>,
    /// Topic; default: the topic of the first sink route.
    #[arg(long, value_name = "TOPIC", required_unless_present = "config")]
    pub topic: Option<String>,
    /// File of events, one JSON object a line; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "title", "action"])]
    pub file: Option<PathBuf>,
    /// The alert's key: one key, one ticket.
    #[arg(long, required_unless_present = "file")]
    pub key: Option<String>,
    /// The system that raised it.
    #[arg(long, default_value = "manual")]
    pub source: String,
    /// open, update, acknowledge, unacknowledge, assign, note, suppress, unsuppress, resolve, reopen, merge, split,
    /// follow_up.
    #[arg(long, default_value = "open")]
    pub action: String,
    /// One line for people.
    #[arg(long, required_unless_present = "file")]
    pub title: Option<String>,
    /// Longer text.
    #[arg(long)]
    pub description: Option<String>,
    /// critical, high, medium, low, info or unknown.
    #[arg(long)]
    pub severity: Option<String>,
    /// A work note.
    #[arg(long)]
    pub note: Option<String>,
}

/// Topic commands.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Make the topics that are missing; `--print` only shows them and the rights that are needed.
    Create {
        /// Which configuration.
        #[command(flatten)]
        file: ConfigFile,
        /// Show the topics with their settings, and the ACLs that the bridge's Kafka user needs; make nothing.
        #[arg(long)]
        print: bool,
        /// Partitions of input topics that do not exist.
        #[arg(long, default_value_t = 4, value_name = "N")]
        partitions: i32,
    },
}

/// Which sink route.
#[derive(Debug, Args)]
pub struct RouteArgs {
    /// Which configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Sink route; default: the only one.
    #[arg(long)]
    pub route: Option<String>,
}

/// Which dead letters; all conditions must hold. A key of which one letter fits goes as a whole, in order.
#[derive(Debug, Args)]
pub struct LetterArgs {
    /// Code, such as data_policy, parked or undecodable, or a number such as SN-006; may be repeated.
    #[arg(long, value_name = "CODE")]
    pub code: Vec<String>,
    /// A part of the reason, whatever the case.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The alert's key; * stands for any text.
    #[arg(long, value_name = "PATTERN")]
    pub key: Option<String>,
    /// Not older than this: a time (2026-11-25T10:00:00Z) or an age (90m, 2h, 3d).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Older than this.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Dead-letter commands.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// Show the open dead letters: how many of which reason, and the letters themselves.
    List {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Which.
        #[command(flatten)]
        which: LetterArgs,
        /// The most letters that are listed; the counts are of all.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
        /// One JSON object a letter, and nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter whole: what is said of it, and the original.
    Show {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// PARTITION/OFFSET, as `list` shows it.
        letter: String,
    },
    /// Put dead letters back into the input, each key's in order, and release the key behind them. The bridge must run.
    Redrive {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Which; none of these: all.
        #[command(flatten)]
        which: LetterArgs,
        /// Only say what would be put back.
        #[arg(long)]
        dry_run: bool,
        /// Letters a second.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Leave out keys of which a letter came back so often already.
        #[arg(long, default_value_t = 3, value_name = "N")]
        max_redrives: u32,
        /// Rounds for keys of which newer events come meanwhile.
        #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Give up waiting for the bridge when it has come no nearer for so many seconds.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Give dead letters up: they are not listed or tried again, and their keys are released. Their records stay in the
    /// topic until its retention ends.
    Discard {
        /// Whose.
        #[command(flatten)]
        route: RouteArgs,
        /// Which; none of these: all.
        #[command(flatten)]
        which: LetterArgs,
        /// Do it. Without this the command only says what it would do.
        #[arg(long)]
        yes: bool,
    },
}

/// Configuration commands.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a configuration and say everything that is wrong with it; opens no connection.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Print the commented example.
    Example,
}
