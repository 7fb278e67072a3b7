//! Settings of a connection to an instance, already resolved by the configuration. Nothing here connects.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{Events, ImportSet};
use crate::model::Column;

/// How requests authenticate.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Basic authentication: user name and password with every request. The instance must allow it for the user (newer
    /// instances respond to human users with a plain 401).
    Basic { user: String, password: SecretString },
    /// OAuth 2.0 client credentials, with the instance's own token endpoint.
    ClientCredentials {
        /// Client id of the application registry record.
        client_id: String,
        client_secret: SecretString,
        /// Token endpoint; `None`: `<base_url>/oauth_token.do`.
        token_url: Option<String>,
    },
}

impl Auth {
    /// Whether both are identical, secrets included.
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
    /// `https://<instance>.service-now.com`, without an API path. Any other path is kept (reverse proxies).
    pub base_url: String,
    /// The route's table, such as `incident`.
    pub table: String,
    pub auth: Auth,
    /// Time limit of one request, from connecting to the last byte of the response. Should exceed the instance's 60 s
    /// transaction quota, or the client never receives the instance's final response.
    pub deadline: Duration,
    /// How long no client tries a password again after the instance rejected it.
    pub auth_retry_delay: Duration,
    /// Time limit for connecting, part of `deadline`.
    pub connect_timeout: Duration,
    /// Concurrency slots. Each has its own connection and cookie jar, because an instance runs one transaction per
    /// session and drops (202) requests that queue for the session.
    pub slots: usize,
    /// Proxy URL, possibly with credentials. Proxies from the environment are never used.
    pub proxy: Option<SecretString>,
    /// PEM file with certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// Write through a staging table; `None`: by the Table API.
    pub import_set: Option<ImportSet>,
    /// Write events to `table`; `None`: create and update rows.
    pub events: Option<Events>,
    /// The state column; its value is compared in the responses to writes.
    pub state_column: String,
    /// The journal column that notes are written to; never compared.
    pub journal_column: String,
    /// The column that contains the alert's correlation.
    pub correlation_column: String,
    /// The column that contains the name of the bridge.
    pub correlation_display_column: String,
    /// The columns that the route's mapping may write: every response shows them.
    pub columns: Vec<Column>,
    /// User name of the bridge. The client itself does not use it.
    pub bridge_user: String,
    /// Maximum size of a response body in bytes, after decompression.
    pub max_response_bytes: usize,
}

impl Connection {
    /// Creates settings with the product's defaults.
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
            auth_retry_delay: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            slots: 4,
            proxy: None,
            ca_file: None,
            user_agent: concat!("nowbridge/", env!("CARGO_PKG_VERSION")).into(),
            import_set: None,
            events: None,
            state_column: "state".into(),
            journal_column: "work_notes".into(),
            correlation_column: "correlation_id".into(),
            correlation_display_column: "correlation_display".into(),
            columns: Vec::new(),
            bridge_user,
            max_response_bytes: 16 << 20,
        }
    }
}

/// Why a client could not be created. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance's URL is invalid.
    #[error("invalid instance URL {url:?}: {reason}; use the form https://example.service-now.com")]
    Address {
        /// As configured, without credentials.
        url: String,
        reason: String,
    },
    /// A name that is part of a URL path or a field list has characters that no table or column name has.
    #[error("invalid {kind} name {name:?}: use letters, digits and underscores")]
    Name {
        /// `table`, `state column` and so on.
        kind: &'static str,
        name: String,
    },
    /// A setting is out of range.
    #[error("{setting} must be at least {minimum}")]
    Range { setting: &'static str, minimum: &'static str },
    /// A credential cannot be sent in a header.
    #[error("the {credential} contains characters that can't be sent in an HTTP header")]
    Credential {
        /// `user name`, `password` and so on.
        credential: &'static str,
    },
    /// The CA file could not be read.
    #[error("can't read the CA file {path:?}")]
    CaFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The CA file is not valid PEM.
    #[error("the CA file {path:?} is not valid PEM")]
    CaPem {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// TLS cannot be set up: the machine has no certificate authorities, or `ca_file` contains an invalid certificate.
    #[error("can't set up TLS for the instance; check that the machine's CA certificates are installed")]
    Tls(#[source] rustls::Error),
    /// The CA file contains no certificate.
    #[error("the CA file {path:?} contains no PEM certificate")]
    CaEmpty { path: PathBuf },
    /// The proxy's URL is invalid. The message omits it: it may contain a password.
    #[error("invalid proxy URL; use the form http://proxy.example.com:3128")]
    Proxy,
    /// The HTTP client could not be built.
    #[error("can't build the HTTP client")]
    Build(#[source] reqwest::Error),
}
