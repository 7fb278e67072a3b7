//! How an instance is reached: plain settings, already resolved by the configuration. Nothing here connects.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{Events, ImportSet};

/// How requests prove who they are.
#[derive(Debug, Clone)]
pub enum Auth {
    /// User name and password with every request. The user must be allowed Basic authentication (newer instances
    /// refuse it for human users with a plain 401).
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: SecretString,
    },
    /// OAuth 2.0 client credentials against the instance's own token endpoint.
    ClientCredentials {
        /// Client id of the application registry entry.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
        /// Token endpoint; `<base_url>/oauth_token.do` where absent.
        token_url: Option<String>,
    },
}

impl Auth {
    /// Whether they are the same to the last letter.
    pub(super) fn is_same_as(&self, other: &Auth) -> bool {
        match (self, other) {
            (Auth::Basic { user, password }, Auth::Basic { user: other_user, password: other }) => {
                user == other_user && password.expose_secret() == other.expose_secret()
            }
            (
                Auth::ClientCredentials { client_id, client_secret, token_url },
                Auth::ClientCredentials { client_id: other_id, client_secret: other, token_url: other_url },
            ) => {
                client_id == other_id
                    && client_secret.expose_secret() == other.expose_secret()
                    && token_url == other_url
            }
            _ => false,
        }
    }
}

/// Settings of a connection to one table of one instance.
#[derive(Debug, Clone)]
pub struct Connection {
    /// `https://<instance>.service-now.com`, without a path of the API. A path is kept (reverse proxies).
    pub base_url: String,
    /// The route's table, such as `incident`.
    pub table: String,
    /// Credentials.
    pub auth: Auth,
    /// Total time one request may take, from connecting to the last byte of the answer. Should exceed the instance's
    /// 60 s transaction quota, or its last word is never heard.
    pub deadline: Duration,
    /// After a refusal a password is not tried for so long, by nobody who shares it.
    pub login_pause: Duration,
    /// Part of the deadline that making the connection may take.
    pub connect_timeout: Duration,
    /// Concurrency slots: each has its own connection and cookie jar, because an instance runs one transaction per
    /// session and drops (202) what queues up behind it.
    pub slots: usize,
    /// Proxy with optional credentials in it; the environment's proxies are never used.
    pub proxy: Option<SecretString>,
    /// PEM file with certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// Writes go through a staging table; `None`: by the Table API.
    pub import: Option<ImportSet>,
    /// Writes are events, and `table` is theirs; `None`: writes make and change rows.
    pub events: Option<Events>,
    /// The state column, compared in the answers of writes.
    pub state_column: String,
    /// The journal column that notes are written to, never compared.
    pub journal_column: String,
    /// The column that carries the alert's correlation.
    pub correlation_column: String,
    /// The column that names the bridge beside the correlation.
    pub correlation_display_column: String,
    /// User name the bridge writes as; not used by the client itself.
    pub bridge_user: String,
    /// Most bytes of an answer's body (after decompression) that are read.
    pub max_answer: usize,
}

impl Connection {
    /// Settings with this product's defaults.
    pub fn new(base_url: impl Into<String>, table: impl Into<String>, auth: Auth) -> Self {
        let bridge_user = match &auth {
            Auth::Basic { user, .. } => user.clone(),
            Auth::ClientCredentials { .. } => String::new(),
        };
        Self {
            base_url: base_url.into(),
            table: table.into(),
            auth,
            deadline: Duration::from_secs(70),
            login_pause: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            slots: 4,
            proxy: None,
            ca_file: None,
            user_agent: concat!("nowbridge/", env!("CARGO_PKG_VERSION")).into(),
            import: None,
            events: None,
            state_column: "state".into(),
            journal_column: "work_notes".into(),
            correlation_column: "correlation_id".into(),
            correlation_display_column: "correlation_display".into(),
            bridge_user,
            max_answer: 16 << 20,
        }
    }
}

/// Why a client could not be made. Nothing here was sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance's address is unusable.
    #[error("the instance's address {url:?} is not usable: {why}; write it like https://example.service-now.com")]
    Address {
        /// What was configured.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name that goes into a URL path or a field list has characters that no table or column has.
    #[error("{what} {name:?} is not a name of ServiceNow: use letters, digits and underscores")]
    Name {
        /// table, state column, journal column…
        what: &'static str,
        /// What was configured.
        name: String,
    },
    /// A setting is out of range.
    #[error("{what} must be at least {least}")]
    Range {
        /// Which.
        what: &'static str,
        /// The least value.
        least: &'static str,
    },
    /// A credential cannot be put into a header.
    #[error("the {what} has characters that cannot be sent in an HTTP header")]
    Credential {
        /// Which.
        what: &'static str,
    },
    /// The CA file could not be read.
    #[error("the CA file {path:?} cannot be read")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The CA file is damaged.
    #[error("the CA file {path:?} is not in PEM form")]
    CaPem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// TLS can't be set up: this machine has no authorities, or one of `ca_file` is no certificate.
    #[error("TLS towards the instance can't be set up; are the machine's CA certificates installed?")]
    Tls(#[source] rustls::Error),
    /// The CA file holds no certificate.
    #[error("the CA file {path:?} holds no PEM certificate")]
    CaEmpty {
        /// The file.
        path: PathBuf,
    },
    /// The proxy's address is unusable. It is not shown: it may hold a password.
    #[error("the proxy's address is not usable; write it like http://proxy.example.com:3128")]
    Proxy,
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be made")]
    Build(#[source] reqwest::Error),
}
