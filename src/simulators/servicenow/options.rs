//! The options of a simulated instance: address, accounts, limits, settings and initial faults.
//!
//! All options deserialize with defaults, so that a YAML file can describe an instance. The simulator uses the values
//! as they are and does not check whether a real instance could have them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// The options of an instance.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Port 0 chooses a free port.
    pub listen: SocketAddr,
    /// The instance's own URL, used in `Location`, `Link` and reference links. As on a real instance, the Host header
    /// has no influence. `None`: `http://` and the listening address.
    pub instance_url: Option<String>,
    /// The accounts of the integration and of ticket users.
    pub users: Vec<User>,
    /// OAuth applications for the client credentials grant.
    pub oauth_clients: Vec<OauthClient>,
    /// Seed of all randomness: sys_ids, the order of lists without `ORDERBY`, latency. Faults have their own seed.
    pub seed: u64,
    pub settings: Settings,
    /// The time that each Table API request takes.
    pub latency: Latency,
    /// The threads of the instance for inbound integrations (semaphore `API_INT`).
    pub api_int: ApiInt,
    /// Rate-limit rules. Empty by default, as on a new instance.
    pub rate_limits: Vec<RateLimit>,
    /// The faults that are active from the start.
    pub faults: Faults,
    /// Custom columns (`u_...`) beyond the built-in ones.
    pub extra_columns: Vec<ExtraColumn>,
    /// Keep a log of all writes, for `/simulator/log` and `/simulator/history`. Costs memory per write.
    pub write_log: bool,
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
            settings: Settings::default(),
            latency: Latency::default(),
            api_int: ApiInt::default(),
            rate_limits: Vec::new(),
            faults: Faults::default(),
            extra_columns: Vec::new(),
            write_log: true,
        }
    }
}

/// An account. The sys_id of its row in `sys_user` is derived from the name.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `user_name`; also the value of `sys_updated_by`.
    pub name: String,
    /// For Basic authentication and the OAuth password grant.
    #[serde(default)]
    pub password: String,
    /// Role names; `admin` includes all roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// IANA name, used for display values and `gs.dateGenerate`. Default UTC.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The full name. `None`: the user name.
    #[serde(default)]
    pub display_name: Option<String>,
}

fn utc() -> String {
    "UTC".into()
}

impl User {
    /// Creates an account in UTC without a full name.
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

/// An OAuth client: an entry of the application registry with an OAuth application user.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// The account of the tokens of the client credentials grant.
    pub user: String,
}

impl OauthClient {
    /// Creates a client whose tokens act as `user`.
    pub fn new(id: &str, secret: &str, user: &str) -> Self {
        Self { id: id.into(), secret: secret.into(), user: user.into() }
    }
}

impl fmt::Debug for OauthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OauthClient").field("id", &self.id).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Behavior that differs between real instances, by release or by system property.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent setting of an instance")]
pub struct Settings {
    /// `glide.invalid_query.returns_no_rows`: a query with an unknown field returns no rows, instead of ignoring the
    /// field.
    pub invalid_query_returns_no_rows: bool,
    /// `glide.rest.table_api.admin_only_sys_fields`: only admins may choose a sys_id or write `sys_*` fields.
    pub admin_only_sys_fields: bool,
    /// The error `Invalid table` has a sentence in `detail` instead of null.
    pub invalid_table_detail: bool,
    /// The instance rejects updates of closed or canceled tasks (403 `ACL Exception Update Failed ...`).
    pub reject_closed_writes: bool,
    /// Resolving or closing an incident needs a resolution code and notes.
    pub data_policy: bool,
    /// Number of wrong passwords in a row that lock an account; 0 never locks.
    pub lockout_after: u32,
    /// Seconds until a locked account is unlocked. `None`: never.
    pub unlock_after_seconds: Option<u64>,
    pub token_lifetime_seconds: u64,
    /// Tables whose rows only admins may read. Other users get empty pages with the full `X-Total-Count`.
    pub admin_only_tables: Vec<String>,
    /// Reading `sys_choice` needs the role `personalize_choices`.
    pub restrict_choices: bool,
    /// Set session cookies and run one transaction per session at a time.
    pub sessions: bool,
    /// Number of requests that may wait for a session. Further ones return 202 and are not executed.
    pub session_queue_size: u32,
    /// The transaction quota of a batch, milliseconds.
    pub batch_quota_ms: u64,
    /// Items of a batch count against the rate-limit rules of their tables, in addition to the batch itself.
    pub rate_limit_batch_items: bool,
    /// The transform map inserts a row if the sys_id of the import set's row matches none, instead of ignoring the row.
    pub import_inserts_unknown_sys_id: bool,
    /// Seconds added to the instance's clock (`sys_*_on` values and the `Date` header).
    pub clock_offset_seconds: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            invalid_query_returns_no_rows: false,
            admin_only_sys_fields: false,
            invalid_table_detail: false,
            reject_closed_writes: false,
            data_policy: true,
            lockout_after: 5,
            unlock_after_seconds: Some(900),
            token_lifetime_seconds: 1800,
            admin_only_tables: Vec::new(),
            restrict_choices: true,
            sessions: true,
            session_queue_size: 10,
            batch_quota_ms: 30_000,
            rate_limit_batch_items: false,
            import_inserts_unknown_sys_id: false,
            clock_offset_seconds: 0,
        }
    }
}

/// The time that a Table API request takes, split at random before and after its commit.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    pub base_ms: u64,
    /// Maximum of a random time that is added to `base_ms`.
    pub jitter_ms: u64,
}

/// The threads for inbound integrations (semaphore `API_INT`). A node of a real instance has 4, and a queue of 50.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiInt {
    /// Number of concurrent transactions; 0 is unlimited.
    pub threads: usize,
    /// Number of requests that may wait for a thread. Further ones return a 429 without headers.
    pub queue: usize,
}

/// A rate-limit rule, counted per user in fixed windows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// `None`: for all users.
    #[serde(default)]
    pub user: Option<String>,
    /// `None`: for users of any role.
    #[serde(default)]
    pub role: Option<String>,
    /// `None`: for all tables.
    #[serde(default)]
    pub table: Option<String>,
    /// `None`: for all HTTP methods.
    #[serde(default)]
    pub method: Option<String>,
    /// Number of requests allowed in a window.
    pub requests: u64,
    /// Length of a window. An hour on a real instance.
    #[serde(default = "one_hour")]
    pub window_seconds: u64,
    /// Time from reaching the limit to its enforcement. Up to 30 s on a real instance.
    #[serde(default)]
    pub enforcement_delay_seconds: u64,
}

fn one_hour() -> u64 {
    3600
}

/// A custom text column.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraColumn {
    /// For example `incident`.
    pub table: String,
    /// For example `u_alert_key`.
    pub name: String,
    /// Number of characters; longer values are cut. 0 is unlimited.
    #[serde(default = "default_max_length")]
    pub max_length: u32,
}

fn default_max_length() -> u32 {
    40
}
