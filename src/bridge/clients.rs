//! Creates Kafka options, ServiceNow clients and request limiters from the configuration.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use secrecy::SecretString;

use crate::check;
use crate::config::{self, Instance, Secret, Sink, Source};
use crate::kafka::KafkaOptions;
use crate::kafka::options::{Mechanism, Sasl, Security, Tls};
use crate::quota::{LimiterSettings, RequestLimiter};
use crate::runtime::clock;
use crate::servicenow::{Auth, Client, Connection, Credentials};

/// Returns the options of Kafka clients.
pub fn kafka(kafka: &config::Kafka) -> KafkaOptions {
    let sasl = kafka.sasl.as_ref().map(|s| Sasl {
        mechanism: match s.mechanism {
            "SCRAM-SHA-256" => Mechanism::ScramSha256,
            "SCRAM-SHA-512" => Mechanism::ScramSha512,
            _ => Mechanism::Plain,
        },
        username: s.user.clone(),
        password: secret(&s.password),
    });
    let tls = kafka.tls.as_ref().map(|t| Tls {
        ca: t.ca_file.clone(),
        certificate: t.certificate_file.clone(),
        key: t.key_file.clone(),
        key_password: t.key_password.as_ref().map(secret),
    });
    KafkaOptions {
        properties: kafka.properties.clone(),
        security: Security { tls, sasl },
        ..KafkaOptions::new(kafka.bootstrap.clone())
    }
}

/// Returns the credentials of an instance for its client.
pub fn auth(instance: &Instance) -> Auth {
    match &instance.auth {
        config::Auth::Basic { user, password } => Auth::Basic { user: user.clone(), password: secret(password) },
        config::Auth::ClientCredentials { client_id, client_secret, .. } => Auth::ClientCredentials {
            client_id: client_id.clone(),
            client_secret: secret(client_secret),
            token_url: None,
        },
    }
}

/// Creates a client of one table of an instance.
///
/// # Errors
/// The URL, the CA file or the proxy is unusable.
pub fn client(instance: &Instance, table: &str, state_column: &str) -> Result<Client> {
    Client::new(connection(instance, table, state_column), clock::mono)
        .with_context(|| format!("instance {}", instance.name))
}

/// Creates the clients of all routes. Clients of the same instance share credentials, so that rejected credentials are
/// retried once for all routes.
#[derive(Default)]
pub struct Clients {
    credentials: BTreeMap<String, Credentials>,
}

impl Clients {
    /// Creates the client of a sink route.
    ///
    /// # Errors
    /// As [`client`], or the name of the staging table is invalid.
    pub fn for_sink(&mut self, sink: &Sink) -> Result<Client> {
        self.shared_client(&sink.instance, sink_connection(sink)).with_context(|| format!("sink {}", sink.name))
    }

    /// Creates the client of a source route.
    ///
    /// # Errors
    /// As [`client`].
    pub fn for_source(&mut self, source: &Source) -> Result<Client> {
        let instance = &source.instance;
        self.shared_client(instance, connection(instance, &source.table, "state"))
            .with_context(|| format!("source {}", source.name))
    }

    fn shared_client(&mut self, instance: &Instance, connection: Connection) -> Result<Client> {
        if let Some(shared) = self.credentials.get(&instance.name) {
            return Ok(Client::with_shared_credentials(connection, clock::mono, shared)?);
        }
        let client = Client::new(connection, clock::mono)?;
        self.credentials.insert(instance.name.clone(), client.credentials());
        Ok(client)
    }
}

fn sink_connection(sink: &Sink) -> Connection {
    let mut connection = connection(&sink.instance, &sink.table, &sink.settings.states.column);
    check::apply_write_method(&mut connection, &sink.write);
    connection.columns = sink.mapping.columns();
    connection
}

fn connection(instance: &Instance, table: &str, state_column: &str) -> Connection {
    let mut connection = Connection::new(instance.url.clone(), table, auth(instance));
    connection.deadline = instance.request_deadline;
    connection.slots = instance.concurrency;
    connection.auth_retry_delay = instance.auth_retry.0;
    connection.proxy = instance.proxy.clone().map(Into::into);
    connection.ca_file.clone_from(&instance.ca_file);
    connection.state_column = state_column.into();
    connection.bridge_user = instance.auth.user().into();
    connection
}

/// Creates the request limiter of an instance, which its routes share. `sources`: source routes are among them.
pub fn limiter(instance: &Instance, sources: bool) -> Arc<RequestLimiter> {
    let rate_limit_window = instance.rate_limit_window;
    let mut settings =
        LimiterSettings { slots: instance.concurrency, rate_limit_window, sources, ..LimiterSettings::default() };
    if let Some(rate) = instance.rate {
        settings.rate = NonZeroU32::new(rate.count);
        settings.per = rate.per;
    }
    Arc::new(RequestLimiter::new(&settings))
}

fn secret(secret: &Secret) -> SecretString {
    SecretString::from(secret.expose().to_owned())
}

/// Returns a function that returns new credentials when the file of the instance's secret has changed; otherwise
/// `None`.
pub fn new_credentials(instance: &Arc<Instance>) -> Arc<dyn Fn() -> Option<Auth> + Send + Sync> {
    let instance = Arc::clone(instance);
    let latest: Mutex<Option<Secret>> = Mutex::new(None);
    Arc::new(move || {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        let initial = match &instance.auth {
            config::Auth::Basic { password, .. } => password,
            config::Auth::ClientCredentials { client_secret, .. } => client_secret,
        };
        // A file that can't be read is read again at the next call.
        let changed = latest.as_ref().unwrap_or(initial).read_if_changed().ok().flatten()?;
        let mut updated = Instance::clone(&instance);
        match &mut updated.auth {
            config::Auth::Basic { password, .. } => *password = changed.clone(),
            config::Auth::ClientCredentials { client_secret, .. } => *client_secret = changed.clone(),
        }
        *latest = Some(changed);
        Some(auth(&updated))
    })
}
