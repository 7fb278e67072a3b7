//! What a simulated instance is started with: its address, accounts, limits, switches and first faults.
//!
//! Everything deserialises from plain data with defaults, so that a file can describe an instance. Values are taken as
//! they are; nothing here is validated against a real instance.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// Everything an instance is started with.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The instance's own address, used in `Location`, `Link` and reference links; not taken from the Host header, as
    /// on a real instance. Without it: `http://` and the listening address.
    pub instance_url: Option<String>,
    /// Accounts of the integration and of people.
    pub users: Vec<User>,
    /// OAuth applications for the client credentials grant.
    pub oauth_clients: Vec<OauthClient>,
    /// Seed of everything random: sys_ids, the order of unordered lists, latency. Faults have a seed of their own.
    pub seed: u64,
    /// Behaviour that differs between real instances.
    pub switches: Switches,
    /// Time each Table API request takes.
    pub latency: Latency,
    /// The pool of inbound integration threads.
    pub api_int: ApiInt,
    /// Rate-limit rules; none on a stock instance.
    pub rate_limits: Vec<RateLimit>,
    /// Faults in force from the start.
    pub faults: Faults,
    /// Custom columns (`u_...`) beyond the built-in ones.
    pub extra_columns: Vec<ExtraColumn>,
    /// Keep the history of writes (needed by `/simulator/log` and `/simulator/history`); costs memory per write.
    pub history: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            instance_url: None,
            users: vec![
                User::new("nowbridge", "nowbridge", &["itil", "personalize_choices", "rest_service"]),
                User::new("admin", "admin", &["admin"]),
                User { display_name: Some("Beth Anglin".into()), ..User::new("beth.anglin", "beth", &["itil"]) },
                User { display_name: Some("David Loo".into()), ..User::new("david.loo", "david", &["itil"]) },
            ],
            oauth_clients: vec![OauthClient::new("nowbridge-client", "nowbridge-secret", "nowbridge")],
            seed: 1,
            switches: Switches::default(),
            latency: Latency::default(),
            api_int: ApiInt::default(),
            rate_limits: Vec::new(),
            faults: Faults::default(),
            extra_columns: Vec::new(),
            history: true,
        }
    }
}

/// One account. Its row in `sys_user` has a sys_id derived from the name.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `user_name`, which also appears in `sys_updated_by`.
    pub name: String,
    /// For Basic and the password grant.
    #[serde(default)]
    pub password: String,
    /// Role names; `admin` implies all.
    #[serde(default)]
    pub roles: Vec<String>,
    /// IANA name; display values and `gs.dateGenerate` use it. Default UTC.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The full name; default: the user name.
    #[serde(default)]
    pub display_name: Option<String>,
}

fn utc() -> String {
    "UTC".into()
}

impl User {
    /// An account in UTC.
    pub fn new(name: &str, password: &str, roles: &[&str]) -> Self {
        Self {
            name: name.into(),
            password: password.into(),
            roles: roles.iter().map(|role| (*role).into()).collect(),
            time_zone: utc(),
            display_name: None,
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("time_zone", &self.time_zone)
            .finish_non_exhaustive()
    }
}

/// An entry of the application registry with an OAuth application user.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// The account that tokens of the client credentials grant act as.
    pub user: String,
}

impl OauthClient {
    /// A client acting as `user`.
    pub fn new(id: &str, secret: &str, user: &str) -> Self {
        Self { id: id.into(), secret: secret.into(), user: user.into() }
    }
}

impl fmt::Debug for OauthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OauthClient").field("id", &self.id).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Behaviour that differs between releases and properties of real instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent property of an instance")]
pub struct Switches {
    /// `glide.invalid_query.returns_no_rows`: an unknown query field gives no rows instead of being dropped.
    pub invalid_query_returns_no_rows: bool,
    /// `glide.rest.table_api.admin_only_sys_fields`: only admins may choose a sys_id or write `sys_*` fields.
    pub admin_only_sys_fields: bool,
    /// `detail` of `Invalid table` is a sentence instead of null.
    pub invalid_table_detail: bool,
    /// An update of a closed or cancelled task is refused (403 `ACL Exception Update Failed ...`) instead of applied.
    pub refuse_closed_writes: bool,
    /// Resolving or closing an incident needs a resolution code and notes.
    pub data_policy: bool,
    /// Wrong passwords in a row that lock an account; 0 never locks.
    pub lockout_after: u32,
    /// Seconds until a locked account opens again; `None` never.
    pub unlock_after_seconds: Option<u64>,
    /// Life of an access token.
    pub token_seconds: u64,
    /// Tables whose rows only admins may read (others get empty pages with a full `X-Total-Count`).
    pub admin_only_tables: Vec<String>,
    /// Reading `sys_choice` needs the role `personalize_choices`.
    pub choice_acl: bool,
    /// Hand out session cookies and run one transaction per session.
    pub sessions: bool,
    /// Requests that may wait for a session before further ones are answered 202 and dropped.
    pub session_queue: u32,
    /// Time after which a batch is ended.
    pub batch_quota_ms: u64,
    /// Items of a batch count against the rate-limit rules of their tables, beside the batch itself.
    pub batch_items_count: bool,
    /// The transform map makes a new row where the sys_id of an import set's row names none, instead of ignoring it.
    pub import_inserts_unknown: bool,
    /// Seconds to add to the instance's clock (stamps and the `Date` header).
    pub clock_offset_seconds: i64,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            invalid_query_returns_no_rows: false,
            admin_only_sys_fields: false,
            invalid_table_detail: false,
            refuse_closed_writes: false,
            data_policy: true,
            lockout_after: 5,
            unlock_after_seconds: Some(900),
            token_seconds: 1800,
            admin_only_tables: Vec::new(),
            choice_acl: true,
            sessions: true,
            session_queue: 10,
            batch_quota_ms: 30_000,
            batch_items_count: false,
            import_inserts_unknown: false,
            clock_offset_seconds: 0,
        }
    }
}

/// Time a Table API request takes, split at random before and after its commit.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// At least this many milliseconds.
    pub base_ms: u64,
    /// Up to this many more.
    pub jitter_ms: u64,
}

/// The pool that serves inbound integrations: a real node has 4 threads and a queue of 50.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiInt {
    /// Transactions at once; 0 is unlimited.
    pub threads: usize,
    /// Requests that may wait for a thread; one more is answered with a bare 429.
    pub queue: usize,
}

/// A rate-limit rule, counted per user in fixed windows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Only for this user.
    #[serde(default)]
    pub user: Option<String>,
    /// Only for users with this role.
    #[serde(default)]
    pub role: Option<String>,
    /// Only for this table.
    #[serde(default)]
    pub table: Option<String>,
    /// Only for this HTTP method.
    #[serde(default)]
    pub method: Option<String>,
    /// Requests allowed in a window.
    pub requests: u64,
    /// Length of a window; a real one is an hour.
    #[serde(default = "an_hour")]
    pub window_seconds: u64,
    /// How much later than reached the limit is enforced; up to 30 s on a real instance.
    #[serde(default)]
    pub lag_seconds: u64,
}

fn an_hour() -> u64 {
    3600
}

/// A custom column.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraColumn {
    /// For example `incident`.
    pub table: String,
    /// For example `u_alert_key`.
    pub name: String,
    /// Characters kept; 0 is unlimited.
    #[serde(default = "forty")]
    pub length: u32,
}

fn forty() -> u32 {
    40
}
